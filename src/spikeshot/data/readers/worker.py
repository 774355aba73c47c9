"""The other process: runs scipy, h5py and aedat on untrusted bytes, within a memory limit.

Started by `isolated` as a script. It imports nothing of the package. A request on standard input
is two lengths, a JSON object and the file's bytes; an answer on standard output is two lengths, a
JSON object and the bytes of the columns. It ends when its input does.
"""

import io
import json
import os
import signal
import struct
import sys
import tempfile
from typing import Any, BinaryIO

import numpy as np

LENGTHS = struct.Struct("<QQ")
Names = dict[str, list[str]]
Found = tuple[dict[str, Any], dict[str, Any]]  # columns by name, and facts of the file


class Refused(Exception):
    """What is wrong with a file, in words for the user."""


def read_mat(raw: bytes, request: dict[str, Any]) -> Found:
    """Return the variables of a `.mat` file, or the fields of its only structure."""
    import scipy.io

    content = scipy.io.loadmat(io.BytesIO(raw))
    variables = {k: v for k, v in content.items() if not k.startswith("__")}
    known = _known(variables, request["names"])
    structures = [
        v for v in variables.values() if isinstance(v, np.ndarray) and v.dtype.names and v.size == 1
    ]
    if len(known) < 4 and len(structures) == 1:
        (structure,) = structures
        fields = {f: structure[f].reshape(-1)[0] for f in structure.dtype.names}
        known = _known(fields, request["names"])
    return known, {"seen": sorted(variables)[:20]}


def read_h5(raw: bytes, request: dict[str, Any]) -> Found:
    """Return the columns of a group `events`, `CD/events` or the root, or of one data set."""
    import h5py

    with h5py.File(h5py.h5f.open_file_image(raw), "r") as file:
        place: Any = file
        for step in ("CD", "events"):
            if isinstance(place, h5py.Group) and step in place:
                place = _hard(place, step)
        facts: dict[str, Any] = {"seen": [str(k)[:80] for k in list(file)[:20]]}
        for holder in (file, place):
            if "width" in holder.attrs and "height" in holder.attrs:
                facts["size"] = [int(holder.attrs["width"]), int(holder.attrs["height"])]
        if isinstance(place, h5py.Dataset):
            return _h5_table(place, request), facts
        named = {str(k): k for k in place if _is_known(str(k), request["names"])}
        return {k: _h5_array(_hard(place, v), request) for k, v in named.items()}, facts


def _hard(group: Any, key: str) -> Any:
    """Return a member of a group; links into other files are not followed."""
    import h5py

    if isinstance(group.get(key, getlink=True), h5py.ExternalLink):
        raise Refused(f"{key!a} is a link into another file")
    return group[key]


def _h5_array(data: Any, request: dict[str, Any]) -> Any:
    import h5py

    if not isinstance(data, h5py.Dataset):
        raise Refused("a group in the place of a column")
    if data.external or data.is_virtual:
        raise Refused("its data lie in another file")
    if data.shape is None or data.size > 8 * request["max_events"]:
        raise Refused(f"a data set of {data.shape} values; at most {request['max_events']} events")
    return data[()]


def _h5_table(data: Any, request: dict[str, Any]) -> dict[str, Any]:
    array = _h5_array(data, request)
    if array.dtype.names:
        return _known({f: array[f] for f in array.dtype.names}, request["names"])
    if array.ndim != 2 or array.shape[1] != 4:
        raise Refused(f"events of shape {array.shape}; a table has 4 columns")
    return {str(i): array[:, i] for i in range(4)}


def read_aedat4(raw: bytes, request: dict[str, Any]) -> Found:
    """Return the events of the only stream of events, and the size of its sensor."""
    import aedat

    path, remove = _as_file(raw)
    try:
        decoder = aedat.Decoder(path)
        streams = {k: v for k, v in decoder.id_to_stream().items() if v["type"] == "events"}
        if len(streams) != 1:
            raise Refused(f"{len(streams)} streams of events, not 1")
        ((stream, facts),) = streams.items()
        parts, count = [], 0
        for packet in decoder:
            if packet["stream_id"] == stream and "events" in packet:
                parts.append(packet["events"])
                count += len(parts[-1])
                if count > request["max_events"]:
                    raise Refused(f"more than {request['max_events']} events")
    finally:
        remove()
    if not parts:
        raise Refused("no event")
    columns = {n: np.concatenate([part[n] for part in parts]) for n in ("x", "y", "t", "on")}
    return columns, {"size": [facts["width"], facts["height"]], "seen": []}


def _as_file(raw: bytes) -> tuple[str, Any]:
    """Return the path of a file of these bytes, in memory where there is such, and its removal."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("recording")
        with open(handle, "wb", closefd=False) as stream:
            stream.write(raw)
        return f"/proc/self/fd/{handle}", lambda: os.close(handle)
    handle, path = tempfile.mkstemp(suffix=".aedat4")
    with open(handle, "wb") as stream:
        stream.write(raw)
    return path, lambda: os.unlink(path)


READ = {"mat": read_mat, "h5": read_h5, "aedat4": read_aedat4}


def _is_known(name: str, names: Names) -> bool:
    return any(name.strip().lower() in aliases for aliases in names.values())


def _known(columns: dict[str, Any], names: Names) -> dict[str, Any]:
    return {k: v for k, v in columns.items() if _is_known(k, names)}


def answer(request: dict[str, Any], raw: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Return the answer to one request: a description, and the bytes of each column."""
    try:
        columns, facts = READ[request["reader"]](raw, request)
        described, parts = [], []
        for name, values in columns.items():
            column = np.asarray(values).reshape(-1)
            if column.dtype.kind not in "biuf" or column.dtype.itemsize > 8:
                raise Refused(f"column {name!a} holds {column.dtype}, no numbers")
            if len(column) > request["max_events"]:
                raise Refused(f"{len(column)} events; at most {request['max_events']}")
            column = column.astype(column.dtype.newbyteorder("<"))
            described.append([name, column.dtype.str, len(column)])
            parts.append(column.tobytes())
        return {"columns": described, **facts}, parts
    except Refused as error:
        return {"error": str(error)}, []
    except MemoryError:
        return {"error": f"it needs more than {request['memory']} bytes of memory", "end": True}, []
    except BaseException as error:  # a panic of Rust code is no Exception
        return {"error": f"{type(error).__name__}: {str(error)[:200]}"}, []


def limit_memory(limit: int) -> None:
    """Let this process have no more than `limit` bytes of memory, where the system can do that."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until there are no more."""
    limited = False
    while len(head := source.read(LENGTHS.size)) == LENGTHS.size:
        length, size = LENGTHS.unpack(head)
        request = json.loads(source.read(length))
        if not limited:
            limit_memory(request["memory"])
            limited = True
        described, parts = answer(request, source.read(size))
        text = json.dumps(described).encode()
        sink.write(LENGTHS.pack(len(text), sum(map(len, parts))) + text)
        for part in parts:
            sink.write(part)
        sink.flush()
        if "end" in described:  # little may be left for the next file
            return


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    with open(os.dup(1), "wb") as answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a library may print
        serve(sys.stdin.buffer, answers)
