"""Every reader on hostile bytes: a clear error or valid events, within bounds of memory and time.

The battery goes over the registry. The fast part runs always, 20,000 examples a reader in the slow
suite. `made_files` gives the valid files that are bent.
"""

import io
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import made_files as made
from spikeshot.data.events import EVENT_DTYPE, check_events
from spikeshot.data.readers import READERS, ReadOptions, isolated, read_events
from spikeshot.errors import DataError

FAST, SLOW = 40, 10_000  # examples of each of the two tests below
SEEDS = made.valid_files(n=20)
OPTIONS = st.builds(
    ReadOptions,
    time_unit=st.sampled_from(["us", "us", "us", "s", "ms", "ns"]),
    columns=st.sampled_from([None, None, "txyp"]),
    sort=st.booleans(),
)
SIZES = st.sampled_from([None, (34, 34)])
HEADS = (
    b"\x93NUMPY\x01\x00",
    b"PK\3\4",
    b"\x89HDF\r\n\x1a\n",
    b"#!AER-DAT4.0\r\n",
    b"% Version 2\n",
)
FUZZ = {"suppress_health_check": list(HealthCheck), "database": None, "deadline": None}


def check(suffix, raw, size, options):
    """Read; whatever the bytes, the result is a `DataError` of one message, or valid events."""
    name = f"fuzz{suffix}"
    try:
        events, found = read_events(name, raw, sensor_size=size, options=options)
    except DataError as error:
        message = str(error)
    else:
        message = None
    if message is not None:
        assert message.startswith(name)
        assert message.isprintable()
        assert 20 < len(message) < 1500
        return
    assert events.dtype == EVENT_DTYPE
    assert found is None or (size or found) == found
    check_events(events, found or (1 << 15, 1 << 15), name)


@st.composite
def bent(draw, seeds):
    """Return a valid file with one to four stretches flipped, cut out, put in or repeated."""
    raw = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        early = min(len(raw), draw(st.sampled_from([16, 200, 1 << 30])))
        at = draw(st.integers(0, early))
        kind = draw(st.sampled_from(["flip", "number", "cut", "put", "twice", "end"]))
        if kind == "flip" and at < len(raw):
            raw[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "number":
            number = draw(st.sampled_from([0, 1, -1, 1 << 15, 1 << 31, -(1 << 31), (1 << 62) + 1]))
            width = draw(st.sampled_from([1, 2, 4, 8]))
            raw[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
        elif kind == "cut":
            del raw[at : at + draw(st.integers(1, 64))]
        elif kind == "put":
            raw[at:at] = draw(st.binary(max_size=24))
        elif kind == "twice":
            raw[at:at] = raw[at : at + draw(st.integers(1, 400))]
        else:
            del raw[at:]
    return bytes(raw)


def any_bytes():
    heads = st.sampled_from([b"", *HEADS])
    return st.builds(bytes.__add__, heads, st.binary(max_size=300))


def run(suffix, bytes_of, examples):
    @settings(max_examples=examples, **FUZZ)
    @given(raw=bytes_of, size=SIZES, options=OPTIONS)
    def battery(raw, size, options):
        check(suffix, raw, size, options)

    battery()


def test_there_are_readers_to_try():
    assert len(READERS) > 5
    assert SEEDS.keys() == READERS.keys()
    assert all(SEEDS.values())


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(isolated, "SECONDS", 20.0)


@pytest.mark.parametrize("suffix", READERS)
def test_any_bytes(suffix):
    run(suffix, any_bytes(), FAST)


@pytest.mark.parametrize("suffix", READERS)
def test_bent_files(suffix):
    run(suffix, bent(SEEDS[suffix]), FAST)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", READERS)
def test_any_bytes_long(suffix):
    run(suffix, any_bytes(), SLOW)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", READERS)
def test_bent_files_long(suffix):
    run(suffix, bent(SEEDS[suffix]), SLOW)


# --- what hypothesis does not find by itself -----------------------------------------------------


def run_program(program):
    here = Path(__file__).parent  # found by a program that starts here
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=here
    )
    assert (ended.returncode, ended.stderr) == (0, "")


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('run by a file')",)


def npy(header, body=b""):
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def pickled(raw):
    return npy("{'descr': '|O', 'fortran_order': False, 'shape': (), }", raw)


def one_member(raw, method=zipfile.ZIP_DEFLATED, name="x.npy"):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(name, raw)
    return stream.getvalue()


def shared_tuples(depth):
    """A pickle whose value is small in memory and endless when shown or hashed."""
    return b"\x80\x04" + b"(t" + b"q\x000h\x00h\x00\x86"[3:] + b"\x94h\x00h\x00\x86" * depth + b"."


def mat_element(kind, body, claimed=None):
    return struct.pack("<II", kind, len(body) if claimed is None else claimed) + body


def nested_mat(depth):
    """Cells in cells in cells: native code that calls itself for each."""
    flags = mat_element(6, struct.pack("<II", 1, 0))
    cell = flags + mat_element(5, struct.pack("<ii", 1, 1)) + mat_element(1, b"")
    sizes = ((8 + len(cell)) * (depth - i) - 8 for i in range(depth))
    return MAT + b"".join(mat_element(14, cell, size) for size in sizes)


MAT = b"MATLAB 5.0".ljust(124, b" ") + b"\x00\x01IM"
HUGE = {
    "npy: a terabyte by its header": (
        ".npy",
        lambda: npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 4), }"),
    ),
    "npy: overflowing shape": (
        ".npy",
        lambda: npy(
            f"{{'descr': '<f8', 'fortran_order': False, 'shape': (0, {1 << 48}, {1 << 48}), }}"
        ),
    ),
    "npy: deep header": (".npy", lambda: npy("(" * 9000)),
    "npy: many fields": (".npy", lambda: npy(f"{{'descr': {[('a', '<i8')] * 60}, 'shape': (1,)}}")),
    "npy: wide text": (
        ".npy",
        lambda: npy("{'descr': '<U2000000000', 'fortran_order': False, 'shape': (1,), }"),
    ),
    "npy: code": (".npy", lambda: pickled(pickle.dumps(Evil()))),
    "npy: code in the dictionary": (
        ".npy",
        lambda: made.npy_file({"x": Evil(), "y": Evil(), "t": Evil(), "p": Evil()}),
    ),
    "npy: a large memo": (".npy", lambda: pickled(b"\x80\x02Nr\xff\xff\xff\xff.")),
    "npy: tuples without end": (".npy", lambda: pickled(shared_tuples(900))),
    "npz: a bomb": (".npz", lambda: one_member(b"\0" * (48 << 20))),
    "npz: bzip2": (".npz", lambda: one_member(b"\0" * (48 << 20), zipfile.ZIP_BZIP2)),
    "npz: code": (".npz", lambda: one_member(made.npy_file(np.array([Evil()])))),
    "npz: leaves": (".npz", lambda: one_member(b"", name="../x.npy")),
    "csv: one line": (".csv", lambda: b"1," * (8 << 20)),
    "csv: nothing but lines": (".csv", lambda: b"\n" * (16 << 20)),
    "csv: a long number": (".csv", lambda: b"x,y,t,p\n1,1," + b"9" * 900 + b",1\n"),
    "dat: endless header": (".dat", lambda: b"% a\n" * (1 << 20)),
    "aedat4: zstd bomb": (
        ".aedat4",
        lambda: made.aedat4_file(
            made.made_events(),
            (34, 34),
            compression=3,
            pack=lambda raw: made.zstd_of_zeros(1 << 18),
        ),
    ),
    "mat: deep cells": (".mat", lambda: nested_mat(60_000)),
    "mat: a bomb": (".mat", lambda: MAT + mat_element(15, zlib.compress(b"\0" * (24 << 20)))),
    "mat: four gigabytes claimed": (
        ".mat",
        lambda: MAT + mat_element(15, zlib.compress(mat_element(14, b"\0" * 99, (1 << 32) - 8))),
    ),
}
HUGE |= {
    f"{suffix}: more events than allowed": (suffix, lambda: b"\0" * 5 * 10_000_001)
    for suffix in (".bin", ".bs2")
}


@pytest.fixture
def little_memory(monkeypatch):
    isolated._POOL.close()
    monkeypatch.setattr(isolated, "MEMORY_BYTES", 1 << 29)
    yield
    isolated._POOL.close()


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("case", HUGE)
def test_files_that_ask_for_much_get_an_error(case):
    suffix, make = HUGE[case]
    with pytest.raises(DataError) as error:
        read_events(f"huge{suffix}", make())
    assert len(str(error.value)) < 700


@pytest.mark.slow
def test_a_bomb_takes_no_more_memory_than_allowed():
    """In processes of 1.5 GiB: three quarters of the bound."""
    program = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 29, 3 << 29))
from test_readers_fuzz import HUGE
from spikeshot.data.readers import isolated, read_events
from spikeshot.errors import DataError
isolated.MEMORY_BYTES = 3 << 29
for case, (suffix, make) in HUGE.items():
    try:
        read_events(f"huge{suffix}", make())
    except DataError:
        continue
    raise SystemExit(case)
peaks = [resource.getrusage(who).ru_maxrss for who in
         (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
isolated._POOL.close()
peaks.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
raise SystemExit(f"{max(peaks)} KiB" if max(peaks) > 3 << 19 else 0)
"""
    run_program(program)


@pytest.mark.slow
def test_the_largest_valid_file_stays_within_the_bound():
    """8,000,000 events as float64 columns: 256 MB, the widest form that is read, in 2 GiB."""
    program = """
import io, resource
import numpy as np
n = 8_000_000
raw = io.BytesIO()
np.save(raw, np.stack([np.full(n, 3.0), np.full(n, 5.0), np.arange(n) * 1.0, np.ones(n)], axis=1))
raw = raw.getvalue()
from spikeshot.data.readers import read_events
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
assert len(read_events("large.npy", raw)[0]) == n
"""
    run_program(program)


# --- the other process ---------------------------------------------------------------------------


def test_a_worker_that_dies_is_replaced_and_the_file_read():
    raw = SEEDS[".mat"][0]
    first = read_events("a.mat", raw)[0]
    worker = isolated._POOL._worker
    worker.process.kill()
    assert read_events("a.mat", raw)[0].tolist() == first.tolist()
    assert isolated._POOL._worker is not worker


def test_a_file_that_ends_every_worker_is_damaged():
    with pytest.raises(DataError, match=r"deep.mat: reading it ends the library that reads it"):
        read_events("deep.mat", nested_mat(60_000))
    assert len(read_events("a.mat", SEEDS[".mat"][0])[0]) == 20


def test_a_worker_that_takes_too_long_is_ended(monkeypatch):
    read_events("a.mat", SEEDS[".mat"][0])
    import signal

    isolated._POOL._worker.process.send_signal(signal.SIGSTOP)  # a library that never returns
    monkeypatch.setattr(isolated, "SECONDS", 0.2)
    with pytest.raises(DataError, match=r"takes longer than 0.2 s"):
        read_events("a.mat", SEEDS[".mat"][0])
    monkeypatch.setattr(isolated, "SECONDS", 60.0)
    assert len(read_events("a.mat", SEEDS[".mat"][0])[0]) == 20


def test_a_forked_process_has_a_worker_of_its_own():
    program = """
import os
import made_files as made
from spikeshot.data.readers import isolated, read_events
raw = made.valid_files()[".mat"][0]
expected = read_events("a.mat", raw)[0].tolist()
mine = isolated._POOL._worker.process.pid
child = os.fork()
same = read_events("a.mat", raw)[0].tolist() == expected
own = isolated._POOL._worker.process.pid == mine
isolated._POOL.close()
if child == 0:
    os._exit(0 if same and not own else 1)
assert same and own and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    run_program(program)
