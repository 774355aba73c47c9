"""What a corpus is: a name, what is published of it, and how its recordings are had."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from spikeshot.data.download import RemoteFile
from spikeshot.data.packs import Progress
from spikeshot.data.recordings import Recordings
from spikeshot.data.samples import Collection, Originals
from spikeshot.data.store import fingerprint, packed
from spikeshot.errors import DataError


@dataclass(frozen=True)
class Request:
    """What is asked of a corpus.

    `path`: the user's data, or None; `seed` of a simulation; `until_us`: events later than this
    many microseconds are not needed (they may be left out); None: all are. `turned`: instead of all
    classes, these ones, each turned by one, two and three right angles (`data/turns.py`). The
    others are what files may not say (`READING`): the sensor's (width, height), and `ReadOptions`.
    `progress` hears of the packing, where there is a pack to be made.
    """

    path: Path | None = None
    seed: int = 0
    until_us: int | None = 300_000
    turned: frozenset[str] = frozenset()
    sensor_size: tuple[int, int] | None = None
    time_unit: str = "us"
    columns: str | None = None
    sort: bool = False
    progress: Progress | None = field(default=None, compare=False, repr=False)

    def reading(self) -> dict[str, Any]:
        """Return what is asked of the reading of files, by name: all that is not the default."""
        return {key: value for key in READING if (value := getattr(self, key)) != _DEFAULT[key]}


READING = ("sensor_size", "time_unit", "columns", "sort")
_DEFAULT = {f.name: f.default for f in fields(Request)}


@dataclass(frozen=True)
class Facts:
    """What is published of a data set, for `spikeshot data list` and `get`.

    `obtain`: how to get it, by hand too; `files`: what `get` downloads, nothing where the links
    are known to die.
    """

    classes: str = ""
    size: str = ""
    licence: str = ""
    obtain: str = ""
    citation: str = ""
    files: tuple[RemoteFile, ...] = ()


NMNIST_CROP = (1, 1, 32, 32)
"""N-MNIST's usual crop, 34 x 34 to 32 x 32: a border of one pixel goes."""

ListSamples = Callable[..., Collection]
"""The reader of a layout: all samples under a folder or in an archive, none of them read yet.

Takes the path and, by name, the `Corpus.takes` of a request."""


@dataclass(frozen=True)
class Corpus:
    """One entry of the registry: what it is, whether it reads the user's data, how to load it.

    `list_samples` is given by a corpus that reads files of events, `list_originals` by one that is
    simulated from the user's pictures or strokes; `data check` and `pack` use them.
    `optional_path`: a path may be given, but need not be. `turns`: whether it can turn classes by
    right angles; `takes`: which of `READING` it heeds; `crop`: (left, top, width, height) as it is
    usually cut out of the sensor, None: the whole sensor.
    """

    name: str
    about: str
    needs_path: bool
    load: Callable[[Request], Recordings]
    facts: Facts = Facts()
    list_samples: ListSamples | None = None
    optional_path: bool = False
    turns: bool = False
    takes: tuple[str, ...] = ()
    crop: tuple[int, int, int, int] | None = None
    list_originals: Callable[[Path], Originals] | None = None


def layout_corpus(
    name: str,
    about: str,
    facts: Facts,
    list_samples: ListSamples,
    takes: tuple[str, ...] = (),
    crop: tuple[int, int, int, int] | None = None,
) -> Corpus:
    """Return the corpus of a published layout: its files are listed, packed once and mapped."""

    def load(request: Request) -> Recordings:
        assert request.path is not None  # load_corpus has checked
        return pack_place(name, request.path, list_samples, request.progress, request.reading())

    return Corpus(name, about, True, load, facts, list_samples, takes=takes, crop=crop)


def pack_place(
    name: str,
    path: Path,
    list_samples: ListSamples,
    progress: Callable[[int, int], None] | None = None,
    reading: Mapping[str, Any] | None = None,
) -> Recordings:
    """Return the recordings at `path`, read with `reading`, from their pack, made if need be."""
    how = dict(reading or {})
    key = (fingerprint(path), sorted(how.items()))
    return packed(name, key, lambda: list_place(path, partial(list_samples, **how)), progress)


def list_place(path: Path, list_samples: ListSamples) -> Collection:
    """Return the samples at `path`; a folder of zips, as `data get` leaves it, is read as one.

    Raises `DataError` where there is no recording, or zips do not belong together.
    """
    archives = sorted(path.glob("*.zip")) if path.is_dir() else []
    try:
        return list_samples(path)
    except DataError:
        if not archives:
            raise
    parts = [list_samples(archive) for archive in archives]
    if len({(part.classes, part.sensor_size) for part in parts}) > 1:
        raise DataError(f"{path}: its zips hold different classes or sensors. Name one of them.")
    samples = tuple(sample for part in parts for sample in part.samples)
    return Collection(samples, parts[0].classes, parts[0].sensor_size)
