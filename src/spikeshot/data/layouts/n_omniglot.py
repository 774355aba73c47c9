"""N-Omniglot's published layout and its converted form, 346 x 260 pixels.

Li et al., "N-Omniglot, a large-scale neuromorphic dataset for spatio-temporal sparse few-shot
learning", Scientific Data 9, 746 (2022), doi.org/10.6084/m9.figshare.16821427; facts of the
layout from the authors' loaders (github.com/BrainCog-X/Brain-Cog, braincog/datasets/NOmniglot):

- published: `dvs_background[_1|_2]|dvs_evaluation/<alphabet>/character<NN>/<NNNN>.aedat4`, 20
  samples in a file, and beside it `<NNNN>.csv`: a line of names, then one line a sample whose
  second and third columns are the timestamps (microseconds, as in the file) where it starts
  (included) and ends (not).
- converted: `[events_npy/]background|evaluation/<alphabet>/character<NN>/<NNNN>_<DD>.npy`, one
  sample in a file: a pickled dictionary of arrays t, x, y, p, read without unpickling.

`<NNNN>_<DD>` is the name of the drawing in Omniglot, DD its drawer. Verified on generated files
of these names and types only: no published file was at hand.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from spikeshot.data.events import Events, check_events
from spikeshot.data.layouts.fitting import between, from_zero
from spikeshot.data.readers import ReadOptions, read_events
from spikeshot.data.samples import Collection, Sample
from spikeshot.data.tree import Tree, open_tree
from spikeshot.errors import DataError, LayoutError

SENSOR_SIZE = (346, 260)
CROP = (53, 3, 252, 252)
"""(left, top, width, height): the usual window, rows 4 to 253 and columns 54 to 303, and one pixel
more at each side: by `downsample` 9 it gives 28 x 28. The whole sensor by 10 gives 34 x 26."""
SAMPLES_PER_FILE = 20
_MAX_TABLE_BYTES = 1 << 16
_CHARACTER = r"(?:^|/)(?:dvs_)?(background|evaluation)(?:_[12])?/([^/]+/character[0-9]+)/"
_PUBLISHED = re.compile(_CHARACTER + r"([0-9]{4})\.aedat4$")
_CONVERTED = re.compile(_CHARACTER + r"([0-9]{4})_([0-9]{2})\.npy$")


def list_n_omniglot(path: Path, *, sort: bool = False) -> Collection:
    """List the samples under `path` (folder, zip or tar), in the order of files, then of drawers.

    A class is `<alphabet>/character<NN>`, an origin `<alphabet>/character<NN>/<NNNN>_<DD>`; the
    time of a sample starts at its first event. `sort` puts events in order of time. Which
    alphabets are background and which evaluation is told by their names (the published split).
    Raises `DataError` for a path or archive that holds none, and for a drawing that is there twice.
    """
    tree = open_tree(path)
    options = ReadOptions(sort=sort)
    recording = _recordings(tree, options)
    samples: dict[str, Sample] = {}  # by origin
    for name, _ in tree:
        for sample in _samples_of(tree, name, recording, options):
            if sample.origin in samples:
                raise DataError(
                    f"{path}: drawing {sample.origin} is there twice, as {sample.name} and as "
                    f"{samples[sample.origin].name}; expected it once. Give either the published "
                    "or the converted files."
                )
            samples[sample.origin] = sample
    if not samples:
        rars = [name for name, _ in tree if name.lower().endswith(".rar")]
        inside = f" Unpack {rars[0]} first (unrar)." if rars else ""
        raise LayoutError(
            f"{path}: holds no dvs_background/<alphabet>/character<NN>/<NNNN>.aedat4; expected "
            "N-Omniglot's published layout, or its .npy form. Point --data at the "
            f"folder that contains dvs_background.{inside}"
        )
    classes = tuple(dict.fromkeys(sample.label for sample in samples.values()))
    return Collection(tuple(samples.values()), classes, SENSOR_SIZE)


def _samples_of(
    tree: Tree, name: str, recording: Callable[[str], Events], options: ReadOptions
) -> list[Sample]:
    if match := _PUBLISHED.search(name):
        _, character, number = match.groups()
        return [
            _published(tree, name, f"{character}/{number}_{i + 1:02d}", i, recording)
            for i in range(SAMPLES_PER_FILE)
        ]
    if match := _CONVERTED.search(name):
        _, character, number, drawer = match.groups()
        return [_converted(tree, name, f"{character}/{number}_{drawer}", options)]
    return []


def _recordings(tree: Tree, options: ReadOptions) -> Callable[[str], Events]:
    """Return what reads a whole file and keeps the last one, as its 20 samples come in a row."""

    @lru_cache(maxsize=1)
    def read(name: str) -> Events:
        raw = tree.read(name)
        return read_events(tree.shown(name), raw, sensor_size=SENSOR_SIZE, options=options)[0]

    return read


def _published(
    tree: Tree, name: str, origin: str, row: int, recording: Callable[[str], Events]
) -> Sample:
    shown = f"{tree.shown(name)}, sample {row + 1}"

    def read() -> Events:
        start_us, end_us = _window(tree, name.removesuffix(".aedat4") + ".csv", row)
        events = between(recording(name), start_us, end_us)
        check_events(events, SENSOR_SIZE, shown)
        return from_zero(events)

    return Sample(shown, origin.rpartition("/")[0], origin, read)


def _converted(tree: Tree, name: str, origin: str, options: ReadOptions) -> Sample:
    shown = tree.shown(name)

    def read() -> Events:
        raw = tree.read(name)
        return from_zero(read_events(shown, raw, sensor_size=SENSOR_SIZE, options=options)[0])

    return Sample(shown, origin.rpartition("/")[0], origin, read)


def _window(tree: Tree, table: str, row: int) -> tuple[int, int]:
    """Return when sample `row` starts and ends, in microseconds, from the table beside its file."""
    shown = tree.shown(table)
    if table not in tree.entries:
        raise DataError(f"{shown}: missing; expected the table of start and end times beside it.")
    text = tree.read(table, _MAX_TABLE_BYTES).decode("utf-8-sig", "replace")
    rows = [line.split(",") for line in text.splitlines() if line.strip()][1:]
    if len(rows) < SAMPLES_PER_FILE:
        raise DataError(
            f"{shown}: {len(rows)} lines after the first; expected {SAMPLES_PER_FILE}, one a "
            "sample. Fetch it again."
        )
    words = [word.strip() for word in rows[row][1:3]]
    if len(words) != 2 or not all(re.fullmatch(r"[0-9]{1,18}(\.0)?", word) for word in words):
        raise DataError(
            f"{shown}: sample {row + 1} has {words} for start and end; expected two whole numbers "
            "of microseconds in columns 2 and 3. Fetch it again."
        )
    start_us, end_us = (int(word.removesuffix(".0")) for word in words)
    return start_us, end_us
