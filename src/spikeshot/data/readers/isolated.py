"""Reader of formats that need a library, in a process of its own: `.mat`, `.h5` and `.aedat4`.

scipy, HDF5 and aedat run native code on the file: hostile bytes can end the process, ask for any
memory or never return. `worker` therefore runs them behind a pipe, with at most `MEMORY_BYTES`,
and is ended after `SECONDS`. One worker serves file after file, and a new one takes its place
when it dies; a forked process starts its own.
"""

import atexit
import contextlib
import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.readers.columns import (
    ALIASES,
    MAX_EVENTS,
    Columns,
    ReadOptions,
    as_columns,
    columns_from_table,
    match_names,
    shown_names,
)
from spikeshot.data.readers.worker import LENGTHS
from spikeshot.errors import DataError

MEMORY_BYTES = 2 << 30
SECONDS = 120.0
_MAX_TEXT = 1 << 20
_AEDAT4 = b"#!AER-DAT4.0\r\n"
_DTYPE = re.compile(r"[<|](b1|[iu][1248]|f[248])")


class _Died(Exception):
    """The worker ended, or answered what it should not; with an argument: it took too long."""


class _Worker:
    """A running worker and its pipes."""

    def __init__(self) -> None:
        script = str(Path(__file__).with_name("worker.py"))
        quiet = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **quiet},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[bytes] = self.process.stdin
        self.stdout: IO[bytes] = self.process.stdout

    def ask(self, request: dict[str, Any], raw: bytes) -> tuple[dict[str, Any], bytes]:
        """Return the answer to `request`; raises `_Died`."""
        text = json.dumps(request).encode()
        try:
            self.stdin.write(LENGTHS.pack(len(text), len(raw)) + text)
            self.stdin.write(raw)
            self.stdin.flush()
        except OSError as error:
            raise _Died from error
        length, size = LENGTHS.unpack(self._read(LENGTHS.size))
        if length > _MAX_TEXT or size > 4 * 8 * MAX_EVENTS:
            raise _Died
        try:
            described = json.loads(self._read(length))
        except ValueError as error:
            raise _Died from error
        return described, self._read(size)

    def _read(self, size: int) -> bytes:
        raw = self.stdout.read(size)
        if len(raw) < size:
            raise _Died
        return raw

    def close(self) -> None:
        """End the process and wait for it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


class _Pool:
    """The one worker of this process, started when first needed."""

    def __init__(self) -> None:
        self._worker: _Worker | None = None
        self._left: list[_Worker | None] = []
        self.forget()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Leave the worker to the process that started it."""
        self._lock = threading.Lock()
        self._left.append(self._worker)  # kept: not ours to end
        self._worker = None

    def close(self) -> None:
        """End the worker, if there is one."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def ask(self, request: dict[str, Any], raw: bytes, name: str) -> tuple[dict[str, Any], bytes]:
        """Return the worker's answer; `DataError` when it dies of the file or takes too long.

        A worker that has served other files may die of what they left behind: a new one tries.
        """
        with self._lock:
            for _ in range(2):
                fresh = self._worker is None
                try:
                    return self._ask_once(request, raw)
                except _Died as error:
                    late = bool(error.args)
                    if fresh or late:
                        break
            how = f"takes longer than {SECONDS:g} s" if late else "ends the library that reads it"
            raise _fault(name, f"reading it {how}; the file is damaged")

    def _ask_once(self, request: dict[str, Any], raw: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            self._worker = worker = self._worker or _Worker()
        except OSError as error:
            raise DataError(
                f"no process can be started to read the file ({error.strerror}). Free some memory."
            ) from error
        timer = threading.Timer(SECONDS, worker.process.kill)
        timer.daemon = True
        timer.start()
        try:
            return worker.ask(request, raw)
        except _Died as error:
            late = timer.finished.is_set()
            self.close()
            raise (_Died("late") if late else _Died()) from error
        except BaseException:  # Ctrl-C between request and answer
            self.close()
            raise
        finally:
            timer.cancel()


_POOL = _Pool()


def read_mat(raw: bytes, name: str, options: ReadOptions) -> Columns:
    """Return the columns of a MATLAB file up to version 7.2: x, y, t or ts, p or pol."""
    if raw[:8] == b"\x89HDF\r\n\x1a\n" or raw[:10] == b"MATLAB 7.3":
        raise _fault(name, "it was saved as version 7.3; save it with -v7 in MATLAB")
    if raw[124:128] not in (b"\x00\x01IM", b"\x01\x00MI") and raw[:1] != b"\0":
        raise _fault(name, "it is no MATLAB file")
    return _ask("mat", "scipy", raw, name, options)


def read_h5(raw: bytes, name: str, options: ReadOptions) -> Columns:
    """Return the columns of an HDF5 file: data sets x, y, t, p under `events` or at the root, or
    one data set `events` with fields or with four columns.
    """
    if raw[:8] != b"\x89HDF\r\n\x1a\n":
        raise _fault(name, "it is no HDF5 file")
    return _ask("h5", "h5py", raw, name, options)


def read_aedat4(raw: bytes, name: str, options: ReadOptions) -> Columns:
    """Return the columns of an AEDAT 4 file with one stream of events, and its sensor."""
    if not raw.startswith(_AEDAT4):
        raise _fault(name, "it is no AEDAT 4 file")
    try:
        _check_aedat4_header(raw[len(_AEDAT4) :])
    except (struct.error, ValueError) as error:
        raise _fault(name, "its header is damaged") from error
    found = _ask("aedat4", "aedat", raw, name, options)
    return Columns(found.x, found.y, found.t, found.p, found.sensor_size, time_unit="us")


def _check_aedat4_header(rest: bytes) -> None:
    """Raise unless all that the library reads unchecked of the header lies inside of it.

    A flatbuffer: the root points to a table, the table back to its list of fields, field 0 is
    the compression (4 bytes), 1 a position (8), 2 points to the description (a length and text).
    """
    (length,) = struct.unpack_from("<I", rest)
    header = rest[4 : 4 + length]
    table, identifier = struct.unpack_from("<I4s", header)
    (back,) = struct.unpack_from("<i", header, table)
    fields_size, table_size = struct.unpack_from("<2H", header, table - back)
    if len(header) < length or identifier != b"IOHE" or table - back < 0:
        raise ValueError("no header")
    if fields_size < 4 or table - back + fields_size > length or table + table_size > length:
        raise ValueError("a table beyond the header")
    count = min(3, (fields_size - 4) // 2)
    fields = struct.unpack_from(f"<{count}H", header, table - back + 4)
    for at, size in zip(fields, (4, 8, 4), strict=False):
        if at and table + at + size > length:
            raise ValueError("a field beyond the header")
    if count == 3 and fields[2]:
        text = table + fields[2] + struct.unpack_from("<I", header, table + fields[2])[0]
        (text_length,) = struct.unpack_from("<I", header, text)
        header[text + 4 : text + 4 + text_length].decode()
        if text + 4 + text_length > length:
            raise ValueError("a description beyond the header")


def _ask(reader: str, package: str, raw: bytes, name: str, options: ReadOptions) -> Columns:
    if importlib.util.find_spec(package) is None:
        raise DataError(
            f"{name}: reading this format needs the package {package}, which is not installed. "
            "Run: pip install 'spikeshot[events]'"
        )
    request = {
        "reader": reader,
        "names": {column: list(names) for column, names in ALIASES.items()},
        "max_events": MAX_EVENTS,
        "memory": MEMORY_BYTES,
    }
    described, body = _POOL.ask(request, raw, name)
    if "error" in described:
        words = str(described["error"])[:300]
        raise _fault(name, "".join(c if c.isprintable() else "?" for c in words))
    try:
        columns = _unpack(described["columns"], body)
        seen = [str(key) for key in described["seen"]]
        size = described.get("size")
        sensor_size = (int(size[0]), int(size[1])) if size else None
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _fault(name, "the library that reads it was led astray") from error
    if sorted(columns) == list("0123"):
        found = columns_from_table([columns[i] for i in "0123"], name, options)
        return Columns(found.x, found.y, found.t, found.p, sensor_size)
    try:
        matched = match_names(columns, name)
    except DataError as error:
        raise DataError(f"{error} The file holds {shown_names(seen)}.") from error
    return as_columns({column: columns[key] for column, key in matched.items()}, sensor_size)


def _unpack(described: list[Any], body: bytes) -> dict[str, NDArray[Any]]:
    """Return the columns of an answer; raises what numpy does for one that does not fit."""
    columns: dict[str, NDArray[Any]] = {}
    at = 0
    for key, code, count in described:
        if not _DTYPE.fullmatch(code):
            raise ValueError(code)
        columns[str(key)] = np.frombuffer(body, np.dtype(code), count, at)
        at += columns[str(key)].nbytes
    return columns


def _fault(name: str, fault: str) -> DataError:
    return DataError(f"{name}: {fault}; expected a recording of x, y, t and p. Fetch it again.")
