"""Omniglot's strokes with the time they took, replayed as a pen that writes on a screen.

Of Lake, Salakhutdinov & Tenenbaum, Science 350(6266) (2015), the two small background sets are
published with timed strokes: 242 characters of 8 alphabets by 20 people each. One text file is one
drawing: `START`, then `x,y,t` per line (pixels of the 105 x 105 image, y negative and going down,
t in milliseconds), and `BREAK` after each stroke.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.corpora.corpus import Request
from spikeshot.data.corpora.omniglot import SIDE, number_labels
from spikeshot.data.events import Events
from spikeshot.data.published import Wanted, list_originals, read_files
from spikeshot.data.recordings import Recordings
from spikeshot.data.samples import Collection, Originals, Sample
from spikeshot.data.store import packed
from spikeshot.data.turns import QUARTERS, turned_class
from spikeshot.errors import DataError

MAX_BYTES = 1_000_000  # of a file; the longest published one has 14,000
MAX_MS = 86_400_000  # a day: the slowest published drawing takes five minutes
MAX_PLACE = 1_000  # pixels off the image's corner

_WANTED = Wanted(
    re.compile(r"(?:^|/)strokes_\w+/([^/]+)/(character\d+)/\d+_(\d+)\.txt$"),
    re.compile(r"strokes_\w+\.zip"),
    MAX_BYTES,
    "strokes_background_small1/<alphabet>/character<NN>/<NNNN>_<DD>.txt, folder or zip",
    "Download strokes_background_small1.zip and strokes_background_small2.zip from "
    "github.com/brendenlake/omniglot (folder python) and point --data at their folder.",
)


@dataclass(frozen=True)
class Writing:
    """Drawings as strokes, the class of each, and its origin: those of `omniglot.Drawings`.

    A stroke is [points, 3]: x, y (down the page) in pixels of the 105 x 105 image, and t in
    microseconds.
    """

    strokes: tuple[tuple[NDArray[np.float64], ...], ...]
    labels: tuple[str, ...]
    origins: tuple[str, ...]


def parse_strokes(text: str, name: str) -> tuple[NDArray[np.float64], ...]:
    """Return the strokes of one file; raises `DataError`, naming `name`, for another format."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != "START":
        raise DataError(f"{name}: does not begin with START; expected Omniglot's strokes. {_AGAIN}")
    strokes: list[NDArray[np.float64]] = []
    points: list[tuple[float, float, float]] = []
    for number, line in enumerate(lines[1:], start=2):
        if line.strip() == "BREAK":
            if points:
                strokes.append(np.array(points))
            points = []
        elif line.strip():
            points.append(_parse_point(line, f"{name}, line {number}"))
    if points:
        raise DataError(f"{name}: its last stroke has no BREAK: the file is cut short. {_AGAIN}")
    if not strokes:
        raise DataError(f"{name}: no stroke in it; expected at least one. {_AGAIN}")
    return tuple(strokes)


_AGAIN = "Fetch it again."


def _parse_point(line: str, where: str) -> tuple[float, float, float]:
    try:
        x, y, t = map(float, line.split(","))
    except ValueError:
        raise DataError(
            f"{where} is {line[:60]!r}; expected x,y,t in numbers, or BREAK. {_AGAIN}"
        ) from None
    if not (abs(x) <= MAX_PLACE and abs(y) <= MAX_PLACE and 0 <= t <= MAX_MS):  # nor NaN
        raise DataError(
            f"{where} is {line[:60]!r}; expected places within {MAX_PLACE} pixels and times from 0 "
            f"to {MAX_MS} ms. {_AGAIN}"
        )
    return x, -y, 1_000 * t


def read_strokes(path: Path) -> Writing:
    """Return the drawings under `path`, in order of alphabet, character and drawer.

    `path`: a folder that holds the two zips, one zip, or the unpacked folder. Raises `DataError`
    for a file of another format, and where there is none.
    """
    files = read_files(path, _WANTED)
    return Writing(
        tuple(_parse(raw, name) for name, raw in files.values()),
        tuple(f"{alphabet}/{character}" for alphabet, character, _ in files),
        tuple("/".join(key) for key in files),
    )


def list_writing(path: Path) -> Originals:
    """List the drawings under `path` one by one, for a check; as `read_strokes` otherwise."""

    def content(raw: bytes, name: str) -> bytes:
        return b"/".join(stroke.tobytes() for stroke in _parse(raw, name))

    return list_originals(path, _WANTED, "drawing", content)


def _parse(raw: bytes, name: str) -> tuple[NDArray[np.float64], ...]:
    return parse_strokes(raw.decode("utf-8", "replace"), name)


def turn_strokes(
    strokes: tuple[NDArray[np.float64], ...], quarters: int
) -> tuple[NDArray[np.float64], ...]:
    """Return strokes turned by right angles, counter-clockwise as `numpy.rot90` turns an image."""
    for _ in range(quarters):
        strokes = tuple(np.stack([s[:, 1], SIDE - s[:, 0], s[:, 2]], axis=1) for s in strokes)
    return strokes


def turn_writing(writing: Writing, turned: frozenset[str]) -> Writing:
    """Return the drawings of the classes `turned`, by one, two and three right angles."""
    mine = [i for i, label in enumerate(writing.labels) if label in turned]
    return Writing(
        tuple(turn_strokes(writing.strokes[i], q) for q in QUARTERS for i in mine),
        tuple(turned_class(writing.labels[i], q) for q in QUARTERS for i in mine),
        tuple(writing.origins[i] for _ in QUARTERS for i in mine),
    )


def load_omniglot_strokes(request: Request) -> Recordings:
    """Return the recordings of the strokes at `request.path`."""
    assert request.path is not None  # load_corpus has checked
    return pack_writing("omniglot-strokes", read_strokes(request.path), request)


def pack_writing(name: str, writing: Writing, request: Request) -> Recordings:
    """Return the recordings of `writing` as `request` asks for them, from the pack of `name`."""
    from spikeshot.data.pen import PEN_VERSION, SCREEN_CAMERA, Pen  # brings numba: when needed

    recipe = (PEN_VERSION, SCREEN_CAMERA, Pen(), _digest(writing), request.seed, request.until_us)
    if request.turned:
        writing = turn_writing(writing, request.turned)
    return packed(
        name,
        (*recipe, sorted(request.turned)),
        lambda: show_writing(writing, request.seed, request.until_us),
        request.progress,
    )


def show_writing(writing: Writing, seed: int, until_us: int | None = None) -> Collection:
    """Return one recording of each drawing, of its first `until_us` microseconds, yet to be made.

    A recording depends on nothing but its strokes, `seed`, and its class and origin.
    """
    from spikeshot.data.camera import pixel_thresholds
    from spikeshot.data.pen import SCREEN_CAMERA, Pen, write  # brings numba: only when needed

    thresholds, pen = pixel_thresholds(SCREEN_CAMERA), Pen()

    def made(i: int) -> Callable[[], Events]:
        stream = f"{seed}\0{writing.labels[i]} {writing.origins[i]}".encode()
        number = int.from_bytes(hashlib.blake2b(stream, digest_size=8).digest(), "little")
        return lambda: write(
            writing.strokes[i],
            pen=pen,
            camera=SCREEN_CAMERA,
            seed=number,
            thresholds=thresholds,
            until_us=until_us,
        )

    samples = tuple(
        Sample(origin, label, origin, made(i))
        for i, (label, origin) in enumerate(zip(writing.labels, writing.origins, strict=True))
    )
    return Collection(samples, number_labels(writing.labels)[0], SCREEN_CAMERA.sensor_size)


def _digest(writing: Writing) -> str:
    h = hashlib.blake2b(digest_size=16)
    for strokes in writing.strokes:
        for stroke in strokes:
            h.update(stroke.tobytes())
            h.update(b"/")
        h.update(b"\n")
    h.update(repr((writing.labels, writing.origins)).encode())
    return h.hexdigest()
