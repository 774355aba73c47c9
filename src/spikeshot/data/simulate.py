"""Images become recordings: a camera of `camera.py` watches them move as in `saccades.py`."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.camera import Camera, decode_keys, pixel_rule, pixel_thresholds
from spikeshot.data.camera_kernels import MIN_GAIN, STEP_US, Scene, watch_images
from spikeshot.data.events import Events
from spikeshot.data.recordings import Recordings, gather_recordings
from spikeshot.data.saccades import Saccades, displacement
from spikeshot.errors import DataError

__all__ = ["SIMULATION_VERSION", "Camera", "Saccades", "simulate"]

SIMULATION_VERSION = 1  # goes up whenever the same arguments come to give other events
CHUNK = 256  # recordings simulated at once: bounds memory, changes no result


def simulate(
    images: NDArray[np.uint8],
    labels: Sequence[int],
    classes: Sequence[str],
    origins: Sequence[str],
    *,
    camera: Camera | None = None,
    motion: Saccades | None = None,
    seed: int,
    duration_us: int | None = None,
) -> Recordings:
    """Return one simulated recording per image.

    images: [n, H, W] uint8. `camera` and `motion` default to N-MNIST's. Recording i depends on
    nothing but its image, `camera`, `motion` and `(seed, origins[i])`: any subset of images, in
    any order, gives the same recordings. `duration_us` ends them early, with exactly those
    events of the full recordings that come before it. Raises `DataError` for arrays of another
    shape or dtype, lists of unequal length, and a recording without any event.
    """
    camera, motion = camera or Camera(), motion or Saccades()
    duration_us = motion.duration_us if duration_us is None else duration_us
    _check(images, labels, origins, duration_us)
    samples: list[Events] = []
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        samples += _simulate_chunk(images[part], origins[part], camera, motion, seed, duration_us)
    return gather_recordings(samples, labels, classes, origins, camera.sensor_size)


def _check(images: Any, labels: Sequence[int], origins: Sequence[str], duration_us: int) -> None:
    if not isinstance(images, np.ndarray) or images.ndim != 3 or images.dtype != np.uint8:
        found = f"{getattr(images, 'dtype', type(images))} {np.shape(images)}"
        raise DataError(
            f"images are {found}; expected a uint8 array [n, H, W]. Convert them to grey 0..255."
        )
    if not len(images) == len(labels) == len(origins):
        raise DataError(
            f"{len(images)} images, {len(labels)} labels and {len(origins)} origins; expected "
            "as many of each. Give one label and one origin per image."
        )
    if duration_us < 1:
        raise DataError(f"duration_us is {duration_us}; expected 1 us or more.")


def _recording_seed(seed: int, origin: str) -> int:
    digest = hashlib.blake2b(f"{seed}\0{origin}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _draw_normals(seeds: NDArray[np.uint64], n: int) -> NDArray[np.float64]:
    """Return `n` standard normal numbers for each recording."""
    return np.array([np.random.default_rng(seed).standard_normal(n) for seed in seeds])


def _simulate_chunk(
    images: NDArray[np.uint8],
    origins: Sequence[str],
    camera: Camera,
    motion: Saccades,
    seed: int,
    duration_us: int,
) -> list[Events]:
    """Return the events of each image: see `simulate`."""
    seeds = np.array([_recording_seed(seed, origin) for origin in origins], np.uint64)
    normals = _draw_normals(seeds, 3 + len(motion.jitter_us))
    at = np.arange(math.ceil(duration_us / STEP_US) + 1) * STEP_US
    paths = np.empty((len(images), len(at), 2))
    for path, z in zip(paths, normals, strict=True):
        path[:] = np.stack(displacement(motion, at, z[3:] * motion.jitter_us), axis=1)
        path += np.asarray(motion.origin) + motion.jitter_px * z[1:3]
    drifts = np.maximum(1.0 + camera.drift * normals[:, 0], MIN_GAIN)
    scene = Scene(camera.paper, camera.ink, camera.gamma, camera.blur_px, motion.scale)
    rule = pixel_rule(camera, STEP_US, duration_us)
    room = 8_192
    while True:
        keys = np.empty((len(images), room), np.int64)
        counts = watch_images(
            images, paths, drifts, seeds, scene, pixel_thresholds(camera), rule, keys
        )
        if counts.max() <= room:
            break
        room = int(counts.max())
    rows = zip(keys, counts, strict=True)
    return [decode_keys(row[:count], camera.sensor_size) for row, count in rows]
