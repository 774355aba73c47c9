"""The store: recordings packed once into the cache, each pack under a key of all it depends on."""

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from spikeshot.data.packs import (
    FORMAT,
    Progress,
    UnwritablePack,
    labels_of,
    open_pack,
    pack,
    read_sample,
)
from spikeshot.data.recordings import Recordings, gather_recordings
from spikeshot.data.samples import Collection
from spikeshot.errors import DataError

SMALL_SOURCE = 32 << 20  # bytes: a source up to here is known by its content, not by its times
MEMORY_LIMIT = 2 << 30  # bytes of events held in memory where no pack can be written


def cache_folder() -> Path:
    """Return where packs and downloads are kept: $SPIKESHOT_CACHE, or the user's cache folder."""
    chosen = os.environ.get("SPIKESHOT_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spikeshot"


def packed(
    name: str,
    key: object,
    make: Callable[[], Collection | Recordings],
    progress: Progress | None = None,
) -> Recordings:
    """Return the recordings that `make` gives, from the pack of (`name`, `key`) in the cache.

    The pack is made when there is none, or a broken one. `key` holds all that the content depends
    on (options, `fingerprint` of the source); its `repr` is what counts. Where the cache cannot be
    written the recordings are held in memory, up to `MEMORY_LIMIT`. Raises `DataError` for a bad
    recording.
    """
    folder = pack_folder(name, key)
    with contextlib.suppress(DataError):
        return open_pack(folder)
    source = make()
    try:
        return pack(source, folder, progress)
    except UnwritablePack as error:
        return source if isinstance(source, Recordings) else _in_memory(source, error)


def pack_folder(name: str, key: object) -> Path:
    """Return the folder in the cache of the pack of (`name`, `key`)."""
    digest = hashlib.blake2b(repr((FORMAT, name, key)).encode(), digest_size=8).hexdigest()
    return cache_folder() / "packs" / f"{re.sub('[^A-Za-z0-9_-]+', '-', name)}-{digest}"


def fingerprint(path: Path) -> str:
    """Return a digest that changes when the file or folder `path` does.

    Up to `SMALL_SOURCE` bytes: of names and content. Beyond: of the path and all names, sizes and
    times of change. Raises `DataError` where `path` cannot be read.
    """
    h = hashlib.blake2b(digest_size=16)
    try:
        files = sorted(_files(path))
        if sum(size for _, _, size, _ in files) <= SMALL_SOURCE:
            for name, file, _, _ in files:
                h.update(repr((name, hashlib.blake2b(file.read_bytes()).digest())).encode())
        else:
            h.update(repr((str(path.resolve()), [(n, s, t) for n, _, s, t in files])).encode())
    except OSError as error:
        reason = "no such file or folder" if isinstance(error, FileNotFoundError) else str(error)
        raise DataError(f"{path}: {reason}; expected a file or folder of recordings.") from error
    return h.hexdigest()


def _files(path: Path) -> Iterator[tuple[str, Path, int, int]]:
    """Yield (name, file, bytes, time of change in ns) of each file at or under `path`."""
    if not path.is_dir():
        about = path.stat()
        yield path.name, path, about.st_size, about.st_mtime_ns
        return
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder) / name
            about = file.stat() if file.exists() else file.lstat()
            if stat.S_ISREG(about.st_mode):
                yield file.relative_to(path).as_posix(), file, about.st_size, about.st_mtime_ns


def _in_memory(collection: Collection, error: UnwritablePack) -> Recordings:
    """Read a collection into memory; raises `error` when it is too large for that."""
    events, room = [], MEMORY_LIMIT
    for sample in collection.samples:
        events.append(read_sample(sample, collection))
        room -= events[-1].nbytes
        if room < 0:
            raise error
    return gather_recordings(
        events,
        labels_of(collection),
        collection.classes,
        [s.origin for s in collection.samples],
        collection.sensor_size,
        names=[s.name for s in collection.samples],
    )
