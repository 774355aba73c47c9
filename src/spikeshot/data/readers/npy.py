"""Reader of numpy's `.npy` and `.npz`: headers are checked before any array is made.

`allow_pickle` is never used. The one pickled form that is common, a dictionary of arrays, is
read by `pickled`, which runs nothing.
"""

import ast
import io
import math
import re
import struct
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.archives import list_zip
from spikeshot.data.members import MAX_MEMBER_BYTES, read_bounded
from spikeshot.data.readers.columns import (
    Columns,
    ReadOptions,
    as_columns,
    check_event_count,
    columns_from_table,
    match_names,
)
from spikeshot.data.readers.pickled import unpickle_arrays
from spikeshot.errors import DataError

_MAX_HEADER = 10_000
_NUMBER = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|\?)")
_PADDING = re.compile(r"[<>|=]?V[0-9]{1,4}")


def read_npy(raw: bytes, name: str, options: ReadOptions) -> Columns:
    """Return the columns of a structured array, of an [n, 4] table or of a pickled dictionary."""
    return _columns(_parse(raw, name), name, options)


def read_npz(raw: bytes, name: str, options: ReadOptions) -> Columns:
    """Return the columns of a `.npz`: one array a column, or a single array as in a `.npy`.

    An array `sensor_size` of (width, height) is taken as such.
    """
    entries = list_zip(io.BytesIO(raw), name)
    arrays = {key.removesuffix(".npy"): entry for key, entry in entries.items()}

    def load(key: str, limit: int) -> NDArray[Any] | dict[str, NDArray[Any]]:
        return _parse(read_bounded(arrays[key], name, limit), f"{name}: {key}")

    size = None
    if "sensor_size" in arrays:
        size = _size(load("sensor_size", 1 << 16), name)
    keys = [key for key in arrays if key != "sensor_size"]
    if len(keys) == 1:
        found = _columns(load(keys[0], MAX_MEMBER_BYTES), name, options)
        return Columns(found.x, found.y, found.t, found.p, size)
    left = MAX_MEMBER_BYTES
    columns: dict[str, NDArray[Any]] = {}
    for column, key in match_names(keys, name).items():
        array = load(key, left)
        left = max(0, left - arrays[key].size)
        columns[column] = _row(array, column, name)
    return as_columns(columns, size)


def _parse(raw: bytes, name: str) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """Return the array of a `.npy`, as a view of its bytes, or a pickled dictionary of arrays."""
    descr, fortran, shape, start = _header(raw, name)
    body = memoryview(raw)[start:]
    if descr in ("|O", "O"):
        return unpickle_arrays(body.tobytes(), name)
    dtype = _dtype(descr, name)
    expected = math.prod(shape) * dtype.itemsize
    if len(body) != expected:
        raise _fault(
            name, f"{len(body)} bytes of data for shape {shape} of {dtype}, not {expected}"
        )
    try:
        return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")
    except ValueError as error:  # nothing in it, and dimensions whose product is too large
        raise _fault(name, f"shape {shape} cannot be") from error


def _header(raw: bytes, name: str) -> tuple[Any, bool, tuple[int, ...], int]:
    """Return (type, whether columns come first, shape, where the data starts)."""
    if raw[:6] != b"\x93NUMPY" or len(raw) < 12:
        raise _fault(name, "it does not start as numpy's files do")
    layout = "<H" if raw[6] == 1 else "<I"
    start = 8 + struct.calcsize(layout)
    (length,) = struct.unpack_from(layout, raw, 8)
    if length > _MAX_HEADER or start + length > len(raw):
        raise _fault(name, f"its header claims {length} bytes")
    text = raw[start : start + length].decode("latin-1").strip()
    text = re.sub(r"(?<=[0-9])L(?=[,)])", "", text)  # as Python 2 wrote numbers
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd literals, which are refused below
            header = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise _fault(name, "its header cannot be read") from error
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise _fault(name, "its header does not describe an array")
    shape, fortran = header["shape"], header["fortran_order"]
    if not isinstance(shape, tuple) or len(shape) > 8 or not isinstance(fortran, bool):
        raise _fault(name, f"its header gives shape {ascii(shape)[:80]}")
    if not all(type(n) is int and 0 <= n <= 1 << 48 for n in shape):
        raise _fault(name, f"its header gives shape {ascii(shape)[:80]}")
    return header["descr"], fortran, shape, start + length


def _dtype(descr: Any, name: str) -> np.dtype[Any]:
    """Return the dtype of numbers, or of named numbers with padding between them."""
    if isinstance(descr, str) and _NUMBER.fullmatch(descr):
        return np.dtype(descr)
    if isinstance(descr, list) and 0 < len(descr) <= 64 and all(map(_is_field, descr)):
        try:
            return np.lib.format.descr_to_dtype(descr)
        except (ValueError, TypeError) as error:
            raise _fault(name, f"its fields do not fit together ({error})") from error
    raise _fault(name, f"its elements are {ascii(descr)[:80]}, no numbers")


def _is_field(field: Any) -> bool:
    if not (isinstance(field, tuple) and len(field) == 2 and isinstance(field[1], str)):
        return False
    label, kind = field
    if label == "":
        return _PADDING.fullmatch(kind) is not None
    names = label if isinstance(label, tuple) and len(label) == 2 else (label,)
    return all(isinstance(n, str) and n for n in names) and _NUMBER.fullmatch(kind) is not None


def _columns(
    array: NDArray[Any] | dict[str, NDArray[Any]], name: str, options: ReadOptions
) -> Columns:
    if isinstance(array, dict):
        matched = match_names(array, name)
        return as_columns({column: array[key] for column, key in matched.items()})
    if array.dtype.names is not None:
        check_event_count(array.size, name)
        matched = match_names(array.dtype.names, name)
        return as_columns({c: _row(array[field], c, name) for c, field in matched.items()})
    if array.ndim != 2 or array.shape[1] != 4:
        raise _fault(name, f"it is an array of shape {array.shape}, no table of n rows x 4 columns")
    check_event_count(len(array), name)
    return columns_from_table([array[:, i] for i in range(4)], name, options)


def _row(array: NDArray[Any] | dict[str, NDArray[Any]], column: str, name: str) -> NDArray[Any]:
    """Return an array that is one row: [n], [n, 1] or [1, n]."""
    if isinstance(array, dict) or array.ndim > 2 or max(array.shape, default=1) != array.size:
        raise _fault(name, f"column {column} is not one row of numbers")
    return array.reshape(-1)


def _size(array: NDArray[Any] | dict[str, NDArray[Any]], name: str) -> tuple[int, int]:
    if isinstance(array, dict) or array.dtype.kind not in "iu" or array.shape != (2,):
        raise _fault(name, "its sensor_size is not (width, height)")
    return int(array[0]), int(array[1])


def _fault(name: str, fault: str) -> DataError:
    return DataError(
        f"{name}: {fault}; expected events as numpy saves them: an array with fields x, y, t and "
        "p, or a table of n x 4 numbers. Save it again without objects."
    )
