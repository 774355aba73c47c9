"""The bridge to tonic, against a stand-in for the package: tonic itself is GPL-3.0 and not here."""

import sys
import types

import numpy as np
import pytest

from fakes import fake_recording
from spikeshot.data.corpora import Request, load_corpus
from spikeshot.errors import ConfigError, DataError

TONIC_DTYPE = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])  # as tonic.io's events


class Halves:
    """A data set with a training and a test half, classes listed beforehand."""

    sensor_size = (34, 34, 2)
    classes = ("no", "yes")
    reads = 0

    def __init__(self, save_to, train=True, transform=None):
        self.seed, self.targets = (1 if train else 2), [0, 1, 1] if train else [1]
        self.location_on_system = save_to

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        type(self).reads += 1
        return np.array(fake_recording(i, self.seed), TONIC_DTYPE), self.targets[i]


class Whole:
    """A data set in one part, of sound: no y, no polarity, seconds long, classes as words."""

    sensor_size = None

    def __init__(self, save_to):
        pass

    def __len__(self):
        return 2

    def __getitem__(self, i):
        rows = [(9_000_000.4, 5), (8_000_000.0, 7 + i)]  # not in order, from a running clock
        return np.array(rows, [("t", float), ("x", np.uint16)]), ("bee", "ant")[i]


class Frames(Whole):
    def __getitem__(self, i):
        return np.zeros((3, 2, 2)), 0


class Gone:
    def __init__(self, save_to):
        raise RuntimeError("Dataset not found or corrupted.")


@pytest.fixture
def tonic(monkeypatch, tmp_path):
    module, datasets = types.ModuleType("tonic"), types.ModuleType("tonic.datasets")
    module.__version__ = "0"
    for kind in (Halves, Whole, Frames, Gone):
        setattr(datasets, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "tonic", module)
    monkeypatch.setitem(sys.modules, "tonic.datasets", datasets)
    monkeypatch.setenv("SPIKESHOT_CACHE", str(tmp_path / "cache"))


def test_both_halves_with_their_classes_packed_once(tonic, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    recordings = load_corpus("tonic:Halves", Request(data))
    assert recordings.classes == ("no", "yes")
    assert recordings.labels.tolist() == [0, 1, 1, 1]
    assert recordings.origins[2:] == ("Halves/train/000002", "Halves/test/000000")
    assert recordings.sensor_size == (34, 34)
    for k, (digit, seed) in enumerate([(0, 1), (1, 1), (2, 1), (0, 2)]):
        assert recordings[k].tolist() == fake_recording(digit, seed)
    reads = Halves.reads
    assert load_corpus("tonic:Halves", Request(data)).digest == recordings.digest
    assert Halves.reads == reads
    (data / "a new file").write_text("of the data set")
    load_corpus("tonic:Halves", Request(data))
    assert Halves.reads > reads


def test_sound_in_no_order_from_a_running_clock_without_a_size(tonic):
    recordings = load_corpus("tonic:Whole", Request())
    assert recordings.classes == ("ant", "bee")
    assert recordings.labels.tolist() == [1, 0]
    assert recordings[1].tolist() == [(8, 0, 0, 1), (5, 0, 1_000_000, 1)]
    assert recordings.sensor_size == (9, 1)


def test_what_tonic_does_not_have_or_cannot_open(tonic, tmp_path):
    with pytest.raises(ConfigError, match=r"no data set 'Halfs' \(did you mean 'Halves'\?\)"):
        load_corpus("tonic:Halfs", Request())
    with pytest.raises(DataError, match=r"tonic cannot open it in .*Dataset not found or corrupt"):
        load_corpus("tonic:Gone", Request(tmp_path))
    with pytest.raises(DataError, match="Frames/all/000000: tonic gives ndarray; expected events"):
        load_corpus("tonic:Frames", Request())


def test_without_tonic_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tonic.datasets", None)  # as if it were not installed
    with pytest.raises(DataError, match=r"needs the package tonic.* Run: pip install tonic"):
        load_corpus("tonic:NMNIST", Request())
