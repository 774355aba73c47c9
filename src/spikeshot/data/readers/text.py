"""Reader of events as text: one event a line, comma, semicolon, tab or space between columns.

A first line of names decides which column is which; without names the order is recognised, or
told by `data.columns`. Lines that start with `#` or `%` are comments. A first line of two numbers
is the sensor's width and height, as in the text files of rpg_e2vid.
"""

import io
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.readers.columns import (
    Columns,
    ReadOptions,
    as_columns,
    check_event_count,
    columns_from_table,
    match_names,
)
from spikeshot.errors import DataError

MAX_LINE_BYTES = 1_000
MAX_TEXT_BYTES = 128 << 20
_COMMENTS = ("#", "%")


def read_text(raw: bytes, name: str, options: ReadOptions) -> Columns:
    """Return the columns of a `.csv` or `.txt` file."""
    _check_lines(raw, name)
    rows = _first_rows(raw, name)
    if not rows:
        raise _fault(name, "no line with an event")
    delimiter = next((d for d in (";", ",", "\t") if d in rows[-1][1]), None)
    first = _split(rows[0][1], delimiter)
    size = None
    if len(first) == 2 and len(rows) > 1 and all(word.isdecimal() for word in first):
        if max(map(len, first)) > 5:
            raise _fault(name, f"its sensor is {' x '.join(first)}")
        size = int(first[0]), int(first[1])
        del rows[0]
        first = _split(rows[0][1], delimiter) if rows else []
    named = not all(map(_is_number, first))
    if named and len(rows) < 2:
        raise _fault(name, "no line with an event")
    skip, row = rows[1 if named else 0]
    table = _table(raw, skip, delimiter, name)
    if len(table) != len(_split(row, delimiter)):
        raise _fault(name, f"{len(table)} columns")
    if named:
        if len(first) != len(table):
            raise _fault(name, f"{len(first)} names for {len(table)} columns")
        by_name = dict(zip(first, table, strict=True))
        if len(by_name) != len(first):
            raise _fault(name, "two columns of one name")
        matched = match_names(by_name, name)
        return as_columns({c: by_name[key] for c, key in matched.items()}, size)
    found = columns_from_table(table, name, options)
    return Columns(found.x, found.y, found.t, found.p, size)


def _check_lines(raw: bytes, name: str) -> None:
    """Raise `DataError` for what would take much memory to split."""
    if len(raw) > MAX_TEXT_BYTES:
        raise _fault(name, f"{len(raw)} bytes of text, more than {MAX_TEXT_BYTES}")
    ends = np.flatnonzero(np.frombuffer(raw.replace(b"\r", b"\n"), np.uint8) == 10)
    check_event_count(max(0, len(ends) - 1_000), name)  # comments do not count
    longest = np.diff(ends, prepend=-1, append=len(raw)).max()
    if longest > MAX_LINE_BYTES:
        raise _fault(name, f"a line of {longest} bytes, more than {MAX_LINE_BYTES}")


def _split(line: str, delimiter: str | None) -> list[str]:
    return [word.strip().strip('"') for word in line.split(delimiter)]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _first_rows(raw: bytes, name: str) -> list[tuple[int, str]]:
    """Return (number of lines before it, text) of the first three lines that say something."""
    rows: list[tuple[int, str]] = []
    try:
        for number, line in enumerate(_lines(raw)):
            if line.strip() and not line.lstrip().startswith(_COMMENTS):
                rows.append((number, line.strip()))
            if len(rows) == 3:
                break
    except UnicodeDecodeError as error:
        raise _fault(name, "it is no text") from error
    return rows


def _lines(raw: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(raw), "utf-8-sig")


def _table(raw: bytes, skip: int, delimiter: str | None, name: str) -> list[NDArray[Any]]:
    """Return the columns of the lines after the first `skip`: int64 if all are whole numbers."""
    comments = [c for c in _COMMENTS if c.encode() in raw] or None
    fault = ""
    for kind in (np.int64, np.float64):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a whole number written as 1.0 is no int64
                table = np.loadtxt(
                    _lines(raw),
                    dtype=kind,
                    delimiter=delimiter,
                    comments=comments,
                    skiprows=skip,
                    ndmin=2,
                )
            return [table[:, i] for i in range(table.shape[1])]
        except (ValueError, OverflowError, Warning) as error:
            fault = str(error)
    raise _fault(name, f"it is no table of numbers ({fault[:160]!a})")


def _fault(name: str, fault: str) -> DataError:
    return DataError(
        f"{name}: {fault}; expected text with one event a line, as x,y,t,p. Check the file."
    )
