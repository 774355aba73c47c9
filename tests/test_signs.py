"""Photographs of hand signs: the readers, what the camera sees, and pairs of them."""

import numpy as np
import pytest

from fakes import write_folder, write_zip
from made_corpora import SIGNS_PER_DIGIT, jpegs, photograph, write_signs
from spikeshot.assemble_data import load_source, task_space
from spikeshot.config import load_config
from spikeshot.data.corpora import Request, load_corpus
from spikeshot.data.corpora.signs import CLASSES, SHOWN, read_photographs
from spikeshot.data.splits import SPLITS
from spikeshot.errors import DataError


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return write_signs(tmp_path_factory.mktemp("signs") / "signs.npz")


@pytest.fixture
def source(npz, monkeypatch, tmp_path):
    monkeypatch.setenv("SPIKESHOT_CACHE", str(tmp_path / "cache"))
    config = load_config("double-signs-fast", ["task.queries=1"])
    return config, load_source(config, npz)


def test_the_array_the_folder_and_its_zip_hold_the_same(npz, tmp_path):
    array = read_photographs(npz)
    assert array.images.shape == (10 * SIGNS_PER_DIGIT, SHOWN, SHOWN)
    assert array.labels == tuple(d for d in range(10) for _ in range(SIGNS_PER_DIGIT))
    assert array.origins[SIGNS_PER_DIGIT + 1] == "1/IMG_101"
    folder = write_folder(tmp_path / "a", jpegs())
    for path in (folder, write_zip(tmp_path / "b.zip", jpegs())):
        read = read_photographs(path)
        assert sorted(read.origins) == sorted(array.origins)
        places = [read.origins.index(origin) for origin in array.origins]
        assert [read.labels[i] for i in places] == list(array.labels)
        difference = read.images[places].astype(int) - array.images
        assert np.abs(difference).mean() < 3  # JPEG is not exact


def test_a_folder_with_the_one_array_is_that_array(npz, tmp_path):
    (tmp_path / "signs.npz").write_bytes(npz.read_bytes())
    assert read_photographs(tmp_path).origins == read_photographs(npz).origins
    (tmp_path / "other.npz").write_bytes(npz.read_bytes())  # which one?
    with pytest.raises(DataError, match="holds no Dataset"):
        read_photographs(tmp_path)


def test_photographs_without_names_are_numbered(npz, tmp_path):
    with np.load(npz) as stored:
        np.savez(tmp_path / "a.npz", images=stored["images"], labels=stored["labels"])
    origins = read_photographs(tmp_path / "a.npz").origins
    assert origins[SIGNS_PER_DIGIT] == f"1/{SIGNS_PER_DIGIT}"
    assert len(set(origins)) == len(origins)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 9, 9), np.uint8)}, "expected an .npz with the arrays images and"),
        ({"images": np.zeros((2, 9, 9)), "labels": [0, 1]}, r"float64 \(2, 9, 9\) with 2 labels"),
        ({"images": np.zeros((2, 9, 9), np.uint8), "labels": [0]}, r"\(2, 9, 9\) with 1 labels"),
        ({"images": np.zeros((2, 9), np.uint8), "labels": [0, 1]}, r"uint8 \(2, 9\) with 2 labels"),
        ({"images": np.zeros((2, 9, 9), np.uint8), "labels": [0, 10]}, "expected digits 0 to 9"),
        ({"images": np.array([None]), "labels": [0]}, "cannot be read"),
    ],
)
def test_an_array_of_another_kind_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=rf"a.npz: .*{message}"):
        read_photographs(tmp_path / "a.npz")


def test_what_is_missing_is_named_with_where_to_get_it(tmp_path):
    (tmp_path / "junk.npz").write_bytes(b"junk")
    for path in (tmp_path, tmp_path / "none", tmp_path / "none.npz", tmp_path / "junk.npz"):
        with pytest.raises(DataError, match=r"github.com/ardamavi/Sign-Language-Digits-Dataset"):
            read_photographs(path)
    with pytest.raises(DataError, match=r"--data PATH.*github.com/ardamavi"):
        load_corpus("signs", Request())


def test_the_camera_sees_hands_and_no_edge_of_the_photograph(tmp_path, monkeypatch):
    """A photograph of nothing but an even ground makes background events only."""
    monkeypatch.setenv("SPIKESHOT_CACHE", str(tmp_path / "cache"))
    images = np.full((2, 100, 100), 180, np.uint8)
    images[1] = photograph(3, 0)
    np.savez(tmp_path / "a.npz", images=images, labels=[0, 3])
    recordings = load_corpus("signs", Request(tmp_path / "a.npz", 0, 100_000))
    assert recordings.classes == CLASSES
    blank, hand = len(recordings[0]), len(recordings[1])
    expected = 34 * 34 * 0.44 * 0.1  # pixels, background events in Hz, seconds
    assert blank == pytest.approx(expected, abs=5 * expected**0.5)
    assert hand > 5 * blank


def test_pairs_are_split_as_published_and_recordings_too(source):
    config, found = source
    assert [len(found.split.classes[s]) for s in SPLITS] == [64, 16, 20]
    drawn = {}
    for s in SPLITS:
        space = task_space(config, found.recordings, found.split, s)
        assert space.frame_shape == (2, 16, 32)
        drawn[s] = {found.recordings.origins[i] for m in space.members.values() for i in m}
        left, right = (
            {int(plan.query[0, 0, side]) for plan in map(space.plan, range(60))} for side in (0, 1)
        )
        assert min(len(left), len(right)) > 5  # both halves vary
    assert (
        sum(map(len, drawn.values())) == len(set().union(*drawn.values())) == 10 * SIGNS_PER_DIGIT
    )


@pytest.mark.data
def test_the_photographs_at_hand_are_read(shared_data):
    file = shared_data / "sign_language_digits" / "sign_language_digits_gray100.npz"
    photographs = read_photographs(file)
    counts = np.bincount(photographs.labels)
    assert counts.tolist() == [205, 206, 206, 206, 207, 207, 207, 206, 208, 204]  # its README
    assert len(set(photographs.origins)) == 2_062
