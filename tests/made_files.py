"""Event files made up in every format that is read, with the published names and types.

AEDAT 4 is written from its published schema (flatbuffers of IOHE and EVTS, uncompressed) and
`.dat` from Prophesee's page; the others by numpy, h5py and scipy. ASL-DVS and N-Omniglot have no
real file here: their readers are verified on these.
"""

import io
import struct

import numpy as np

from spikeshot.data.events import make_events


def made_events(seed=0, n=200, size=(34, 34), start_us=0):
    """Return `n` events in order, with each corner of the sensor and both polarities among them."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, size[0], n), rng.integers(0, size[1], n)
    x[:2], y[:2] = (0, size[0] - 1), (size[1] - 1, 0)
    p = rng.integers(0, 2, n)
    p[:2] = 0, 1
    return make_events(x, y, start_us + np.sort(rng.integers(0, 300_000, n)), p)


def table(events, order="xytp", dtype=np.int64):
    return np.stack([events[c].astype(dtype) for c in order], axis=1)


def bin_file(events):
    from fakes import pack

    return pack(tuple(map(int, row)) for row in events.tolist())


def dat_file(events, header=("Version 2", "Width 34", "Height 34"), kind=12):
    lines = "".join(f"% {line}\n" for line in header).encode()
    x, y, p = (events[c].astype(np.uint32) for c in "xyp")
    words = np.stack([events["t"].astype("<u4"), x | y << 14 | p << 28], axis=1).astype("<u4")
    return lines + bytes([kind, 8]) + words.tobytes()


def npy_file(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npz_file(compressed=False, **arrays):
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
    return stream.getvalue()


def columns(events, names="xytp", dtype=None):
    """Return {name: column}; `names` in the order x, y, t, p."""
    return {
        name: events[c].astype(dtype) if dtype else events[c].copy()
        for name, c in zip(names, "xytp", strict=True)
    }


def pickled_file(events, dtype=np.int64):
    """Return the form in which N-Omniglot's converter saves a sample: a pickled dictionary."""
    return npy_file({name: events[name].astype(dtype) for name in "txyp"})


def csv_file(events, delimiter=",", header="x,y,t,p", order="xytp", end="\n"):
    rows = [delimiter.join(map(str, row)) for row in table(events, order).tolist()]
    return (end.join([header] * bool(header) + rows) + end).encode()


def h5_file(group="events", attributes=(), **data):
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.attrs.update(dict(attributes))
        for name, values in data.items():
            file.create_dataset(f"{group}/{name}", data=values)
    return stream.getvalue()


def mat_file(events, names=("x", "y", "ts", "pol"), dtype=np.float64, compressed=False):
    """Return a `.mat` of ASL-DVS: one column [n, 1] a variable."""
    return mat_of(
        {k: v.reshape(-1, 1) for k, v in columns(events, names, dtype).items()}, compressed
    )


def mat_of(variables, compressed=False):
    import scipy.io

    stream = io.BytesIO()
    scipy.io.savemat(stream, variables, do_compression=compressed)
    return stream.getvalue()


def aedat4_description(size=(346, 260), streams=(0,)):
    nodes = "".join(
        f'<node name="{stream}" path="/"><attr key="typeIdentifier" type="string">EVTS</attr>'
        f'<node name="info" path="/"><attr key="sizeX" type="int">{size[0]}</attr>'
        f'<attr key="sizeY" type="int">{size[1]}</attr></node></node>'
        for stream in streams
    )
    return f'<dv version="2.0"><node name="outInfo" path="/">{nodes}</node></dv>'


def aedat4_file(events, size=(346, 260), per_packet=500, streams=(0,), compression=0, pack=bytes):
    """Return an AEDAT 4 file; `pack` compresses a packet as `compression` says (0: not at all)."""
    text = aedat4_description(size, streams).encode()
    table_at, string_at = 24, 44
    header = struct.pack("<I4s", table_at, b"IOHE")
    header += struct.pack("<5H", 10, 20, 4, 8, 16).ljust(table_at - 8, b"\0")
    header += struct.pack("<iiqI", table_at - 8, compression, -1, string_at - 40)
    header += struct.pack("<I", len(text)) + text + b"\0"
    parts = [b"#!AER-DAT4.0\r\n", struct.pack("<I", len(header)), header]
    for stream in streams:
        for i in range(0, len(events), per_packet):
            body = pack(_aedat4_packet(events[i : i + per_packet]))
            parts += [struct.pack("<II", stream, len(body)), body]
    return b"".join(parts)


def _aedat4_packet(events):
    rows = np.zeros(
        len(events),
        np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("on", "?"), ("pad", "V3")]),
    )
    for name, field in (("t", "t"), ("x", "x"), ("y", "y"), ("on", "p")):
        rows[name] = events[field]
    body = struct.pack("<I4s", 16, b"EVTS") + struct.pack("<3H", 6, 8, 4) + b"\0\0"
    body += struct.pack("<iII", 8, 4, len(rows)) + rows.tobytes()
    return struct.pack("<I", len(body)) + body


DAVIS = (346, 260)
START_US = 1_630_000_000_000_000  # recordings have the time of day


def n_omniglot_file(seed, samples=20, n=40):
    """Return (AEDAT 4, its table, the events of each sample): samples with pauses between them."""
    parts, lines, start = [], [",start,end"], START_US
    for i in range(samples):
        events = made_events(1000 * seed + i, n, DAVIS, start)
        pause = made_events(1000 * seed + 500 + i, 5, DAVIS, start + 310_000)
        lines.append(f"{i},{events['t'][0]},{pause['t'][0]}")
        parts += [events, pause]
        start += 700_000
    text = "\n".join(lines) + "\n"
    return aedat4_file(np.concatenate(parts), DAVIS), text.encode(), parts[::2]


def zstd_of_zeros(blocks):
    """Return a zstd frame of run-length blocks: each 4 bytes expand to 128 KiB of zeros."""
    frame = struct.pack("<IBB", 0xFD2FB528, 0, 0x88)  # no length told; window of 128 MiB
    block = (1 << 1 | (128 << 10) << 3).to_bytes(3, "little") + b"\0"
    return frame + block * (blocks - 1) + (block[0] | 1).to_bytes(1, "little") + block[1:]


def valid_files(n=200):
    """Return suffix -> valid files in the variants that are read, each of the same events."""
    e = made_events(n=n)
    swapped = e.astype([("x", ">i2"), ("y", ">i2"), ("t", ">i8"), ("p", "u1")])
    h5 = h5_file(**columns(e))
    return {
        ".aedat4": [aedat4_file(e, (34, 34)), aedat4_file(e, (34, 34), per_packet=7)],
        ".bin": [bin_file(e)],
        ".bs2": [bin_file(e)],
        ".csv": [csv_file(e), csv_file(e, header="", order="txyp")],
        ".dat": [dat_file(e), dat_file(e, ("Version 2",), kind=0)],
        ".h5": [h5, h5_file("/", **columns(e, ("xs", "ys", "ts", "ps")))],
        ".hdf5": [h5_file("", events=e), h5_file("", events=table(e))],
        ".mat": [mat_file(e), mat_file(e, compressed=True), mat_file(e, dtype=np.int32)],
        ".npy": [npy_file(e), npy_file(swapped), npy_file(table(e)), pickled_file(e)],
        ".npz": [npz_file(**columns(e)), npz_file(events=e), npz_file(True, **columns(e))],
        ".txt": [csv_file(e, " ", ""), csv_file(e, "\t", "x\ty\tt\tp"), csv_file(e, ";", "")],
    }
