"""The readers: every format's variants give the same events; every fault has its remedy."""

import io
import struct
import zipfile

import numpy as np
import pytest

import made_files as made
from spikeshot.data.events import EVENT_DTYPE
from spikeshot.data.readers import READERS, ReadOptions, read_events
from spikeshot.errors import ConfigError, DataError

EVENTS = made.made_events()
VALID = [(suffix, i) for suffix, files in made.valid_files().items() for i in range(len(files))]


def read(suffix, raw, **options):
    return read_events(f"r{suffix}", raw, options=ReadOptions(**options))


def fails(suffix, raw, message, **options):
    with pytest.raises(DataError, match=message) as error:
        read(suffix, raw, **options)
    assert str(error.value).startswith(f"r{suffix}")
    assert len(str(error.value)) < 700
    return str(error.value)


# --- the same events in every form ---------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "i"), VALID)
def test_every_form_of_a_recording_gives_its_events(suffix, i):
    events, size = read(suffix, made.valid_files()[suffix][i])
    assert events.dtype == EVENT_DTYPE
    assert events.tolist() == EVENTS.tolist()
    assert size in ((34, 34), None)


def test_the_forms_cover_the_registry():
    assert READERS.keys() == made.valid_files().keys()
    assert len(VALID) > len(READERS) > 5


@pytest.mark.parametrize("suffix", READERS)
def test_a_name_chooses_its_reader_in_any_case(suffix):
    raw = made.valid_files()[suffix][0]
    assert read_events(f"a/b.c/R{suffix.upper()}", raw)[0].tolist() == EVENTS.tolist()


@pytest.mark.parametrize(
    ("suffix", "raw"),
    [
        (".dat", made.dat_file(EVENTS)),
        (".aedat4", made.aedat4_file(EVENTS, (34, 34))),
        (".h5", made.h5_file(attributes={"width": 34, "height": 34}, **made.columns(EVENTS))),
        (".npz", made.npz_file(sensor_size=np.array([34, 34]), **made.columns(EVENTS))),
        (".txt", b"34 34\n" + made.csv_file(EVENTS, " ", "")),
    ],
)
def test_the_sensor_size_of_a_file_is_taken_and_held_against_the_given_one(suffix, raw):
    assert read(suffix, raw)[1] == (34, 34)
    assert read_events(f"r{suffix}", raw, sensor_size=(34, 34))[1] == (34, 34)
    with pytest.raises(DataError, match=r"its sensor is 34x34; expected 36x34. .*data.sensor_size"):
        read_events(f"r{suffix}", raw, sensor_size=(36, 34))


@pytest.mark.parametrize(
    "fields",
    ["xytp", "pytx", ("on", "timestamp", "Y", "X"), ("polarity", "ts", "y", "x"), "tpxyz"],
)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("t_type", ["i8", "u8", "f8", "i4"])
def test_structured_arrays_of_any_order_type_and_byte_order(fields, order, t_type):
    real = {"on": "p", "polarity": "p", "timestamp": "t", "ts": "t", "X": "x", "Y": "y"}
    kinds = {"x": "u2", "y": "i4", "t": t_type, "p": "i1", "z": "f4"}
    dtype = np.dtype([(f, order + kinds[real.get(f, f)]) for f in fields])
    array = np.zeros(len(EVENTS), dtype)
    for f in fields:
        if f != "z":
            array[f] = EVENTS[real.get(f, f)]
    assert read(".npy", made.npy_file(array))[0].tolist() == EVENTS.tolist()
    assert read(".npy", made.npy_file(array[:, None]))[0].tolist() == EVENTS.tolist()


def test_padded_and_titled_fields_are_read():
    """What `aedat` returns, saved as it is: title p, name on."""
    dtype = np.dtype([("t", "<u8"), ("x", "<u2"), ("y", "<u2"), (("p", "on"), "?")], align=True)
    array = np.zeros(len(EVENTS), dtype)
    for name, field in (("t", "t"), ("x", "x"), ("y", "y"), ("on", "p")):
        array[name] = EVENTS[field]
    assert read(".npy", made.npy_file(array))[0].tolist() == EVENTS.tolist()


@pytest.mark.parametrize("order", ["xytp", "txyp", "xypt"])
@pytest.mark.parametrize("dtype", [np.int32, np.float64, ">i8", ">f4"])
def test_tables_are_recognised_in_three_orders(order, dtype):
    raw = made.npy_file(made.table(EVENTS, order, dtype))
    assert read(".npy", raw)[0].tolist() == EVENTS.tolist()
    fortran = made.npy_file(np.asfortranarray(made.table(EVENTS, order, dtype)))
    assert read(".npy", fortran)[0].tolist() == EVENTS.tolist()


def test_any_other_order_of_a_table_can_be_told():
    raw = made.npy_file(made.table(EVENTS, "ptyx"))
    fails(".npy", raw, r"no known order fits .* data.columns=txyp")
    assert read(".npy", raw, columns="ptyx")[0].tolist() == EVENTS.tolist()


def test_an_order_that_could_be_two_is_asked_for():
    raw = made.npy_file(np.array([[1, 2, 3, 1], [1, 3, 3, 0]]))
    fails(".npy", raw, r"several orders fit \(xytp, txyp\)")
    assert read(".npy", raw, columns="txyp")[0].tolist() == [(2, 3, 1, 1), (3, 3, 1, 0)]


@pytest.mark.parametrize("delimiter", [",", ", ", ";", "\t", " ", "   "])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_in_every_form(delimiter, header, end):
    names = delimiter.join(["Timestamp", "x", "y", "Polarity"]) if header else ""
    raw = made.csv_file(EVENTS, delimiter, names, "txyp", end)
    for text in (raw, b"\xef\xbb\xbf" + raw, b"# made\n\n" + raw, b"% made\n" + raw):
        assert read(".csv", text)[0].tolist() == EVENTS.tolist()


def test_text_with_more_columns_needs_names():
    rows = "".join(f"{i},{x},{y},{t},{p}\n" for i, (x, y, t, p) in enumerate(EVENTS.tolist()))
    assert read(".csv", f"n,x,y,t,p\n{rows}".encode())[0].tolist() == EVENTS.tolist()
    fails(".csv", rows.encode(), "5 columns without names; expected 4")


def test_large_timestamps_in_text_keep_every_digit():
    t = (1 << 60) + 1
    events, _ = read(".csv", f"x,y,t,p\n1,2,{t},1\n1,2,{t + 2},0\n".encode())
    assert events["t"].tolist() == [t, t + 2]


def test_a_structure_in_a_mat_file_is_read():
    """The form of Orchard's MATLAB functions: a structure TD with x, y, ts and p."""
    fields = made.columns(EVENTS, ("x", "y", "ts", "p"), np.float64)
    assert read(".mat", made.mat_of({"TD": fields}))[0].tolist() == EVENTS.tolist()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickled_dictionary_of_arrays_is_read_without_unpickling(protocol, monkeypatch):
    import pickle

    array = np.array({name: EVENTS[name].copy() for name in "txyp"}, dtype=object)
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }\n"
    raw = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    raw += pickle.dumps(array, protocol)
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    if protocol in (3, 4):  # what numpy.save has written since Python 3
        assert read(".npy", raw)[0].tolist() == EVENTS.tolist()
    else:
        fails(".npy", raw, "pickled objects .* may run code")


# --- units, polarity, order ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "t", "dtype"),
    [
        ("us", [0, 3, 1000], "i8"),
        ("us", [0, 3, 1000], "f8"),
        ("ms", [0, 0.003, 1], "f8"),
        ("s", [0, 3e-6, 1e-3], "f8"),
        ("ns", [0, 3999, 1_000_000], "i8"),
        ("ns", [0, 3999, 1_000_000], "f8"),
    ],
)
def test_time_units(unit, t, dtype):
    raw = made.npz_file(x=[1, 1, 1], y=[1, 1, 1], t=np.array(t, dtype), p=[0, 1, 1])
    assert read(".npz", raw, time_unit=unit)[0]["t"].tolist() == [0, 3, 1000]


def test_whole_milliseconds_and_seconds():
    raw = made.npz_file(x=[1, 1], y=[1, 1], t=[2, 5], p=[0, 1])
    assert read(".npz", raw, time_unit="ms")[0]["t"].tolist() == [2000, 5000]
    assert read(".npz", raw, time_unit="s")[0]["t"].tolist() == [2_000_000, 5_000_000]


@pytest.mark.parametrize("suffix", [".bin", ".dat", ".aedat4"])
def test_a_format_with_a_unit_keeps_it(suffix):
    raw = made.valid_files()[suffix][0]
    assert read(suffix, raw, time_unit="s")[0].tolist() == EVENTS.tolist()


def test_fractions_of_microseconds_ask_for_the_unit():
    raw = made.npz_file(x=[1, 1], y=[1, 1], t=[0.5, 1.25], p=[0, 1])
    fails(".npz", raw, r"t of event 0 is 0.5; expected a whole number of microseconds. Set data.ti")


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ([False, True], [0, 1]),
        ([0, 1], [0, 1]),
        ([-1, 1], [0, 1]),
        ([1, 2], [0, 1]),
        ([1, 1], [1, 1]),
        ([0, 0], [0, 0]),
        ([-1, -1], [0, 0]),
        ([0.0, 1.0], [0, 1]),
    ],
)
def test_polarities(p, expected):
    raw = made.npz_file(x=[1, 1], y=[1, 1], t=[1, 2], p=p)
    assert read(".npz", raw)[0]["p"].tolist() == expected


@pytest.mark.parametrize("p", [[0, 2], [2, 2], [-1, 0, 1], [0, 1, 2], [0.5, 1], [0, 255], [-2, 2]])
def test_unclear_polarities_are_refused(p):
    n = len(p)
    raw = made.npz_file(x=[1] * n, y=[1] * n, t=range(n), p=p)
    fails(".npz", raw, "polarity spans .* expected 0 and 1, -1 and 1, or 1 and 2")


def test_events_out_of_order_are_refused_or_sorted_when_asked():
    raw = made.npz_file(x=[1, 2, 3], y=[1, 1, 1], t=[5, 3, 3], p=[0, 1, 1])
    fails(".npz", raw, r"go back at event 1 \(5 us to 3 us\).*data.sort=true")
    assert read(".npz", raw, sort=True)[0]["x"].tolist() == [2, 3, 1]


@pytest.mark.parametrize(
    "wrong",
    [{"time_unit": "m"}, {"columns": "xyt"}, {"columns": "xxtp"}, {"columns": ""}],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ReadOptions(**wrong)


# --- what is no recording ------------------------------------------------------------------------

ABSURD = {
    "x": [(-1, "x spans -1 to"), (1 << 15, "x spans 1 to 32768"), (0.5, "x of event 1 is 0.5")],
    "t": [
        (-1, "t spans -1"),
        ((1 << 62) + 1, "t spans 0 to 46116"),
        (float("nan"), "t of event 1 is nan"),
        (float("inf"), "t of event 1 is inf"),
        (2.0**53 + 2, "t spans 0.0 to 9007199254740994"),
    ],
}


@pytest.mark.parametrize(("field", "case"), [(f, c) for f, cases in ABSURD.items() for c in cases])
def test_absurd_values_are_named(field, case):
    value, message = case
    columns = {"x": [1, 1], "y": [1, 1], "t": [0, 1], "p": [0, 1]}
    columns[field] = [columns[field][0], value]
    fails(".npz", made.npz_file(**columns), message)
    fails(".h5", made.h5_file(**columns), message)


def test_absurd_times_in_other_units_do_not_overflow():
    for t in ([0, 1 << 61], [0.0, 1e300], [0.0, 9e18]):
        raw = made.npz_file(x=[1, 1], y=[1, 1], t=t, p=[0, 1])
        fails(".npz", raw, "t (spans|of event 1)", time_unit="s")


@pytest.mark.parametrize("suffix", READERS)
@pytest.mark.parametrize("raw", [b"", b"\0", b"\0" * 1000, b"hello\n" * 50, b"\xff" * 997])
def test_other_bytes_are_refused(suffix, raw):
    if suffix not in (".bin", ".bs2") or len(raw) % 5 or not raw:
        fails(suffix, raw, r"\. |no event")


@pytest.mark.parametrize("suffix", READERS)
def test_a_recording_without_events_is_refused(suffix):
    none = EVENTS[:0]
    empty = {
        ".aedat4": made.aedat4_file(none, (34, 34)),
        ".bin": b"",
        ".csv": b"x,y,t,p\n",
        ".dat": made.dat_file(none),
        ".h5": made.h5_file(**made.columns(none)),
        ".mat": made.mat_file(none),
        ".npy": made.npy_file(none),
        ".npz": made.npz_file(**made.columns(none)),
        ".txt": b"# nothing\n",
    }
    same = {".bs2": ".bin", ".hdf5": ".h5"}
    fails(suffix, empty[same.get(suffix, suffix)], "no (line with an )?event")


def test_an_unknown_suffix_lists_the_known_ones():
    with pytest.raises(DataError, match=r"r.jpg: no reader for '.jpg'; expected one of .aedat4, "):
        read_events("r.jpg", b"x")


def test_columns_of_different_lengths():
    raw = made.npz_file(x=[1, 2], y=[1, 2], t=[1, 2, 3], p=[0, 1])
    fails(".npz", raw, "different lengths .2 x, 2 y, 3 t, 2 p.")


def test_missing_and_double_columns_are_named():
    raw = made.npz_file(x=[1], y=[1], t=[1])
    fails(".npz", raw, "no column for p among 't', 'x', 'y'")
    raw = made.npz_file(x=[1], y=[1], t=[1], p=[1], ts=[1])
    fails(".npz", raw, "more than one column for t")
    raw = made.npz_file(**{"n" * 200 + str(i): [1] for i in range(30)})
    fails(".npz", raw, r"among 'nnn.*n\.\.\.; expected")
    text = fails(".mat", made.mat_of({"data": [1.0], "y": [1.0]}), "no column for x")
    assert "The file holds 'data', 'y'" in text


@pytest.mark.parametrize("kind", ["O", "U5", "S3", "c16", "V8", "M8[us]"])
def test_elements_that_are_no_numbers(kind):
    array = np.zeros(4, [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", kind)])
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    fails(".npy", stream.getvalue(), "no numbers")


def test_mat_7_3_is_told_apart():
    raw = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b"\0") + made.h5_file(x=[1])
    fails(".mat", raw, "version 7.3; save it with -v7")
    fails(".mat", made.h5_file(x=[1]), "version 7.3; save it with -v7")


@pytest.mark.parametrize("streams", [(), (0, 1)])
def test_aedat4_with_no_or_two_streams_of_events(streams):
    raw = made.aedat4_file(EVENTS, (34, 34), streams=streams)
    fails(".aedat4", raw, r"no stream found|2 streams of events, not 1")


def test_dat_of_another_version():
    fails(".dat", made.dat_file(EVENTS, ("Version 1",)), "its version is '1', not 2")
    fails(".dat", made.dat_file(EVENTS, ()), "its version is None, not 2")
    fails(".dat", made.dat_file(EVENTS, kind=14), "kind and size of its events")


def test_h5_data_in_another_file_is_not_followed(tmp_path):
    import h5py

    (tmp_path / "secret").write_bytes(b"\1" * 800)
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        place = [(str(tmp_path / "secret"), 0, 800)]
        file.create_dataset("x", (100,), "i8", external=place)
        for name in "ytp":
            file[name] = np.ones(100)
    fails(".h5", stream.getvalue(), "another file")
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["events"] = h5py.ExternalLink(str(tmp_path / "secret"), "/x")
    fails(".h5", stream.getvalue(), "another file")


def test_a_format_whose_package_is_missing_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for suffix, package in ((".mat", "scipy"), (".h5", "h5py"), (".aedat4", "aedat")):
        message = rf"needs the package {package}, .*pip install 'spikeshot\[events\]'"
        fails(suffix, made.valid_files()[suffix][0], message)


@pytest.mark.data
def test_real_files_of_other_sensors(shared_data):
    """Counts from the README beside them; that of the `.dat` from its size and header."""
    folder = shared_data / "event_samples"

    def read_file(name):
        return read_events(name, (folder / name).read_bytes())

    events, size = read_file("sample.aedat4")
    assert (len(events), size) == (111_954, (320, 240))
    assert 0.58e6 < events["t"][-1] - events["t"][0] < 0.6e6
    events, size = read_file("sample_nmnist.bin")
    assert (len(events), size) == (4_325, None)
    events, size = read_file("sample_ncars.dat")
    assert (len(events), size) == ((16_165 - 93) // 8, None)
    with zipfile.ZipFile(folder / "dvs128_clips_bs2.zip") as archive:
        counts = sorted(len(read_events(n, archive.read(n))[0]) for n in archive.namelist())
    assert (counts[0], counts[-1]) == (63_471, 85_936)
