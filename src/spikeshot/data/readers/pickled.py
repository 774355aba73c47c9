"""A pickled dictionary of arrays, read as data: nothing in it is imported, called or trusted.

N-Omniglot's own converter and others save `{"t": ..., "x": ..., "y": ..., "p": ...}` with
`numpy.save`, which pickles it. numpy would load it with `allow_pickle=True`, and with that run any
code in the file. Here the few instructions that such files consist of are walked with
stand-ins; another instruction, another name, or an array whose bytes do not fit its shape is
refused.
"""

import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeshot.errors import DataError

_MAX_STEPS = 2_000
_NUMBER = re.compile(r"b1|[iu][1248]|f[248]")
_NAMES = {
    **{f"numpy.{core}.multiarray _reconstruct": "array" for core in ("core", "_core")},
    "numpy ndarray": "type",
    "numpy dtype": "dtype",
}
_MARK = object()


class _Refused(Exception):
    """What a pickle does that is not among the instructions known here."""


@dataclass
class _Named:
    """A name that the pickle would import."""

    role: str


@dataclass
class _Dtype:
    code: str
    order: str = "<"


@dataclass
class _Array:
    shape: tuple[int, ...] = ()
    dtype: _Dtype | None = None
    fortran: bool = False
    data: Any = None


def unpickle_arrays(raw: bytes, name: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a pickled 0-d object array that holds a dictionary of arrays.

    Raises `DataError` for anything else.
    """
    try:
        outer = _Machine().run(raw)
        content = outer.data[0] if isinstance(outer, _Array) and outer.shape == () else outer
        if not isinstance(content, dict):
            raise _Refused("no dictionary of arrays")
        return {key: _numbers(value) for key, value in content.items()}
    except (_Refused, ValueError, OverflowError, TypeError, AttributeError, LookupError) as error:
        raise DataError(
            f"{name}: holds pickled objects ({str(error)[:120]!a}), which may run code and "
            "are never loaded; only a dictionary of numeric arrays x, y, t, p is read. "
            "Save the arrays without objects."
        ) from error


def _numbers(value: Any) -> NDArray[Any]:
    """Return the array that a stand-in describes."""
    if not isinstance(value, _Array) or value.dtype is None or not isinstance(value.data, bytes):
        raise _Refused(f"a {type(value).__name__} in the place of an array")
    dtype = np.dtype(value.dtype.code)
    dtype = dtype.newbyteorder(">" if value.dtype.order == ">" else "<")
    if len(value.shape) != 1 or math.prod(value.shape) * dtype.itemsize != len(value.data):
        raise _Refused(f"{len(value.data)} bytes for shape {value.shape}")
    return np.frombuffer(value.data, dtype)


class _Machine:
    """A stack, a memo and the instructions; one `run` for one pickle."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._do: dict[str, Callable[[Any], None]] = {
            **dict.fromkeys(("PROTO", "FRAME"), lambda arg: None),
            **dict.fromkeys(
                ("BININT", "BININT1", "BININT2", "INT", "LONG1", "NONE", "NEWTRUE", "NEWFALSE"),
                self._stack.append,
            ),
            **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "UNICODE"), self._stack.append),
            **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), self._stack.append),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), self._put),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda n: self._push(self._memo[n])),
            "MEMOIZE": lambda arg: self._put(len(self._memo)),
            "MARK": lambda arg: self._push(_MARK),
            "EMPTY_DICT": lambda arg: self._push({}),
            "EMPTY_LIST": lambda arg: self._push([]),
            "EMPTY_TUPLE": lambda arg: self._push(()),
            "TUPLE": lambda arg: self._push(tuple(self._since_mark())),
            "TUPLE1": lambda arg: self._push(self._pop(1)),
            "TUPLE2": lambda arg: self._push(self._pop(2)),
            "TUPLE3": lambda arg: self._push(self._pop(3)),
            "APPEND": lambda arg: self._extend(self._pop(1)),
            "APPENDS": lambda arg: self._extend(self._since_mark()),
            "SETITEM": lambda arg: self._update(self._pop(2)),
            "SETITEMS": lambda arg: self._update(self._since_mark()),
            "GLOBAL": lambda arg: self._name(arg),
            "STACK_GLOBAL": lambda arg: self._name(" ".join(self._pop(2))),
            "REDUCE": lambda arg: self._reduce(*self._pop(2)),
            "BUILD": lambda arg: self._build(*self._pop(2)),
        }

    def run(self, raw: bytes) -> Any:
        """Return what the pickle describes, of plain values and stand-ins."""
        constants = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
        for step, (op, arg, _) in enumerate(pickletools.genops(raw)):
            if op.name == "STOP":
                (result,) = self._stack
                return result
            if step > _MAX_STEPS or op.name not in self._do:
                raise _Refused(op.name if step <= _MAX_STEPS else "too many instructions")
            self._do[op.name](constants.get(op.name, arg))
        raise _Refused("no end")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self, n: int) -> tuple[Any, ...]:
        if len(self._stack) < n:
            raise _Refused("an empty stack")
        values = tuple(self._stack[-n:])
        del self._stack[-n:]
        return values

    def _since_mark(self) -> list[Any]:
        at = max(i for i, value in enumerate(self._stack) if value is _MARK)
        values = self._stack[at + 1 :]
        del self._stack[at:]
        return values

    def _put(self, n: int) -> None:
        self._memo[n] = self._stack[-1]

    def _extend(self, values: Any) -> None:
        if not isinstance(self._stack[-1], list):
            raise _Refused("items for no list")
        self._stack[-1].extend(values)

    def _update(self, values: Any) -> None:
        keys = values[::2]
        if not isinstance(self._stack[-1], dict) or not all(type(k) is str for k in keys):
            raise _Refused("keys that are no text")
        self._stack[-1].update(zip(keys, values[1::2], strict=True))

    def _name(self, full: str) -> None:
        if full not in _NAMES:
            raise _Refused(full)
        self._push(_Named(_NAMES[full]))

    def _reduce(self, function: Any, args: Any) -> None:
        role = function.role if isinstance(function, _Named) else None
        if role == "array":
            self._push(_Array())
        elif role == "dtype" and args[0] in ("O8", "O4", "O"):
            self._push(_Dtype("O"))
        elif role == "dtype" and _NUMBER.fullmatch(args[0]):
            self._push(_Dtype(args[0]))
        else:
            raise _Refused("a call")

    def _build(self, target: Any, state: Any) -> None:
        if isinstance(target, _Dtype) and state[1] in ("<", ">", "|", "="):
            target.order = state[1]
        elif isinstance(target, _Array) and isinstance(state[2], _Dtype):
            _, shape, dtype, fortran, data = state
            if not all(type(n) is int and n >= 0 for n in shape):
                raise _Refused("an odd shape")  # showing nested ones could take for ever
            target.shape, target.dtype, target.fortran = tuple(shape), dtype, bool(fortran)
            target.data = data
        else:
            raise _Refused("a state")
        self._push(target)
