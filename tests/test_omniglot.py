"""Omniglot's drawings: the reader, turned classes, and what a run makes of them."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fakes import space_of, write_folder, write_zip
from made_corpora import DRAWERS, drawing, drawing_name, omniglot_files, png
from spikeshot.assemble_data import load_source, task_space
from spikeshot.config import load_config
from spikeshot.data.corpora import Request, load_corpus
from spikeshot.data.corpora.omniglot import SHOWN, SIDE, Drawings, read_drawings, record, show
from spikeshot.data.pictures import area_mean, decode_grey
from spikeshot.data.splits import SPLITS, indices_by_class
from spikeshot.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("omniglot"), omniglot_files())


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPIKESHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def config(*more):
    return load_config("omniglot-fast", ["task.queries=2", "task.ways=3", "train.ways=0", *more])


# --- reading -------------------------------------------------------------------------------------


def check(drawings):
    assert len(drawings.images) == len(drawings.labels) == 10 * DRAWERS
    assert drawings.labels[:: DRAWERS * 3][:2] == ("Balinese/character01", "Latin/character01")
    assert drawings.origins[1] == "Balinese/character01/02"
    assert len(set(drawings.origins)) == len(drawings.origins)
    for image, origin in zip(drawings.images, drawings.origins, strict=True):
        alphabet, character, drawer = origin.split("/")
        ink = drawing(alphabet, int(character[-2:]), int(drawer))
        np.testing.assert_array_equal(image, 255 * ink)


def test_a_folder_its_inside_a_zip_and_a_folder_of_zips_are_read_alike(folder, tmp_path):
    archive = write_zip(tmp_path / "images_background.zip", omniglot_files())
    hidden = write_folder(tmp_path / ".hidden", omniglot_files())
    for path in (folder, folder / "images_background", archive, tmp_path, hidden):
        check(read_drawings(path))


def test_what_file_systems_leave_behind_and_other_files_are_passed_over(tmp_path):
    extra = {
        "__MACOSX/" + drawing_name("Latin", 1, 1): b"junk",
        "images_background/Latin/character01/._0101_01.png": b"junk",
        "images_background/.DS_Store": b"junk",
        "images_background/Latin/readme.txt": b"hello",
        "strokes_background/Latin/character01/0101_01.txt": b"START",
    }
    check(read_drawings(write_zip(tmp_path / "all.zip", omniglot_files() | extra)))
    check(read_drawings(write_folder(tmp_path / "unpacked", omniglot_files() | extra)))


def test_a_drawing_that_is_there_twice_is_read_once(tmp_path):
    """images_background_small1.zip holds drawings of images_background.zip."""
    small = {
        n.replace("ground", "ground_small1"): raw
        for n, raw in omniglot_files().items()
        if "Lat" in n
    }
    write_zip(tmp_path / "images_background.zip", omniglot_files())
    write_zip(tmp_path / "images_background_small1.zip", small)
    check(read_drawings(tmp_path))


def test_two_versions_of_a_drawing_are_refused(tmp_path):
    other = {drawing_name("Latin", 1, 1, "images_evaluation"): png(~drawing("Latin", 2, 1))}
    with pytest.raises(DataError, match=r"0101_01.png and .*0101_01.png are two versions"):
        read_drawings(write_zip(tmp_path / "a.zip", omniglot_files() | other))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "no readable picture"),
        (b"\x89PNG\r\n\x1a\n", "no readable picture"),
        (png(np.zeros((SIDE, SIDE), bool))[:45], "no readable picture"),
        (png(np.zeros((28, 28), bool)), "28 x 28 pixels; expected 105 x 105"),
        (png(np.zeros((1, 9_000), bool)), r"9000 x 1 pixels\); expected PNG or JPEG, at most"),
        (b"P1\n1 1\n0\n", "no readable picture"),  # a format that is not asked for
        (bytes(1_000_001), "1000001 bytes; expected at most"),
    ],
)
def test_a_file_that_is_no_drawing_is_named(tmp_path, raw, message):
    path = write_zip(tmp_path / "a.zip", omniglot_files() | {drawing_name("Latin", 2, 3): raw})
    with pytest.raises(DataError, match=rf"0102_03.png: .*{message}"):
        read_drawings(path)


def test_what_is_missing_is_named_with_where_to_get_it(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.zip").write_bytes(b"PK")
    for path in (tmp_path / "none", tmp_path / "empty", tmp_path / "broken.zip"):
        with pytest.raises(
            DataError, match=r"images_background\.zip from github\.com/brendenlake/o"
        ):
            read_drawings(path)
    with pytest.raises(DataError, match=r"--data PATH.*images_background.zip"):
        load_corpus("omniglot", Request())


def test_an_encrypted_zip_is_an_error(tmp_path):
    path = write_zip(tmp_path / "a.zip", omniglot_files())
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():  # bit 0 of the flags, in both headers
            raw[info.header_offset + 6] |= 1
    at = raw.find(b"PK\x01\x02")
    while at >= 0:
        raw[at + 8] |= 1
        at = raw.find(b"PK\x01\x02", at + 1)
    path.write_bytes(raw)
    with pytest.raises(DataError, match="is encrypted; expected an open archive"):
        read_drawings(path)


# --- pictures ------------------------------------------------------------------------------------


def test_the_mean_over_areas_is_that_of_a_finer_grid():
    """7 -> 3 pixels: repeat each pixel 3 times, then average blocks of 7, in exact numbers."""
    image = np.random.default_rng(0).integers(0, 256, (1, 7, 14), dtype=np.uint8)
    fine = image.repeat(3, axis=1).repeat(3, axis=2).astype(np.int64)
    expected = fine.reshape(1, 3, 7, 6, 7).sum(axis=(2, 4)) / 49
    np.testing.assert_allclose(area_mean(image, 3, 6), expected, atol=0.5 + 1e-9)


def test_one_size_changes_nothing_and_ink_is_kept():
    image = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE), dtype=np.uint8)
    np.testing.assert_array_equal(area_mean(image, SIDE, SIDE), image)
    assert abs(area_mean(image, SHOWN, SHOWN).mean() - image.mean()) < 0.1


@given(st.binary(max_size=200), st.integers(0, 200), st.integers(0, 255))
def test_any_bytes_are_a_picture_or_a_clear_error(raw, place, value):
    whole = bytearray(png(~drawing("Latin", 1, 1)))
    whole[place % len(whole)] = value
    for data in (raw, bytes(whole)):
        message, image = "", None
        try:
            image = decode_grey(data, "a.png")
        except DataError as error:
            message = str(error)
        assert image is not None or message.startswith("a.png")
        assert image is None or (image.ndim, image.dtype) == (2, np.uint8)


def test_a_photograph_is_turned_upright():
    image = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 3  # EXIF orientation 3: by half a turn
    image.save(stream, "PNG", exif=exif)
    np.testing.assert_array_equal(decode_grey(stream.getvalue(), "a"), np.rot90(image, 2))


# --- turned classes ------------------------------------------------------------------------------


def test_turned_drawings_are_rot90_of_the_drawing(folder):
    drawings = read_drawings(folder)
    upright = show(drawings)
    assert upright.images.shape == (10 * DRAWERS, SHOWN, SHOWN)
    chosen = frozenset({"Latin/character01", "Tagalog/character03"})
    turned = show(drawings, chosen)
    assert sorted(set(turned.labels)) == sorted(f"{c}@{a}" for c in chosen for a in (90, 180, 270))
    images = dict(zip(upright.origins, upright.images, strict=True))
    assert len(turned.images) == 2 * 3 * DRAWERS
    for image, label, origin in zip(turned.images, turned.labels, turned.origins, strict=True):
        quarters = int(label.split("@")[1]) // 90
        np.testing.assert_array_equal(image, np.rot90(images[origin], quarters))
        assert origin.startswith(label.split("@")[0] + "/")


def test_a_recording_depends_on_its_drawing_seed_and_name_alone(folder):
    shown = show(read_drawings(folder))

    def some(rows, seed=0):
        return record(
            Drawings(
                shown.images[rows],
                tuple(shown.labels[i] for i in rows),
                tuple(shown.origins[i] for i in rows),
            ),
            seed,
            40_000,
        )

    whole, part = some([0, 5, 9]), some([9, 0])
    np.testing.assert_array_equal(whole[2], part[0])
    np.testing.assert_array_equal(whole[0], part[1])
    assert some([0, 5, 9]).digest == whole.digest != some([0, 5, 9], seed=1).digest


# --- in a run ------------------------------------------------------------------------------------


def test_no_class_and_no_recording_is_shared_by_the_splits(folder, cache):
    cfg = config()
    source = load_source(cfg, folder)
    alphabets = {s: {c.split("/")[0] for c in source.split.classes[s]} for s in SPLITS}
    assert alphabets == {"train": {"Latin"}, "val": {"Balinese"}, "test": {"Tagalog"}}
    drawn = {}
    for s in SPLITS:
        space = space_of(cfg, source, s)
        members = [i for parts in space.classes.values() for i in space.members[parts[0]]]
        per_class = 4 * DRAWERS if s == "train" else DRAWERS  # turned ones in training only
        assert len(members) == len(source.split.classes[s]) * per_class
        drawn[s] = {space.recordings.origins[i] for i in members}
        assert {c.split("@")[0] for c in space.classes} == set(source.split.classes[s])
        assert any("@" in c for c in space.classes) == (s == "train")
    assert not (drawn["train"] & drawn["val"] | drawn["train"] & drawn["test"])
    assert not drawn["val"] & drawn["test"]
    contents = [source.recordings[i].tobytes() for i in range(len(source.recordings))]
    contents += [source.turned[i].tobytes() for i in range(len(source.turned))]
    assert len(set(contents)) == len(contents)


def test_every_drawer_s_drawing_can_be_used_in_every_split(folder, cache):
    source = load_source(config("data.turns=false"), folder)
    assert source.turned is None
    for s in SPLITS:
        members = indices_by_class(source.recordings, source.split, s)
        for name_ in source.split.classes[s]:
            assert len(members[name_]) == DRAWERS


def test_by_drawer_keeps_support_and_query_apart(folder, cache):
    source = load_source(config("data.turns=false"), folder)
    space = task_space(
        config("data.by_drawer=true"), source.recordings, source.split, "train", augment=True
    )
    for i in range(20):
        plan = space.plan(i)
        support, query = (
            {source.recordings.origins[k][-2:] for k in rows.flat}
            for rows in (plan.support, plan.query)
        )
        assert support
        assert query
        assert not support & query


def test_recordings_are_simulated_once_and_again_when_the_drawings_change(folder, cache, tmp_path):
    request = Request(folder, 0, 30_000)
    first = load_corpus("omniglot", request)
    assert load_corpus("omniglot", request).digest == first.digest
    assert len(list((cache / "packs").iterdir())) == 1
    changed = omniglot_files() | {drawing_name("Latin", 1, 1): png(~drawing("Latin", 3, 1))}
    other = load_corpus("omniglot", Request(write_folder(tmp_path / "b", changed), 0, 30_000))
    assert other.digest != first.digest
    assert len(list((cache / "packs").iterdir())) == 2


def test_a_corpus_that_cannot_turn_says_so(fake_zip):
    with pytest.raises(ConfigError, match=r"'nmnist' has no turned classes. Set data.turns=false"):
        load_corpus("nmnist", Request(fake_zip, turned=frozenset("1")))


def test_turns_are_for_plain_classes():
    with pytest.raises(ConfigError, match="expected classes=single with it"):
        config("data.classes=double")


@pytest.mark.data
def test_the_published_archive_is_read(shared_data, tmp_path):
    """A part of it: 26 characters of Latin and 17 of Tagalog, 20 drawers each."""
    source = shared_data / "omniglot" / "images_background.zip"
    with zipfile.ZipFile(source) as archive:
        names = [n for n in archive.namelist() if "/Latin/" in n or "/Tagalog/" in n]
        some = write_zip(tmp_path / "some.zip", {n: archive.read(n) for n in names})
    drawings = read_drawings(some)
    assert len(drawings.images) == (26 + 17) * 20
    assert len(set(drawings.labels)) == 26 + 17
    share = (drawings.images > 0).mean(axis=(1, 2))
    assert set(np.unique(drawings.images)) == {0, 255}
    assert 0.005 < share.min() < share.max() < 0.3  # ink, not paper
