"""Omniglot's drawings of characters, which the camera sees through saccades.

Lake, Salakhutdinov & Tenenbaum, "Human-level concept learning through probabilistic program
induction", Science 350(6266) (2015): 1,623 characters of 50 alphabets, each drawn by 20 people.
A drawing of 105 x 105 is shown as N-MNIST showed its digits: 28 x 28 image pixels, each the mean
over its area, dark ink on bright paper, through N-MNIST's camera and saccades.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.corpora.corpus import Request
from spikeshot.data.pictures import area_mean, decode_grey, require_contrast
from spikeshot.data.published import Wanted, list_originals, read_files
from spikeshot.data.recordings import Recordings
from spikeshot.data.samples import Originals
from spikeshot.data.store import packed
from spikeshot.data.turns import QUARTERS, turned_class
from spikeshot.errors import DataError

SIDE = 105  # pixels of a drawing
SHOWN = 28  # image pixels of a drawing as it is shown to the camera
MAX_BYTES = 1_000_000  # of a file; a published drawing has about 300

_WANTED = Wanted(
    re.compile(r"(?:^|/)images_\w+/([^/]+)/(character\d+)/\d+_(\d+)\.png$"),
    re.compile(r"images_\w+\.zip"),
    MAX_BYTES,
    "images_background/<alphabet>/character<NN>/<NNNN>_<DD>.png, folder or zip",
    "Download images_background.zip from github.com/brendenlake/omniglot (folder python) and "
    "point --data at it.",
)


@dataclass(frozen=True)
class Drawings:
    """Images [n, 105, 105] (ink 255, paper 0), the class of each, and its origin.

    A class is `<alphabet>/character<NN>`; an origin is class and drawer, as `Latin/character01/07`.
    """

    images: NDArray[np.uint8]
    labels: tuple[str, ...]
    origins: tuple[str, ...]


def read_drawings(path: Path) -> Drawings:
    """Return the drawings under `path`, in order of alphabet, character and drawer.

    `path`: the published folder, its zip, or a folder that holds zips. Raises `DataError` for a
    drawing that is none, and where there is none.
    """
    files = read_files(path, _WANTED)
    images = np.empty((len(files), SIDE, SIDE), np.uint8)
    for image, (name, raw) in zip(images, files.values(), strict=True):
        image[:] = 255 - _decode(raw, name)
    labels = tuple(f"{alphabet}/{character}" for alphabet, character, _ in files)
    return Drawings(images, labels, tuple("/".join(key) for key in files))


def list_drawings(path: Path) -> Originals:
    """List the drawings under `path` one by one, for a check; as `read_drawings` otherwise."""

    def content(raw: bytes, name: str) -> bytes:
        grey = _decode(raw, name)
        require_contrast(grey, name)
        return grey.tobytes()

    return list_originals(path, _WANTED, "drawing", content)


def _decode(raw: bytes, name: str) -> NDArray[np.uint8]:
    """Return the grey values [105, 105] of a drawing's file."""
    grey = decode_grey(raw, name)
    if grey.shape != (SIDE, SIDE):
        raise DataError(
            f"{name}: {grey.shape[1]} x {grey.shape[0]} pixels; expected {SIDE} x {SIDE}, an "
            f"Omniglot drawing. {_WANTED.remedy}"
        )
    return grey


def show(drawings: Drawings, turned: frozenset[str] = frozenset()) -> Drawings:
    """Return the drawings as they are shown, [n, 28, 28].

    With `turned`, those of these classes only, each turned by one, two and three right angles;
    the turned drawing keeps its origin.
    """
    small = area_mean(drawings.images, SHOWN, SHOWN)
    if not turned:
        return Drawings(small, drawings.labels, drawings.origins)
    mine = [i for i, label in enumerate(drawings.labels) if label in turned]
    return Drawings(
        np.concatenate([np.rot90(small[mine], q, axes=(1, 2)) for q in QUARTERS]),
        tuple(turned_class(drawings.labels[i], q) for q in QUARTERS for i in mine),
        tuple(drawings.origins[i] for _ in QUARTERS for i in mine),
    )


def load_omniglot(request: Request) -> Recordings:
    """Return the recordings of the drawings at `request.path`."""
    assert request.path is not None  # load_corpus has checked
    from spikeshot.data.simulate import (  # brings numba: only when needed
        SIMULATION_VERSION,
        Camera,
        Saccades,
    )

    drawings = read_drawings(request.path)
    camera, motion = Camera(), Saccades()
    until_us = min(request.until_us or motion.duration_us, motion.duration_us)
    recipe = (SIMULATION_VERSION, camera, motion, _digest(drawings), SHOWN, request.seed, until_us)
    return packed(
        "omniglot",
        (*recipe, sorted(request.turned)),
        lambda: record(show(drawings, request.turned), request.seed, until_us),
    )


def record(shown: Drawings, seed: int, until_us: int) -> Recordings:
    """Return one recording of each image, of its first `until_us` microseconds.

    A recording depends on nothing but its image, `seed`, and its class and origin.
    """
    from spikeshot.data.simulate import simulate  # brings numba: only when needed

    streams = [f"{label} {o}" for label, o in zip(shown.labels, shown.origins, strict=True)]
    classes, numbers = number_labels(shown.labels)
    simulated = simulate(shown.images, numbers, classes, streams, seed=seed, duration_us=until_us)
    return Recordings(
        simulated.events,
        simulated.offsets,
        simulated.labels,
        classes,
        shown.origins,
        simulated.sensor_size,
    )


def number_labels(labels: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """Return the classes among `labels`, sorted, and the number of each label's class."""
    classes = tuple(sorted(set(labels)))
    number = {name: i for i, name in enumerate(classes)}
    return classes, [number[label] for label in labels]


def _digest(drawings: Drawings) -> str:
    h = hashlib.blake2b(drawings.images.tobytes(), digest_size=16)
    h.update(repr((drawings.labels, drawings.origins)).encode())
    return h.hexdigest()
