"""N-MNIST's published layout: `Train|Test/<digit>/<number>.bin`, at any depth, 34 x 34 pixels.

Orchard et al. 2015, Frontiers in Neuroscience 9:437: 60,000 and 10,000 recordings.
"""

import re
from pathlib import Path

from spikeshot.data.events import Events, check_events
from spikeshot.data.readers.binary import decode_bin
from spikeshot.data.recordings import Recordings, gather_recordings
from spikeshot.data.samples import Collection, Sample
from spikeshot.data.tree import Tree, open_tree
from spikeshot.errors import DataError, LayoutError

SENSOR_SIZE = (34, 34)
CLASSES = tuple("0123456789")
MAX_BYTES = 5 * 2_000_000
"""Longest file accepted: 2,000,000 events; the longest published recording has about 8,200."""

_ENTRY = re.compile(r"(?:^|/)(Train|Test)/([0-9])/([0-9]+)\.bin$")


def list_nmnist(path: Path) -> Collection:
    """List the recordings under `path` (folder, zip or tar), in the order of their names.

    A recording's origin is its MNIST image, as `train/00001` (numbers start at 1, as published).
    Raises `DataError` for a missing path, a damaged or foreign archive, and two recordings of one
    image, which could stand in the support and in the query of one episode.
    """
    tree = open_tree(path)
    samples: dict[str, Sample] = {}  # by origin
    for name, _ in tree:
        match = _ENTRY.search(name)
        if match is None:
            continue
        part, digit, number = match.groups()
        origin = f"{part.lower()}/{int(number):05d}"
        if origin in samples:
            raise DataError(
                f"{path}: {name} and {samples[origin].name.removeprefix(f'{path}: ')} are both "
                f"recordings of MNIST image {origin}; expected one. Remove the copy."
            )
        samples[origin] = _sample(tree, name, digit, origin)
    if not samples:
        raise LayoutError(
            f"{path}: holds no Train|Test/<digit>/<number>.bin; expected N-MNIST's published "
            "layout. Point --data at the folder or zip that contains Train/ and Test/."
        )
    return Collection(tuple(samples.values()), CLASSES, SENSOR_SIZE)


def _sample(tree: Tree, name: str, digit: str, origin: str) -> Sample:
    def read() -> Events:
        events = decode_bin(tree.read(name, MAX_BYTES), tree.shown(name))
        check_events(events, SENSOR_SIZE, tree.shown(name))
        return events

    return Sample(tree.shown(name), digit, origin, read)


def read_nmnist(path: Path) -> Recordings:
    """Read every recording that `list_nmnist` lists; `DataError` for the first bad one."""
    found = list_nmnist(path)
    return gather_recordings(
        [sample.read() for sample in found.samples],
        [found.classes.index(sample.label) for sample in found.samples],
        found.classes,
        tuple(sample.origin for sample in found.samples),
        found.sensor_size,
        names=[sample.name for sample in found.samples],
    )
