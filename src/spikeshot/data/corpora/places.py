"""A path or a corpus's name, as a user types it, becomes samples or recordings."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from spikeshot.data.corpora import CORPORA, fetched_folder, get_corpus, load_corpus
from spikeshot.data.corpora.corpus import Corpus, Request, list_place, pack_place
from spikeshot.data.corpora.tonic_bridge import PREFIX
from spikeshot.data.packs import INDEX, open_pack
from spikeshot.data.recordings import Recordings
from spikeshot.data.samples import Collection, Originals
from spikeshot.errors import ConfigError, DataError, LayoutError, nearest_hint


def is_pack(target: str) -> bool:
    """Return whether `target` is the folder of a pack."""
    return (Path(target) / INDEX).is_file()


def samples_at(
    target: str, corpus: str | None = None, sensor_size: tuple[int, int] | None = None
) -> Collection | Originals:
    """Return the samples or originals at a path, or fetched for a corpus, none of them read yet.

    `corpus` says which layout the path has; without it the first that fits is taken. Raises
    `DataError` where none fits and for a corpus that reads no files.
    """
    return _found(target, corpus, sensor_size)[2]


def recordings_at(
    target: str,
    corpus: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    sensor_size: tuple[int, int] | None = None,
) -> Recordings:
    """Return the recordings at a path, of a corpus or of a pack, packed if need be."""
    if is_pack(target):
        return open_pack(Path(target))
    if Path(target).exists():
        if corpus and get_corpus(corpus).list_samples is None:
            return load_corpus(corpus, Request(Path(target), until_us=None))
    elif _known(target) and get_corpus(target).list_samples is None:
        return load_corpus(target, Request(until_us=None))
    found, path, collection = _found(target, corpus, sensor_size)
    if isinstance(collection, Originals):
        return load_corpus(found.name, Request(path, until_us=None))
    how = _reading(found, sensor_size)
    return pack_place(found.name, path, lambda _, **__: collection, progress, how)


def _reading(corpus: Corpus, sensor_size: tuple[int, int] | None) -> dict[str, Any]:
    reading = Request(sensor_size=sensor_size).reading()
    return {key: value for key, value in reading.items() if key in corpus.takes}


def _known(name: str) -> bool:
    return name in CORPORA or name.startswith(PREFIX)


def _found(
    target: str, corpus: str | None, sensor_size: tuple[int, int] | None
) -> tuple[Corpus, Path, Collection | Originals]:
    """Return the corpus whose layout fits, the path, and what is there."""
    path = Path(target)
    if not path.exists():
        if not _known(target):
            raise ConfigError(
                f"{target!r} is neither a file or folder nor a corpus"
                f"{nearest_hint(target, CORPORA)}; corpora are {', '.join(CORPORA)}."
            )
        corpus = target
        if get_corpus(target).list_samples or get_corpus(target).list_originals:
            path = fetched_folder(target)
    candidates = [get_corpus(corpus)] if corpus else list(CORPORA.values())
    reasons: dict[str, str] = {}  # each once: a damaged archive is one to all layouts
    nearly: dict[str, str] = {}  # of layouts that do fit, but for a mistake
    for candidate in candidates:
        try:
            if candidate.list_samples:
                how = _reading(candidate, sensor_size)
                return candidate, path, list_place(path, partial(candidate.list_samples, **how))
            if candidate.list_originals:
                return candidate, path, candidate.list_originals(path)
        except DataError as error:
            kind = reasons if isinstance(error, LayoutError) else nearly
            kind.setdefault(str(error), candidate.name)
    reasons = nearly or reasons
    if not reasons:
        raise DataError(f"corpus {corpus!r} has no files to list; expected one that reads files.")
    if len(reasons) == 1:
        raise DataError(next(iter(reasons)))
    told = " ".join(f"As {name}: {reason}" for reason, name in reasons.items())
    raise DataError(f"{path}: fits no layout that is known. {told}")
