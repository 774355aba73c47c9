"""Reader of N-MNIST's 5-byte `.bin` files, from a folder or a zip in the published layout.

Layout: `Train|Test/<digit>/<number>.bin`, at any depth. One event is 5 bytes, big-endian: x, y,
polarity in the highest bit of byte 2, and a 23-bit timestamp in microseconds (Orchard et al. 2015,
Frontiers in Neuroscience 9:437). The sensor is 34 x 34.
"""

import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spikeshot.data.events import Events, make_events
from spikeshot.data.recordings import Recordings, gather_recordings
from spikeshot.errors import DataError

SENSOR_SIZE = (34, 34)
CLASSES = tuple("0123456789")
MAX_BYTES = 5 * 2_000_000
"""Longest file accepted: 2,000,000 events; the longest published recording has about 8,200."""

_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # encrypted, or packed by a method unknown here
    ValueError,  # names and numbers that cannot be
    OSError,
)
_ENTRY = re.compile(r"(?:^|/)(Train|Test)/([0-9])/([0-9]+)\.bin$")
_LAYOUT = "Train|Test/<digit>/<number>.bin"


def decode_bin(raw: bytes, name: str) -> Events:
    """Return the events of one `.bin` file; `name` stands in the message of a `DataError`."""
    if len(raw) % 5:
        raise DataError(
            f"{name}: {len(raw)} bytes, not a multiple of the 5 bytes of an event: the file is "
            "truncated or no N-MNIST recording. Fetch it again."
        )
    b = np.frombuffer(raw, np.uint8).reshape(-1, 5).astype(np.int64)
    t = (b[:, 2] & 127) << 16 | b[:, 3] << 8 | b[:, 4]
    return make_events(b[:, 0], b[:, 1], t, b[:, 2] >> 7)


def encode_bin(events: Events) -> bytes:
    """Return events as N-MNIST's 5-byte format, the inverse of `decode_bin`.

    Raises `DataError` when a coordinate does not fit 8 bits or a timestamp 23 bits.
    """
    x, y, t = (events[f].astype(np.int64) for f in ("x", "y", "t"))
    for field, column, limit in (("x", x, 1 << 8), ("y", y, 1 << 8), ("t", t, 1 << 23)):
        if len(column) and (column.min() < 0 or column.max() >= limit):
            raise DataError(
                f"{field} spans {column.min()} to {column.max()}; the 5-byte format holds 0 to "
                f"{limit - 1}. Crop the recording."
            )
    high = events["p"].astype(np.int64) << 7 | t >> 16
    return np.stack([x, y, high, t >> 8 & 255, t & 255], axis=1).astype(np.uint8).tobytes()


def read_nmnist(path: Path) -> Recordings:
    """Read every recording under `path` (folder or zip), in the order of their names.

    A recording's origin is its MNIST image, as `train/00001` (numbers start at 1, as published).
    Raises `DataError` for a missing path, a damaged or foreign zip, any bad recording and two
    recordings of one image, which could stand in the support and in the query of one episode.
    """
    samples, labels = [], []
    names: dict[str, str] = {}  # by origin
    for name, raw in _files(path):
        match = _ENTRY.search(name)
        if match is None:
            continue
        part, digit, number = match.groups()
        samples.append(decode_bin(raw, f"{path}: {name}"))
        labels.append(int(digit))
        origin = f"{part.lower()}/{int(number):05d}"
        if origin in names:
            raise DataError(
                f"{path}: {name} and {names[origin]} are both recordings of MNIST image {origin}; "
                "expected one. Remove the copy."
            )
        names[origin] = name
    if not samples:
        raise DataError(
            f"{path}: holds no {_LAYOUT}; expected N-MNIST's published layout. "
            "Point --data at the folder or zip that contains Train/ and Test/."
        )
    return gather_recordings(
        samples,
        labels,
        CLASSES,
        tuple(names),
        SENSOR_SIZE,
        names=[f"{path}: {name}" for name in names.values()],
    )


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name with forward slashes, bytes) of each recording under `path`, by name."""
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder; expected N-MNIST as folder or zip. Check --data."
        )
    yield from _files_of_folder(path) if path.is_dir() else _files_of_zip(path)


def _files_of_folder(path: Path) -> Iterator[tuple[str, bytes]]:
    found = {file.relative_to(path).as_posix(): file for file in path.rglob("*.bin")}
    for name, file in sorted(found.items()):
        if _ENTRY.search(name):
            try:
                _check_size(file.stat().st_size, f"{path}: {name}")
                raw = file.read_bytes()
            except OSError as error:
                raise DataError(
                    f"{path}: {name}: cannot be read ({error.strerror}). Fetch it again."
                ) from error
            yield name, raw


def _files_of_zip(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                if _ENTRY.search(info.filename):
                    _check_size(info.file_size, f"{path}: {info.filename}")
                    yield info.filename, archive.read(info)
    except _ZIP_ERRORS as error:
        raise DataError(
            f"{path}: not a readable zip ({error}); expected a folder or zip with {_LAYOUT}. "
            "Fetch it again."
        ) from error


def _check_size(size: int, name: str) -> None:
    if size > MAX_BYTES:
        raise DataError(f"{name}: {size} bytes; a recording has at most {MAX_BYTES}. Remove it.")
