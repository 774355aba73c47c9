"""How N-MNIST moved: a still image placed on the sensor and shaken along a triangle.

Orchard, Jayawant, Cohen & Thakor, "Converting Static Image Datasets to Spiking Neuromorphic
Datasets Using Saccades", Frontiers in Neuroscience 9:437 (2015): a pan-tilt unit turns the
camera through three saccades of about 100 ms each. The numbers here were fitted to real N-MNIST
recordings (see `scripts/calibrate_camera.py`), the settling of the unit between them included:
its two motors start and stop at different times, hence strokes along one axis each.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeshot.errors import ConfigError


@dataclass(frozen=True)
class Stroke:
    """One eased movement of the image by (dx, dy) pixels, from `start_us` for `length_us`.

    `saccade` is the number, from 0, of the saccade that it belongs to and is late with.

    The part of the way made after the share `u` of the time is `(1 - cos(pi u)) / 2` (cosine
    easing): the speed rises from nothing and falls to nothing, as that of a motor does.
    """

    start_us: float
    length_us: float
    dx: float
    dy: float
    saccade: int = 0


NMNIST_STROKES = (
    Stroke(13_200, 62_800, 0.0, 4.95, saccade=0),
    Stroke(40_700, 43_100, 1.7, 0.0, saccade=0),
    Stroke(-5_800, 28_600, -0.16, 0.43, saccade=0),
    Stroke(75_200, 32_200, 0.21, -0.19, saccade=0),
    Stroke(98_900, 56_900, 1.17, 0.0, saccade=1),
    Stroke(120_400, 62_200, 0.0, -5.1, saccade=1),
    Stroke(117_300, 76_100, 2.02, 0.0, saccade=1),
    Stroke(179_900, 42_400, 0.6, 0.0, saccade=1),
    Stroke(215_700, 77_800, -5.56, 0.0, saccade=2),
    Stroke(227_000, 58_600, 0.0, -0.08, saccade=2),
    Stroke(281_700, 21_800, -0.08, -0.26, saccade=2),
)


@dataclass(frozen=True)
class Saccades:
    """The path of the image over the sensor.

    `origin = (x, y)` is where on the sensor, in pixels, the middle of the image's top left pixel
    lies before any movement; an image pixel covers `scale` sensor pixels. `jitter_px` is the
    standard deviation, over recordings, of the whole path's place; `jitter_us` that of each
    saccade's start in time. `duration_us` is the length of a recording; `ends_us` are the ends of
    the saccades.
    """

    origin: tuple[float, float] = (0.458, 1.195)
    scale: float = 1.0055
    strokes: tuple[Stroke, ...] = NMNIST_STROKES
    jitter_px: float = 0.05
    jitter_us: tuple[float, ...] = (500.0, 3_500.0, 2_500.0)
    duration_us: int = 310_000
    ends_us: tuple[int, ...] = (105_000, 212_000, 310_000)

    def __post_init__(self) -> None:
        """Refuse a path that no image can follow."""
        numbers = (self.scale, *self.origin, self.jitter_px, *self.jitter_us)
        for stroke in self.strokes:
            numbers += (stroke.start_us, stroke.length_us, stroke.dx, stroke.dy)
        if not all(math.isfinite(number) for number in numbers):
            raise ConfigError(f"{self}: expected finite numbers only.")
        if not self.scale > 0:
            raise ConfigError(f"scale is {self.scale}; expected more than 0 sensor pixels.")
        if self.jitter_px < 0 or min(self.jitter_us, default=0) < 0:
            raise ConfigError(
                f"jitter is {self.jitter_px} px, {self.jitter_us} us; expected 0 or more of all."
            )
        if self.duration_us < 1:
            raise ConfigError(f"duration_us is {self.duration_us}; expected 1 us or more.")
        for stroke in self.strokes:
            if not stroke.length_us > 0:
                raise ConfigError(f"{stroke}: expected length_us above 0 us.")
            if not 0 <= stroke.saccade < len(self.jitter_us):
                raise ConfigError(
                    f"{stroke}: expected a saccade from 0 to {len(self.jitter_us) - 1}, one that "
                    "jitter_us has a number for."
                )


def displacement(
    motion: Saccades, t_us: ArrayLike, late_us: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far the image has moved, (dx, dy) in sensor pixels, at each time `t_us`.

    `late_us` [saccades] delays the strokes of each saccade; without it none is late.
    """
    t = np.asarray(t_us, np.float64)
    dx, dy = np.zeros_like(t), np.zeros_like(t)
    late = np.zeros(len(motion.jitter_us)) if late_us is None else np.asarray(late_us, np.float64)
    for stroke in motion.strokes:
        start = stroke.start_us + late[stroke.saccade]
        done = np.clip((t - start) / stroke.length_us, 0.0, 1.0)
        eased = 0.5 - 0.5 * np.cos(math.pi * done)
        dx += stroke.dx * eased
        dy += stroke.dy * eased
    return dx, dy
