"""Readers by suffix: bytes of one file become checked events."""

from collections.abc import Callable
from pathlib import PurePosixPath

from spikeshot.data.events import Events
from spikeshot.data.members import MAX_MEMBER_BYTES
from spikeshot.data.readers.binary import read_bin, read_dat
from spikeshot.data.readers.columns import MAX_COORDINATE, Columns, ReadOptions, to_events
from spikeshot.data.readers.isolated import read_aedat4, read_h5, read_mat
from spikeshot.data.readers.npy import read_npy, read_npz
from spikeshot.data.readers.text import read_text
from spikeshot.errors import DataError

Reader = Callable[[bytes, str, ReadOptions], Columns]
"""(bytes, name for messages, options) -> columns as the file has them, or a `DataError`."""

READERS: dict[str, Reader] = {
    ".aedat4": read_aedat4,
    ".bin": read_bin,
    ".bs2": read_bin,
    ".csv": read_text,
    ".dat": read_dat,
    ".h5": read_h5,
    ".hdf5": read_h5,
    ".mat": read_mat,
    ".npy": read_npy,
    ".npz": read_npz,
    ".txt": read_text,
}
"""Suffix, in small letters -> its reader."""


def is_readable(name: str) -> bool:
    """Tell whether a file's suffix has a reader."""
    return PurePosixPath(name).suffix.lower() in READERS


def read_events(
    name: str,
    raw: bytes,
    *,
    sensor_size: tuple[int, int] | None = None,
    options: ReadOptions | None = None,
) -> tuple[Events, tuple[int, int] | None]:
    """Return checked events of a file and its sensor (width, height), None when nobody says it.

    `name` chooses the reader by its suffix and stands in messages. Given a `sensor_size`, events
    lie on it, and a file that says another one is refused. Raises `DataError` for any bytes that
    are no valid recording, without a crash and within 2 GiB of memory.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in READERS:
        raise DataError(
            f"{name}: no reader for {suffix!r}; expected one of {', '.join(READERS)}. "
            "Convert the file."
        )
    if len(raw) > MAX_MEMBER_BYTES:
        raise DataError(
            f"{name}: {len(raw)} bytes; expected at most {MAX_MEMBER_BYTES}. "
            "Cut the recording into shorter ones."
        )
    options = options or ReadOptions()
    columns = READERS[suffix](raw, name, options)
    size = columns.sensor_size
    if size is not None and not all(1 <= n <= MAX_COORDINATE + 1 for n in size):
        raise DataError(f"{name}: its sensor is {size[0]}x{size[1]} pixels. Fetch it again.")
    if None not in (size, sensor_size) and size != sensor_size:
        assert size is not None
        assert sensor_size is not None
        raise DataError(
            f"{name}: its sensor is {size[0]}x{size[1]}; expected "
            f"{sensor_size[0]}x{sensor_size[1]}. Check data.sensor_size, or keep recordings of "
            "one sensor together."
        )
    size = size or sensor_size
    return to_events(columns, name, size, options), size
