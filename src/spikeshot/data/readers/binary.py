"""Reader of event files of fixed words: N-MNIST's `.bin` and `.bs2`, Prophesee's `.dat`."""

import numpy as np

from spikeshot.data.events import Events, make_events
from spikeshot.data.readers.columns import Columns, ReadOptions, check_event_count
from spikeshot.errors import DataError

_DAT_EVENTS = (0, 12)  # Event2d and EventCd
_DAT_HEADER_BYTES = 1 << 16


def decode_bin(raw: bytes, name: str) -> Events:
    """Return the events of one `.bin` file; `name` stands in the message of a `DataError`.

    One event is 5 bytes, big-endian: x, y, polarity in the highest bit of byte 2, and a 23-bit
    timestamp in microseconds (Orchard et al. 2015, Frontiers in Neuroscience 9:437).
    """
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


def read_bin(raw: bytes, name: str, options: ReadOptions) -> Columns:
    """Return the columns of N-MNIST's 5-byte events."""
    check_event_count(len(raw) // 5, name)
    events = decode_bin(raw, name)
    return Columns(events["x"], events["y"], events["t"], events["p"], time_unit="us")


def read_dat(raw: bytes, name: str, options: ReadOptions) -> Columns:
    """Return the columns of a Prophesee `.dat` file, version 2.

    Lines that start with `%`, one byte for the kind of event and one for its size, then 8 bytes
    an event, little-endian: 32 bits of microseconds, 14 of x, 14 of y and 4 of polarity
    (docs.prophesee.ai, "DAT File Format").
    """
    header: dict[str, str] = {}
    at = 0
    while raw[at : at + 1] == b"%":
        end = raw.find(b"\n", at, _DAT_HEADER_BYTES)
        if end < 0:
            raise _no_dat(name, "its header does not end")
        words = raw[at + 1 : end].decode("latin-1").split()
        header |= {words[0].lower(): words[1]} if len(words) == 2 else {}
        at = end + 1
    if header.get("version") != "2":
        raise _no_dat(name, f"its version is {header.get('version')!a}, not 2")
    if len(raw) < at + 2 or raw[at] not in _DAT_EVENTS or raw[at + 1] != 8:
        raise _no_dat(name, f"kind and size of its events are {raw[at : at + 2]!r}")
    body = raw[at + 2 :]
    if len(body) % 8:
        raise _no_dat(name, f"{len(body)} bytes of events are no multiple of 8: it is cut short")
    check_event_count(len(body) // 8, name)
    words32 = np.frombuffer(body, "<u4").reshape(-1, 2)
    address = words32[:, 1]
    return Columns(
        x=address & 0x3FFF,
        y=address >> 14 & 0x3FFF,
        t=words32[:, 0],
        p=address >> 28,
        sensor_size=_dat_size(header, name),
        time_unit="us",
    )


def _dat_size(header: dict[str, str], name: str) -> tuple[int, int] | None:
    if "width" not in header or "height" not in header:
        return None
    width, height = header["width"], header["height"]
    if not (width.isdecimal() and height.isdecimal() and len(width + height) <= 10):
        raise _no_dat(name, f"its sensor is {width!a} by {height!a}")
    return int(width), int(height)


def _no_dat(name: str, fault: str) -> DataError:
    return DataError(
        f"{name}: {fault}; expected Prophesee's .dat of 2-dimensional events, version 2. "
        "Fetch it again, or convert it."
    )
