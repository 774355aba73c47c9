"""Images become recordings: a camera of `camera.py` watches them move as in `saccades.py`."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from spikeshot.data.camera import (
    MIN_GAIN,
    Camera,
    decode_keys,
    jit,
    pixel_rule,
    pixel_seed,
    pixel_thresholds,
    watch_pixel,
)
from spikeshot.data.events import Events
from spikeshot.data.recordings import Recordings, gather_recordings
from spikeshot.data.saccades import Saccades, displacement
from spikeshot.errors import DataError

__all__ = ["SIMULATION_VERSION", "Camera", "Saccades", "simulate"]

SIMULATION_VERSION = 1  # goes up whenever the same arguments come to give other events
STEP_US = 1_000  # the light is followed in steps of this length, linearly in between
FINE = 2  # rendered samples per image pixel and axis
MARGIN = 4  # blank image pixels rendered around an image
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
        counts = _watch_images(
            images, paths, drifts, seeds, scene, pixel_thresholds(camera), rule, keys
        )
        if counts.max() <= room:
            break
        room = int(counts.max())
    rows = zip(keys, counts, strict=True)
    return [decode_keys(row[:count], camera.sensor_size) for row, count in rows]


class Scene(NamedTuple):
    """What is shown and how it is seen (units as in `Camera` and `Saccades`)."""

    paper: float
    ink: float
    gamma: float
    blur_px: float
    scale: float


@jit()
def _blur_rows(light: Any, sigma: Any) -> Any:
    """Return `light` blurred along its last axis, TRANSPOSED: twice gives the 2-d blur."""
    height, width = light.shape
    reach = math.ceil(3 * sigma)
    taps = np.ones(2 * reach + 1)
    for i in range(2 * reach + 1):
        if sigma > 0:
            taps[i] = math.exp(-0.5 * ((i - reach) / sigma) ** 2)
    taps /= taps.sum()
    blurred = np.zeros((width, height))
    for i in range(2 * reach + 1):
        for x in range(width):
            blurred[x] += taps[i] * light[:, min(max(x + i - reach, 0), width - 1)]
    return blurred


@jit()
def render(image: Any, scene: Any) -> Any:
    """Return the log luminance of `image` [H, W] as the optics show it, FINE samples a pixel.

    The result has MARGIN blank image pixels on each side.
    """
    shown = np.empty(256)
    for value in range(256):
        shown[value] = scene.paper + (scene.ink - scene.paper) * (value / 255.0) ** scene.gamma
    height, width = (image.shape[0] + 2 * MARGIN) * FINE, (image.shape[1] + 2 * MARGIN) * FINE
    light = np.full((height, width), shown[0])
    for y in range(image.shape[0] * FINE):
        for x in range(image.shape[1] * FINE):
            light[y + MARGIN * FINE, x + MARGIN * FINE] = shown[image[y // FINE, x // FINE]]
    sigma = scene.blur_px / scene.scale * FINE
    return np.log(_blur_rows(_blur_rows(light, sigma), sigma))


@jit(inline="always")
def _place(at: Any, origin: Any, scale: Any, size: Any) -> Any:
    """Return where, in samples of `render` along one axis, the sensor pixel `at` looks."""
    place = ((at - origin) / scale + MARGIN + 0.5) * FINE - 0.5
    return min(max(place, 0.0), size - 1.001)


@jit()
def _same_all_along(fine: Any, reach: Any, scale: Any, x: Any, y: Any) -> Any:
    """Return whether pixel (x, y) sees one luminance however the image moves within `reach`.

    reach: (smallest x, largest x, smallest y, largest y) of the image's path.
    """
    height, width = fine.shape
    left, right = _place(x, reach[1], scale, width), _place(x, reach[0], scale, width)
    top, bottom = _place(y, reach[3], scale, height), _place(y, reach[2], scale, height)
    first = fine[int(top), int(left)]
    for j in range(int(top), int(bottom) + 2):
        for i in range(int(left), int(right) + 2):
            if fine[j, i] != first:
                return False
    return True


@jit()
def trace(fine: Any, path: Any, scale: Any, x: Any, y: Any, levels: Any) -> None:
    """Fill `levels` [steps + 1] with the log luminance at pixel (x, y) as the image moves.

    fine: a result of `render`; path: [steps + 1, 2], where on the sensor the middle of the top
    left image pixel lies. Bilinear between samples; past the margin the nearest sample holds.
    """
    height, width = fine.shape
    for k in range(path.shape[0]):
        u, v = _place(x, path[k, 0], scale, width), _place(y, path[k, 1], scale, height)
        i, j = int(u), int(v)
        a, b = u - i, v - j
        above = (1 - a) * fine[j, i] + a * fine[j, i + 1]
        below = (1 - a) * fine[j + 1, i] + a * fine[j + 1, i + 1]
        levels[k] = (1 - b) * above + b * below


@jit(parallel=True)
def _watch_images(
    images: Any,
    paths: Any,
    drifts: Any,
    seeds: Any,
    scene: Any,
    thresholds: Any,
    rule: Any,
    keys: Any,
) -> Any:
    """Write each image's events to its row of `keys`, unsorted; return their numbers."""
    n, (height, width) = images.shape[0], thresholds.shape[:2]
    counts = np.zeros(n, np.int64)
    for i in numba.prange(n):
        fine = render(images[i], scene)
        levels = np.empty(paths.shape[1])
        px, py = paths[i, :, 0], paths[i, :, 1]
        reach = (px.min(), px.max(), py.min(), py.max())
        for pixel in range(height * width):
            y, x = pixel // width, pixel % width
            if _same_all_along(fine, reach, scene.scale, x, y):
                levels[:] = 0.0  # only changes count
            else:
                trace(fine, paths[i], scene.scale, x, y, levels)
            counts[i] += watch_pixel(
                levels,
                drifts[i] * thresholds[y, x],
                rule,
                pixel_seed(seeds[i], pixel),
                (height * width * 2, pixel * 2),
                keys[i, min(counts[i], keys.shape[1]) :],
            )
    return counts
