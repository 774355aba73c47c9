"""The layouts: what a published or own folder lists, lazily, and what each sample reads."""

import string

import numpy as np
import pytest

import made_files as made
from fakes import pack, write_folder, write_zip
from spikeshot.data.events import check_events
from spikeshot.data.layouts.asl_dvs import LETTERS, list_asl_dvs
from spikeshot.data.layouts.folder import list_folder
from spikeshot.data.layouts.n_omniglot import list_n_omniglot
from spikeshot.data.layouts.nmnist import list_nmnist
from spikeshot.data.readers import ReadOptions
from spikeshot.errors import DataError

WRITE = pytest.mark.parametrize("write", [write_folder, write_zip])


def from_zero(events):
    return [(x, y, t - int(events["t"][0]), p) for x, y, t, p in events.tolist()]


def check_collection(found):
    """What every layout promises: names and origins once, known labels, valid events."""
    assert len(found.samples) > 0
    assert len({s.name for s in found.samples}) == len(found.samples)
    assert len({s.origin for s in found.samples}) == len(found.samples)
    assert {s.label for s in found.samples} <= set(found.classes)
    assert len(set(found.classes)) == len(found.classes)
    for sample in found.samples:
        check_events(sample.read(), found.sensor_size, sample.name)


def refuses(lister, path, message, **options):
    with pytest.raises(DataError, match=message) as error:
        lister(path, **options)
    assert str(error.value).startswith(str(path))


# --- N-MNIST -------------------------------------------------------------------------------------


@WRITE
def test_nmnist_whole_published_layout_at_small_scale(tmp_path, write):
    """60,000 and 10,000 files in the published one; here every 1,500th and 1,250th, 48 in all.

    Names as published: Train/0..9/00001..60000.bin and Test/0..9/00001..10000.bin.
    """
    numbers = [("Train", n) for n in range(1500, 60_001, 1500)]
    numbers += [("Test", n) for n in range(1250, 10_001, 1250)]
    files = {
        f"N-MNIST/{part}/{n // 250 % 10}/{n:05d}.bin": pack([(n % 34, 33, n, 1)])
        for part, n in numbers
    }
    found = list_nmnist(write(tmp_path / "N-MNIST.zip", files))
    check_collection(found)
    assert found.classes == tuple(string.digits)
    assert found.sensor_size == (34, 34)
    place = f"{tmp_path}/N-MNIST.zip"
    assert [s.name for s in found.samples] == [f"{place}: {name}" for name in sorted(files)]
    origins = {f"{part.lower()}/{n:05d}": n for part, n in numbers}
    assert {s.origin: s.read()["t"].tolist() for s in found.samples} == {
        origin: [n] for origin, n in origins.items()
    }
    assert all(int(s.label) == origins[s.origin] // 250 % 10 for s in found.samples)


def test_listing_reads_no_recording(tmp_path):
    files = {"Train/3/00001.bin": b"123", "Test/3/00001.bin": pack([(1, 2, 3, 1)])}
    found = list_nmnist(write_folder(tmp_path / "n", files))
    samples = {s.origin: s for s in found.samples}
    assert samples["test/00001"].read().tolist() == [(1, 2, 3, 1)]
    with pytest.raises(DataError, match=r"Train/3/00001.bin: 3 bytes, not a multiple"):
        samples["train/00001"].read()


# --- ASL-DVS -------------------------------------------------------------------------------------


def asl_files(per_letter=2, **options):
    size = (240, 180)
    return {
        f"{letter}/{letter}_{i + 1:04d}.mat": made.mat_file(
            made.made_events(100 * k + i, 50, size, start_us=10_000 * i), **options
        )
        for k, letter in enumerate("abcdefghiklmnopqrstuvwxy")
        for i in range(per_letter)
    }


@WRITE
def test_asl_dvs(tmp_path, write):
    files = asl_files() | {"readme.txt": b"x", "j/j_0001.mat": b"x", "a/notes.txt": b"x"}
    files = {f"ICCV2019_DVS_dataset/{name}": raw for name, raw in files.items()}
    found = list_asl_dvs(write(tmp_path / "asl.zip", files))
    check_collection(found)
    assert found.sensor_size == (240, 180)
    assert found.classes == LETTERS
    assert len(found.samples) == 48
    assert (found.samples[-1].label, found.samples[-1].origin) == ("y", "y/y_0002")
    expected = made.made_events(100 * 23 + 1, 50, (240, 180), start_us=10_000)
    assert found.samples[-1].read().tolist() == from_zero(expected)


def test_asl_dvs_is_24_letters():
    assert len(LETTERS) == 24
    assert set(string.ascii_lowercase) - set(LETTERS) == {"j", "z"}


def test_asl_dvs_bad_places(tmp_path):
    refuses(list_asl_dvs, write_folder(tmp_path / "e", {"a/1.txt": b"x"}), "published layout")
    zips = write_zip(tmp_path / "z.zip", {"Yin - a.zip": b"x"})
    refuses(list_asl_dvs, zips, "Unpack Yin - a.zip and the other archives")
    raw = made.mat_file(made.made_events(0, 50, (240, 180)))
    twice = write_folder(tmp_path / "t", {"a/1.mat": raw, "copy/a/1.mat": raw})
    refuses(list_asl_dvs, twice, "copy/a/1.mat and a/1.mat are both recording a/1; .*the copy")
    wide = made.mat_file(made.made_events(0, 50, (241, 180)))
    (sample,) = list_asl_dvs(write_folder(tmp_path / "w", {"a/1.mat": wide})).samples
    with pytest.raises(DataError, match=r"a/1.mat: event \d lies at x=240, .* 240x180"):
        sample.read()


# --- N-Omniglot ----------------------------------------------------------------------------------


PLACES = {
    "dvs_background/Balinese/character01": "0108",
    "dvs_background/Balinese/character02": "0109",
    "dvs_background_2/Tifinagh/character55": "0910",
    "dvs_evaluation/Mkhedruli_(Georgian)/character03": "0967",
}


def n_omniglot_files():
    files, truth = {}, {}
    for seed, (place, number) in enumerate(PLACES.items()):
        raw, text, parts = made.n_omniglot_file(seed)
        files |= {f"{place}/{number}.aedat4": raw, f"{place}/{number}.csv": text}
        character = place.split("/", 1)[1]
        truth |= {f"{character}/{number}_{i + 1:02d}": e for i, e in enumerate(parts)}
    return files, truth


@WRITE
def test_n_omniglot_as_published(tmp_path, write):
    files, truth = n_omniglot_files()
    found = list_n_omniglot(write(tmp_path / "n.zip", files | {"dvs_background/read.me": b"x"}))
    check_collection(found)
    assert found.sensor_size == made.DAVIS
    assert found.classes == tuple(place.split("/", 1)[1] for place in PLACES)
    assert {s.origin: s.read().tolist() for s in found.samples} == {
        origin: from_zero(events) for origin, events in truth.items()
    }
    assert all(s.label == s.origin.rpartition("/")[0] for s in found.samples)


def test_n_omniglot_reads_a_file_once_for_its_twenty_samples(tmp_path, monkeypatch):
    from spikeshot.data.layouts import n_omniglot

    read, calls = n_omniglot.read_events, []
    monkeypatch.setattr(
        n_omniglot, "read_events", lambda name, raw, **o: calls.append(name) or read(name, raw, **o)
    )
    found = list_n_omniglot(write_folder(tmp_path / "n", n_omniglot_files()[0]))
    assert (len(found.samples), calls) == (80, [])
    for sample in found.samples:
        sample.read()
    assert len(calls) == 4


@WRITE
@pytest.mark.parametrize("top", ["events_npy/background", "dvs_background", "background"])
def test_n_omniglot_converted(tmp_path, write, top):
    parts = [made.made_events(i, 40, made.DAVIS, made.START_US) for i in range(4)]
    files = {
        f"{top}/Greek/character{c:02d}/03{c:02d}_{d:02d}.npy": made.pickled_file(e)
        for e, (c, d) in zip(parts, [(1, 1), (1, 20), (2, 1), (2, 3)], strict=True)
    }
    found = list_n_omniglot(write(tmp_path / "n.zip", files))
    check_collection(found)
    assert found.classes == ("Greek/character01", "Greek/character02")
    assert [s.read().tolist() for s in found.samples] == list(map(from_zero, parts))
    assert [s.origin[-7:] for s in found.samples] == ["0301_01", "0301_20", "0302_01", "0302_03"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, r"0108.csv: missing; expected the table of start and end times"),
        (b",start,end\n0,1,2\n", r"0108.csv: 1 lines after the first; expected 20"),
        (b",s,e\n" + b"0,1\n" * 20, r"sample 1 has \['1'\] for start and end"),
        (b",s,e\n" + b"0,-1,nan\n" * 20, r"sample 1 has \['-1', 'nan'\] for start and end"),
        (b",s,e\n" + b"0,5,5\n" * 20, r"0108.aedat4, sample 1: no event in it"),
        (b"\xff" * 70_000, r"0108.csv: 70000 bytes; expected at most 65536"),
    ],
)
def test_n_omniglot_bad_tables(tmp_path, table, message):
    place = "dvs_background/Balinese/character01"
    files = {f"{place}/0108.aedat4": made.n_omniglot_file(0)[0]}
    files |= {f"{place}/0108.csv": table} if table else {}
    found = list_n_omniglot(write_folder(tmp_path / "n", files))
    assert len(found.samples) == 20
    with pytest.raises(DataError, match=message):
        found.samples[0].read()


def test_n_omniglot_bad_places(tmp_path):
    rars = write_folder(tmp_path / "r", {"dvs_evaluation.rar": b"Rar!"})
    refuses(list_n_omniglot, rars, r"published layout.* Unpack dvs_evaluation.rar first \(unrar\)")
    files, _ = n_omniglot_files()
    files["background/Balinese/character01/0108_07.npy"] = b"x"
    refuses(
        list_n_omniglot,
        write_folder(tmp_path / "b", files),
        "drawing Balinese/character01/0108_07 is there twice, .* either the published or the conv",
    )


# --- a person's own ------------------------------------------------------------------------------


def own_files():
    """One recording of each readable format in three classes, all different."""
    files = {}
    for i, suffix in enumerate(made.valid_files()):
        e = made.made_events(i, 60 + i)
        kinds = {
            ".aedat4": made.aedat4_file(e, (34, 34)),
            ".bin": pack(e.tolist()),
            ".csv": made.csv_file(e),
            ".dat": made.dat_file(e, ("Version 2",)),
            ".h5": made.h5_file(**made.columns(e)),
            ".mat": made.mat_file(e),
            ".npy": made.npy_file(e),
            ".npz": made.npz_file(**made.columns(e)),
            ".txt": made.csv_file(e, " ", ""),
        }
        raw = kinds[{".bs2": ".bin", ".hdf5": ".h5"}.get(suffix, suffix)]
        files[f"{('cat', 'dog', 'Übung 字')[i % 3]}/{i}{suffix}"] = raw
    return files


@WRITE
@pytest.mark.parametrize("top", ["", "data/mine/"])
def test_own_folder_of_every_format(tmp_path, write, top):
    files = {top + name: raw for name, raw in own_files().items()}
    files |= {f"{top}notes.txt": b"x", f"{top}cat/photo.jpg": b"x", f"{top}cat/.x/1.npy": b"x"}
    found = list_folder(write(tmp_path / "own.zip", files), sensor_size=(34, 34))
    check_collection(found)
    assert found.classes == ("cat", "dog", "Übung 字")
    assert {s.origin for s in found.samples} == set(own_files())
    for sample in found.samples:
        i = int(sample.origin.split("/")[1].split(".")[0])
        assert sample.read().tolist() == from_zero(made.made_events(i, 60 + i))


def test_own_folder_deeper_folders_are_parts_of_a_class(tmp_path):
    names = ["cat/monday/1.npy", "cat/2.npy", "dog/monday/1.npy"]
    files = {n: made.npy_file(made.made_events(i)) for i, n in enumerate(names)}
    found = list_folder(write_folder(tmp_path / "own", files), sensor_size=(34, 34))
    assert found.classes == ("cat", "dog")
    assert [s.origin for s in found.samples] == sorted(names)


def test_own_folder_takes_the_sensor_from_the_data_or_asks(tmp_path):
    a, b = made.made_events(0), made.made_events(1)
    files = {"a/1.dat": made.dat_file(a), "b/1.dat": made.dat_file(b)}
    assert list_folder(write_folder(tmp_path / "says", files)).sensor_size == (34, 34)
    files = {"a/1.npy": made.npy_file(a), "b/1.npy": made.npy_file(b)}
    place = write_folder(tmp_path / "silent", files)
    refuses(list_folder, place, r"data.sensor_size is not set \(its events reach 34x34\)")
    found = list_folder(place, sensor_size=(20, 34))
    with pytest.raises(DataError, match=r"outside the 20x34 sensor"):
        found.samples[0].read()
    other = made.dat_file(b, ("Version 2", "Width 99", "Height 99"))
    files = {"a/1.dat": made.dat_file(a), "b/1.dat": other}
    found = list_folder(write_folder(tmp_path / "two", files))
    with pytest.raises(DataError, match=r"its sensor is 99x99; expected 34x34"):
        found.samples[1].read()


def test_own_folder_passes_options_to_the_readers(tmp_path):
    seconds = made.columns(made.made_events(0), dtype=np.float64)
    seconds["t"] /= 1e6
    shuffled = {k: v[::-1] for k, v in seconds.items()}
    files = {"a/1.npz": made.npz_file(**seconds), "b/1.npz": made.npz_file(**shuffled)}
    place = write_folder(tmp_path / "own", files)
    refuses(list_folder, place, "Set data.time_unit to s, ms or ns")
    options = ReadOptions(time_unit="s", sort=True)
    found = list_folder(place, sensor_size=(34, 34), options=options)
    times = [s.read()["t"].tolist() for s in found.samples]
    assert times[0] == times[1] == [t for _, _, t, _ in from_zero(made.made_events(0))]


@WRITE
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat/1.npy", "dog/1.npy"], "cat/1.npy and dog/1.npy are the same recording, in classes"),
        (["cat/1.npy", "cat/2.npy", "dog/x/1.csv"], "the same recording, in class 'cat'"),
    ],
)
def test_own_folder_with_a_recording_twice(tmp_path, write, names, message):
    raw = made.npy_file(made.made_events())
    files = {n: raw if n.endswith("npy") else made.csv_file(made.made_events(1)) for n in names}
    refuses(list_folder, write(tmp_path / "own.zip", files), message, sensor_size=(34, 34))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no recording in a folder of its class; expected <class>/<file> with one of .aedat4"),
        (["1.npy", "2.npy"], "no recording in a folder of its class"),
        (["cat/photo.jpg", "dog/photo.jpg"], "no recording in a folder of its class"),
        (["data/cat/1.npy", "data/cat/2.npy"], "only one class, 'cat'; expected a folder for each"),
        (["cat/1.npy", "dog/1.npy", "3.npy"], "3.npy: a recording beside the folders of classes"),
    ],
)
def test_own_folder_bad_places(tmp_path, names, message):
    files = {n: made.npy_file(made.made_events(i)) for i, n in enumerate(names)}
    place = write_folder(tmp_path / "own", files)
    place.mkdir(exist_ok=True)
    refuses(list_folder, place, message, sensor_size=(34, 34))
