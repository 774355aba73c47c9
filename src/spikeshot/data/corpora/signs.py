"""Photographs of hand signs, which the camera sees through saccades.

The Sign Language Digits Dataset: Mavi, "A New Dataset and Proposed Convolutional Neural Network
Architecture for Classification of American Sign Language Digits", arXiv:2011.08927 (2020): 2,062
photographs of hands that show 0 to 9. Two side by side are a class of Double Signs, a stand-in for
Double ASL-DVS, whose recordings not everyone can get. Who is who on them is not known: recordings
are split by photograph, not by person. A photograph is larger than the sensor sees
and its values are luminances, unlike those of N-MNIST's digits: bright hands on a bright ground.
"""

import hashlib
import re
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.corpora.corpus import Request
from spikeshot.data.pictures import area_mean, decode_grey, require_contrast
from spikeshot.data.published import Wanted, list_originals, read_files
from spikeshot.data.recordings import Recordings
from spikeshot.data.samples import Original, Originals
from spikeshot.data.store import packed
from spikeshot.errors import DataError

CLASSES = tuple("0123456789")
SHOWN = 32  # image pixels of a photograph as it is shown: as many sensor pixels
EDGE = 6  # image pixels by which its edge is carried on, so that the sensor sees nothing else
MAX_BYTES = 20_000_000  # of a photograph

_WANTED = Wanted(
    re.compile(r"(?:^|/)([0-9])/([^/]+)\.(?i:jpe?g|png)$"),
    re.compile(r"Sign-Language-Digits-Dataset[^/]*\.zip"),
    MAX_BYTES,
    "Dataset/<digit>/<name>.JPG, folder or zip",
    "Download github.com/ardamavi/Sign-Language-Digits-Dataset and point --data at it.",
)


@dataclass(frozen=True)
class Photographs:
    """Images [n, 32, 32] of grey values, the digit of each, and its origin (`3/IMG_1234`)."""

    images: NDArray[np.uint8]
    labels: tuple[int, ...]
    origins: tuple[str, ...]


def read_photographs(path: Path) -> Photographs:
    """Return the photographs under `path`, each the mean over areas of 32 x 32.

    `path`: the published folder, its zip, or an .npz (or a folder with one) with `images` [n, H, W]
    uint8, `labels` [n] and, if any, `names` [n]. Raises `DataError` for what is none of them.
    """
    if stored := _stored(path):
        images, labels, origins = _load_npz(stored)
        return Photographs(area_mean(images, SHOWN, SHOWN), labels, origins)
    files = read_files(path, _WANTED)
    images = np.concatenate(
        [area_mean(decode_grey(raw, name)[None], SHOWN, SHOWN) for name, raw in files.values()]
    )
    return Photographs(
        images, tuple(int(digit) for digit, _ in files), tuple("/".join(key) for key in files)
    )


def list_photographs(path: Path) -> Originals:
    """List the photographs under `path` one by one, for a check; else as `read_photographs`."""

    def content(grey: NDArray[np.uint8], name: str) -> bytes:
        require_contrast(grey, name)
        return f"{grey.shape} ".encode() + grey.tobytes()

    def item(i: int, image: NDArray[np.uint8], origin: str) -> Original:
        name = f"{path}: photograph {i} ({origin})"
        return Original(name, (str(i),), lambda: content(image, name))

    if stored := _stored(path):
        images, _, origins = _load_npz(stored)
        pairs = enumerate(zip(images, origins, strict=True))
        return Originals("photograph", tuple(item(i, *pair) for i, pair in pairs))
    return list_originals(
        path, _WANTED, "photograph", lambda raw, name: content(decode_grey(raw, name), name)
    )


def _stored(path: Path) -> Path | None:
    """Return the .npz that `path` is, or that alone lies in the folder `path`."""
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        return files[0] if len(files) == 1 else None
    return path if path.suffix == ".npz" else None


def _load_npz(path: Path) -> tuple[NDArray[np.uint8], tuple[int, ...], tuple[str, ...]]:
    """Return images [n, H, W], the digit of each and its origin."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            images, labels = stored["images"], stored["labels"]
            names = stored["names"] if "names" in stored else np.arange(len(labels)).astype(str)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); expected an .npz with the arrays images and "
            f"labels. {_WANTED.remedy}"
        ) from error
    if images.ndim != 3 or images.dtype != np.uint8 or not len(images) == len(labels) == len(names):
        raise DataError(
            f"{path}: images are {images.dtype} {images.shape} with {len(labels)} labels; expected "
            "uint8 [n, H, W] with n labels. Convert them to grey 0..255."
        )
    if not np.isin(labels, np.arange(10)).all():
        raise DataError(f"{path}: labels are {np.unique(labels)[:12]}; expected digits 0 to 9.")
    origins = [f"{d}/{str(n).rpartition('.')[0] or n}" for d, n in zip(labels, names, strict=True)]
    return images, tuple(map(int, labels)), tuple(origins)


def load_signs(request: Request) -> Recordings:
    """Return the recordings of the photographs at `request.path`."""
    assert request.path is not None  # load_corpus has checked
    from spikeshot.data.simulate import (  # brings numba: only when needed
        SIMULATION_VERSION,
        Camera,
        Saccades,
        simulate,
    )

    photographs = read_photographs(request.path)
    camera = replace(Camera(), paper=0.03, ink=1.0, gamma=2.2)  # sRGB's gamma, and some stray light
    centre = (camera.sensor_size[0] - SHOWN) / 2
    motion = replace(Saccades(), origin=(centre - EDGE, centre - EDGE), scale=1.0)
    until_us = min(request.until_us or motion.duration_us, motion.duration_us)
    content = hashlib.blake2b(photographs.images.tobytes(), digest_size=16)
    content.update(repr((photographs.labels, photographs.origins)).encode())
    recipe = (SIMULATION_VERSION, camera, motion, content.hexdigest(), request.seed, until_us)
    edge = ((0, 0), (EDGE, EDGE), (EDGE, EDGE))
    return packed(
        "signs",
        (*recipe, EDGE),
        lambda: simulate(
            np.pad(photographs.images, edge, mode="edge"),
            photographs.labels,
            CLASSES,
            photographs.origins,
            camera=camera,
            motion=motion,
            seed=request.seed,
            duration_us=until_us,
        ),
    )
