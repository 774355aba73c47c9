"""A second reader of the same real files: tonic, in tests only, never in the package."""

import zipfile

import numpy as np
import pytest

from spikeshot.data.layouts.nmnist import list_nmnist
from spikeshot.data.readers import read_events

pytestmark = [
    pytest.mark.data,
    pytest.mark.filterwarnings("ignore"),  # of tonic and what it imports
]
XYTP = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])


@pytest.fixture(scope="module")
def tonic_io():
    pytest.importorskip("tonic", reason="no second reader: tonic is not installed")
    import tonic.io

    return tonic.io


def rows(events):
    """Return tonic's events as (x, y, t, p)."""
    columns = [np.asarray(events[c]).astype(np.int64).tolist() for c in "xytp"]
    return list(zip(*columns, strict=True))


def test_real_nmnist_recordings_and_their_names(tonic_io, shared_data, tmp_path):
    """Every eighth of 880; the class is the folder's name, as tonic's N-MNIST takes it."""
    place = shared_data / "nmnist" / "N-MNIST-small.zip"
    found = list_nmnist(place)
    assert len(found.samples) == 880
    with zipfile.ZipFile(place) as archive:
        for sample in found.samples[::8]:
            name = archive.extract(sample.name.split(": ", 1)[1], tmp_path)
            assert sample.read().tolist() == rows(tonic_io.read_mnist_file(name, XYTP))
            assert sample.label == name.split("/")[-2]


def test_other_formats(tonic_io, shared_data):
    folder = shared_data / "event_samples"

    def ours(name):
        return read_events(name, (folder / name).read_bytes())[0].tolist()

    name = "sample_nmnist.bin"
    assert ours(name) == rows(tonic_io.read_mnist_file(str(folder / name), XYTP))
    name = "sample.aedat4"
    assert ours(name) == rows(tonic_io.read_aedat4(str(folder / name)))


def test_prophesee_dat_by_the_reader_that_tonic_uses(tonic_io, shared_data):
    from expelliarmus import Wizard

    name = "sample_ncars.dat"
    file = shared_data / "event_samples" / name
    theirs = Wizard(encoding="dat").read(file)
    assert read_events(name, file.read_bytes())[0].tolist() == rows(theirs)
