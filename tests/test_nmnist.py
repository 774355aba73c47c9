"""The N-MNIST reader: its format, its layout, the real recordings, and every kind of bad input."""

import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import fake_files, fake_recording, pack, write_folder, write_zip
from spikeshot.data.events import make_events
from spikeshot.data.nmnist import MAX_BYTES, decode_bin, encode_bin, read_nmnist
from spikeshot.errors import DataError

BYTE = st.integers(0, 255)
EVENT = st.tuples(BYTE, BYTE, st.integers(0, 2**23 - 1), st.integers(0, 1))  # x, y, t, p
GOOD = {f"Train/{d}/{d + 1:05d}.bin": pack(fake_recording(d, 0)) for d in range(3)}


# --- the format ----------------------------------------------------------------------------------


@given(st.lists(EVENT))
def test_decode_reads_the_published_format(rows):
    assert decode_bin(pack(rows), "r").tolist() == rows


@given(st.lists(EVENT))
def test_encode_writes_the_published_format(rows):
    columns = zip(*rows, strict=True) if rows else ([], [], [], [])
    assert encode_bin(make_events(*columns)) == pack(rows)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((256, 0, 0, 0), "x spans 256 to 256; the 5-byte format holds 0 to 255"),
        ((0, -1, 0, 0), "y spans -1 to -1"),
        ((0, 0, 2**23, 0), "t spans 8388608 to 8388608; the 5-byte format holds 0 to 8388607"),
    ],
)
def test_encode_refuses_what_does_not_fit(row, message):
    with pytest.raises(DataError, match=message):
        encode_bin(make_events(*([v] for v in row)))


@pytest.mark.parametrize("size", [1, 4, 6, 5001])
def test_a_size_that_is_no_multiple_of_five_is_truncated(size):
    with pytest.raises(DataError, match=rf"7\.bin: {size} bytes, not a multiple of the 5 bytes"):
        decode_bin(b"\0" * size, "7.bin")


# --- the layout ----------------------------------------------------------------------------------


def test_a_folder_and_a_zip_read_the_same(tmp_path):
    files = fake_files(3)
    from_zip = read_nmnist(write_zip(tmp_path / "a.zip", files))
    from_folder = read_nmnist(write_folder(tmp_path / "a", files))
    assert len(from_zip) == 30
    assert from_zip.digest == from_folder.digest
    by_origin = dict(zip(from_zip.origins, range(30), strict=True))
    for name, raw in files.items():
        part, digit, number = name.removesuffix(".bin").split("/")
        i = by_origin[f"{part.lower()}/{number}"]
        assert encode_bin(from_zip[i]) == raw
        assert from_zip.classes[from_zip.labels[i]] == digit


@pytest.mark.parametrize("prefix", ["N-MNIST/", "a/b c/d/", "Train/", "x-y/"])
def test_the_layout_may_lie_at_any_depth(tmp_path, prefix):
    flat = read_nmnist(write_zip(tmp_path / "flat.zip", GOOD))
    deep = {prefix + name: raw for name, raw in GOOD.items()}
    assert read_nmnist(write_zip(tmp_path / "deep.zip", deep)).digest == flat.digest
    assert read_nmnist(write_folder(tmp_path / "deep", deep)).digest == flat.digest


def test_files_beside_the_layout_are_left_alone(tmp_path):
    others = {
        "README.txt": b"hello",
        "__MACOSX/Train/5/._00009.bin": b"junk",
        "Train/5/notes.bin": b"x",
        "Train/12/00001.bin": b"x",
        "train/1/00001.bin": b"x",
        "Train/5/00001.bin.part": b"x",
        "other.bin": b"x",
    }
    clean = read_nmnist(write_zip(tmp_path / "clean.zip", GOOD))
    for place in (
        write_zip(tmp_path / "more.zip", GOOD | others),
        write_folder(tmp_path / "more", GOOD | others),
    ):
        assert read_nmnist(place).digest == clean.digest


def test_an_origin_does_not_depend_on_leading_zeros(tmp_path):
    short = write_zip(tmp_path / "short.zip", {"Train/3/7.bin": pack([(1, 2, 3, 1)])})
    assert read_nmnist(short).origins == ("train/00007",)


def test_two_recordings_of_one_image_are_refused(tmp_path):
    twice = GOOD | {f"copy/{name}": raw for name, raw in GOOD.items()}
    message = r"copy/Train/0/00001.bin and Train/0/00001.bin are both .* image train/00001; .* copy"
    with pytest.raises(DataError, match=message):
        read_nmnist(write_folder(tmp_path / "twice", twice))


# --- the real recordings -------------------------------------------------------------------------


@pytest.mark.data
def test_the_real_recordings_are_those_of_their_readme(shared_data):
    """Counts per digit and the 4,681 events of Train/5/00001.bin: the README beside the zip."""
    recordings = read_nmnist(shared_data / "nmnist" / "N-MNIST-small.zip")
    counts = {"train": [0] * 10, "test": [0] * 10}
    for label, origin in zip(recordings.labels, recordings.origins, strict=True):
        counts[origin.split("/")[0]][label] += 1
    assert counts["train"] == [79, 98, 81, 73, 81, 72, 73, 86, 73, 84]
    assert counts["test"] == [8, 11, 7, 8, 12, 7, 6, 11, 1, 9]
    assert len(recordings) == 880
    first = recordings[recordings.origins.index("train/00001")]
    assert len(first) == 4681
    assert recordings.classes[recordings.labels[recordings.origins.index("train/00001")]] == "5"
    lengths = [len(recordings[i]) for i in range(880)]
    assert min(lengths) >= 1069
    assert max(lengths) <= 7152
    assert recordings.events["t"].max() < 400_000  # three saccades of about 100 ms


# --- bad input -----------------------------------------------------------------------------------

BAD_RECORDINGS = {
    "truncated": (pack(fake_recording(5, 1))[:-2], "not a multiple of the 5 bytes"),
    "outside": (
        pack([(1, 1, 0, 1), (34, 1, 5, 1)]),
        r"event 1 lies at x=34, y=1, outside the 34x34",
    ),
    "back": (pack([(1, 1, 9, 1), (1, 1, 8, 1)]), r"go back at event 1 \(9 us to 8 us\)"),
    "empty": (b"", "no event in it"),
}


@pytest.mark.parametrize("kind", BAD_RECORDINGS)
@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_a_bad_recording_is_named_with_its_fault_and_remedy(tmp_path, kind, write):
    raw, message = BAD_RECORDINGS[kind]
    place = write(tmp_path / "bad.zip", GOOD | {"Train/5/00042.bin": raw})
    with pytest.raises(DataError, match=message) as error:
        read_nmnist(place)
    text = str(error.value)
    assert text.startswith(f"{place}: Train/5/00042.bin: ")
    assert text.endswith(("Fetch it again.", "or the file.", "by time.", "Remove the recording."))


def test_no_data_at_the_path(tmp_path):
    with pytest.raises(DataError, match=r"gone.zip: no such file or folder.*Check --data"):
        read_nmnist(tmp_path / "gone.zip")


def test_a_file_that_is_no_zip(tmp_path):
    (tmp_path / "text.zip").write_text("not a zip at all")
    with pytest.raises(DataError, match=r"text.zip: not a readable zip .* Fetch it again"):
        read_nmnist(tmp_path / "text.zip")


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_a_zip_or_folder_of_other_things(tmp_path, write):
    place = write(tmp_path / "other.zip", {"cats/1.jpg": b"x", "train-images-idx3-ubyte": b"y"})
    with pytest.raises(DataError, match=r"other.zip: holds no Train\|Test/<digit>/<number>.bin"):
        read_nmnist(place)


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="Point --data at the folder or zip"):
        read_nmnist(tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_entry_of_a_zip(tmp_path, method):
    file = tmp_path / "damaged.zip"
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, raw in GOOD.items():
            archive.writestr(name, raw)
        middle = archive.getinfo("Train/1/00002.bin").header_offset + 60
    raw = bytearray(file.read_bytes())
    raw[middle : middle + 20] = bytes(255 - b for b in raw[middle : middle + 20])
    file.write_bytes(bytes(raw))
    message = r"damaged.zip: Train/1/00002.bin: not a readable member of a zip .* Fetch it again"
    with pytest.raises(DataError, match=message):
        read_nmnist(file)


def test_a_zip_cut_short(tmp_path):
    file = write_zip(tmp_path / "short.zip", GOOD)
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"short.zip: not a readable zip"):
        read_nmnist(file)


def test_a_folder_in_the_place_of_a_recording_is_none(tmp_path):
    clean = read_nmnist(write_folder(tmp_path / "clean", GOOD))
    place = write_folder(tmp_path / "data", GOOD)
    (place / "Train" / "5" / "00009.bin").mkdir(parents=True)
    assert read_nmnist(place).digest == clean.digest


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_a_huge_recording_is_refused_before_it_is_read(tmp_path, write, monkeypatch):
    monkeypatch.setattr("spikeshot.data.layouts.nmnist.MAX_BYTES", 1000)
    assert MAX_BYTES > 5 * 8200  # the longest published recording has about 8,200 events
    place = write(tmp_path / "huge.zip", {"Train/5/00042.bin": b"\0" * 1005})
    with pytest.raises(DataError, match=r"Train/5/00042.bin: 1005 bytes; .* at most 1000"):
        read_nmnist(place)
