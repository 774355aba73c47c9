"""Columns become events: names, units, polarity and order are recognised or refused, not guessed.

Every reader hands over the four columns as its file has them. Microseconds, polarity 0/1 and the
order of time come out, or a `DataError` that says which option tells the reader what to do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.events import Events, check_events, make_events
from spikeshot.errors import ConfigError, DataError

MAX_EVENTS = 10_000_000
"""Most events of one file: with it a reader stays below 2 GiB of memory."""
MAX_COORDINATE = (1 << 15) - 1
MAX_T_US = 1 << 62
ALIASES = {
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
"""Column -> the names it goes by in files, in small letters."""
ORDERS = ("xytp", "txyp", "xypt")
"""The orders that are recognised in a table without names."""
_US_PER = {"us": 1, "ms": 1_000, "s": 1_000_000}

Column = NDArray[Any]


@dataclass(frozen=True)
class ReadOptions:
    """What a file does not say: `time_unit` (us, ms, ns or s) of its timestamps; `columns`, their
    order in a table without names, as `txyp` (default: recognised); `sort` events by time.

    Formats with a unit of their own (`.bin`, `.dat`, `.aedat4`) keep it. Raises `ConfigError`.
    """

    time_unit: str = "us"
    columns: str | None = None
    sort: bool = False

    def __post_init__(self) -> None:
        if self.time_unit not in ("us", "ms", "ns", "s"):
            raise ConfigError(
                f"data.time_unit is {self.time_unit!r}; expected one of us, ms, ns, s."
            )
        if self.columns is not None and sorted(self.columns) != sorted("xytp"):
            raise ConfigError(
                f"data.columns is {self.columns!r}; expected x, y, t and p in the order of the "
                "file's columns, as txyp."
            )


@dataclass(frozen=True)
class Columns:
    """Four columns of one length as a file has them, any numeric dtype.

    `sensor_size` where the file says it; `time_unit` where the format fixes it.
    """

    x: Column
    y: Column
    t: Column
    p: Column
    sensor_size: tuple[int, int] | None = None
    time_unit: str | None = None


def as_columns(
    columns: Mapping[str, Column], sensor_size: tuple[int, int] | None = None
) -> Columns:
    """Return columns that stand under the names x, y, t and p."""
    return Columns(columns["x"], columns["y"], columns["t"], columns["p"], sensor_size)


def shown_names(names: Iterable[str]) -> str:
    """Return the names that a file gives, as they may stand in a message."""
    text = ", ".join(ascii(name) for name in islice(names, 20)) or "nothing"
    return text if len(text) <= 300 else f"{text[:300]}..."


def match_names(names: Iterable[str], name: str) -> dict[str, str]:
    """Return column -> its name among `names`; `DataError` unless each is there exactly once."""
    given = list(names)
    matched: dict[str, str] = {}
    for column, aliases in ALIASES.items():
        hits = [g for g in given if g.strip().lower() in aliases]
        if len(hits) != 1:
            raise DataError(
                f"{name}: {'no' if not hits else 'more than one'} column for {column} among "
                f"{shown_names(given)}; expected one of {', '.join(aliases)}. Rename the columns."
            )
        matched[column] = hits[0]
    return matched


def columns_from_table(table: Sequence[Column], name: str, options: ReadOptions) -> Columns:
    """Return the columns of a table without names, in the given or in the recognised order."""
    if len(table) != 4:
        raise DataError(
            f"{name}: {len(table)} columns without names; expected 4: x, y, t and p. "
            "Give the columns names, or leave the others out."
        )
    if any(column.dtype.kind not in "iuf" for column in table):
        raise DataError(f"{name}: a table of {table[0].dtype}; expected numbers. Convert the file.")
    order = options.columns
    if order is None:
        fits = [o for o in ORDERS if _could_be(dict(zip(o, table, strict=True)), options)]
        if len(fits) != 1:
            which = "several orders fit" if fits else "no known order fits"
            raise DataError(
                f"{name}: four columns without names, and {which} ({', '.join(fits or ORDERS)}). "
                "Say their order with data.columns, as data.columns=txyp."
            )
        order = fits[0]
    return as_columns(dict(zip(order, table, strict=True)))


def _could_be(columns: dict[str, Column], options: ReadOptions) -> bool:
    """Tell whether columns look like events: polarity of two values, pixels, time going on."""
    p, t = columns["p"], columns["t"]
    if not (((p == 1) | (p == 0)).all() or ((p == 1) | (p == -1)).all()):
        return False
    for pixels in (columns["x"], columns["y"]):
        if not ((pixels >= 0) & (pixels <= MAX_COORDINATE) & (pixels == np.floor(pixels))).all():
            return False
    return bool((t >= 0).all()) and (options.sort or bool((t[1:] >= t[:-1]).all()))


def to_events(
    columns: Columns, name: str, sensor_size: tuple[int, int] | None, options: ReadOptions
) -> Events:
    """Return checked events; `name` stands in the message of a `DataError`."""
    lengths = {field: len(getattr(columns, field)) for field in "xytp"}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{n} {field}" for field, n in lengths.items())
        raise DataError(f"{name}: columns of different lengths ({counts}). Fetch the file again.")
    check_event_count(lengths["t"], name)
    t = _microseconds(columns.t, columns.time_unit or options.time_unit, name)
    x, y = (_whole(getattr(columns, field), field, MAX_COORDINATE, name) for field in "xy")
    events = make_events(x, y, t, _polarity(columns.p, name))
    if (events["t"][1:] < events["t"][:-1]).any():
        if not options.sort:
            i = int(np.argmax(events["t"][1:] < events["t"][:-1]))
            raise DataError(
                f"{name}: timestamps go back at event {i + 1} ({events['t'][i]} us to "
                f"{events['t'][i + 1]} us); expected them in order. Sort the recording by time, "
                "or set data.sort=true."
            )
        events = events[np.argsort(events["t"], kind="stable")]
    check_events(events, sensor_size or (MAX_COORDINATE + 1, MAX_COORDINATE + 1), name)
    return events


def check_event_count(count: int, name: str) -> None:
    """Raise `DataError` for more than `MAX_EVENTS` events."""
    if count > MAX_EVENTS:
        raise DataError(
            f"{name}: {count} events; expected at most {MAX_EVENTS}. "
            "Cut the recording into shorter ones."
        )


def _numbers(column: Column, field: str, name: str) -> Column:
    """Return a column as integers in the machine's byte order, or as finite float64."""
    if column.ndim != 1 or column.dtype.kind not in "biuf":
        raise DataError(
            f"{name}: {field} is an array of {column.dtype} with {column.ndim} dimensions; "
            "expected one row of numbers. Convert the file."
        )
    if column.dtype.kind == "b":
        return column.astype(np.int64)
    if column.dtype.kind != "f":
        return column.astype(column.dtype.newbyteorder("="), copy=False)
    native = column.astype(np.float64, copy=False)
    if not np.isfinite(native).all():
        i = int(np.argmin(np.isfinite(native)))
        raise DataError(
            f"{name}: {field} of event {i} is {native[i]}; expected a number. Remove the event."
        )
    return native


def _whole(column: Column, field: str, high: int, name: str) -> NDArray[np.int64]:
    """Return a column as int64; `DataError` for fractions and for values beyond 0 to `high`."""
    numbers = _numbers(column, field, name)
    if len(numbers) == 0:
        return np.empty(0, np.int64)
    low, top = numbers.min().item(), numbers.max().item()
    if low < 0 or top > high:
        raise DataError(
            f"{name}: {field} spans {low} to {top}; expected 0 to {high}. Check the file, its "
            "columns and its unit of time."
        )
    if numbers.dtype.kind == "f" and (numbers != np.floor(numbers)).any():
        i = int(np.argmax(numbers != np.floor(numbers)))
        remedy = "Set data.time_unit to s, ms or ns." if field == "t" else "Check the columns."
        raise DataError(
            f"{name}: {field} of event {i} is {numbers[i]}; expected a whole number"
            f"{' of microseconds' if field == 't' else ''}. {remedy}"
        )
    return numbers.astype(np.int64)


def _microseconds(t: Column, unit: str, name: str) -> NDArray[np.int64]:
    if unit == "us":
        top = 1 << 53 if t.dtype.kind == "f" else MAX_T_US  # beyond, floats leave numbers out
        return _whole(t, "t", top, name)
    numbers = _numbers(t, "t", name)
    if unit == "ns":
        if numbers.dtype.kind == "f":
            numbers = np.floor(numbers)
        return _whole(numbers, "t", MAX_T_US, name) // 1_000
    factor = _US_PER[unit]
    if numbers.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return _whole(np.rint(numbers * factor), "t", MAX_T_US - 1024, name)
    return _whole(numbers, "t", MAX_T_US // factor, name) * factor


def _polarity(p: Column, name: str) -> NDArray[np.uint8]:
    """Return polarity as 0/1 from 0/1, -1/+1, 1/2 or booleans."""
    numbers = _numbers(p, "p", name)
    if len(numbers) == 0:
        return np.empty(0, np.uint8)
    low, high = numbers.min().item(), numbers.max().item()
    if low >= 0 and high <= 1:
        binary = (numbers == 0) | (numbers == 1)
    elif low == -1 and high in (-1, 1):
        binary = (numbers == -1) | (numbers == 1)
    else:
        binary = ((numbers == 1) | (numbers == 2)) & (low == 1) & (high == 2)
    if not binary.all():
        raise DataError(
            f"{name}: polarity spans {low} to {high}, with {numbers[int(np.argmin(binary))]} among "
            "them; expected 0 and 1, -1 and 1, or 1 and 2. Check the columns."
        )
    return np.asarray(numbers == max(high, 1), np.uint8)
