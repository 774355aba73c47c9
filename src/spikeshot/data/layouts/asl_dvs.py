"""ASL-DVS's published layout: a folder a letter, a `.mat` file a recording, 240 x 180 pixels.

Bi et al., "Graph-based Object Classification for Neuromorphic Vision Sensing", ICCV 2019,
https://github.com/PIX2NVS/NVS2Graph: letters a to y without j, 4,200 recordings of about 100 ms
each. A file holds the variables `ts` (microseconds), `x`, `y` and `pol` (as read by tonic's and
SpikingJelly's loaders, which turn the picture upright, one by y and the other by x and y; here
events stay as they are stored). Verified on generated files of these names and types only: no
published file was at hand.
"""

import re
from pathlib import Path

from spikeshot.data.events import Events
from spikeshot.data.layouts.fitting import from_zero
from spikeshot.data.readers import ReadOptions, read_events
from spikeshot.data.samples import Collection, Sample
from spikeshot.data.tree import Tree, open_tree
from spikeshot.errors import DataError, LayoutError

SENSOR_SIZE = (240, 180)
LETTERS = tuple("abcdefghiklmnopqrstuvwxy")
"""24 letters: j and z are movements, not hand shapes."""

_ENTRY = re.compile(r"(?:^|/)([a-ik-yA-IK-Y])/([^/]+)\.mat$")


def list_asl_dvs(path: Path, *, sort: bool = False) -> Collection:
    """List the recordings under `path` (folder, zip or tar), in the order of their names.

    A recording's origin is its file, as `a/a_0001`; its time starts at its first event. `sort`
    puts events in order of time. Raises `DataError` for a path or archive that holds none.
    """
    tree = open_tree(path)
    options = ReadOptions(sort=sort)
    samples: dict[str, Sample] = {}  # by origin
    for name, _ in tree:
        match = _ENTRY.search(name)
        if match is None:
            continue
        letter = match.group(1).lower()
        origin = f"{letter}/{match.group(2)}"
        if origin in samples:
            raise DataError(
                f"{path}: {name} and {samples[origin].name.removeprefix(f'{path}: ')} are both "
                f"recording {origin}; expected one. Remove the copy."
            )
        samples[origin] = _sample(tree, name, letter, origin, options)
    if not samples:
        zips = [name for name, _ in tree if name.lower().endswith(".zip")]
        inside = f" Unpack {zips[0]} and the other archives in it first." if zips else ""
        raise LayoutError(
            f"{path}: holds no <letter>/<recording>.mat; expected ASL-DVS's published layout. "
            f"Point --data at the folder or zip that contains the folders a to y.{inside}"
        )
    return Collection(tuple(samples.values()), LETTERS, SENSOR_SIZE)


def _sample(tree: Tree, name: str, letter: str, origin: str, options: ReadOptions) -> Sample:
    def read() -> Events:
        shown = tree.shown(name)
        events, _ = read_events(shown, tree.read(name), sensor_size=SENSOR_SIZE, options=options)
        return from_zero(events)

    return Sample(tree.shown(name), letter, origin, read)
