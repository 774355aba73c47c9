"""A pen writes on a screen, and the event camera watches: ink appears along the pen's way.

As N-Omniglot was recorded: Li, Dong, Zhao & Zeng, "N-Omniglot, a large-scale neuromorphic dataset
for spatio-temporal sparse few-shot learning", Scientific Data 9:746 (2022) replayed Omniglot's
strokes on a screen in front of a DAVIS346. The ink is dark and stays, so nearly all events are
OFF; the pen itself is not seen.

A sensor pixel at distance d of the nearest ink, a line of half-width h, sees the share

    ink(d) = Phi((d + h) / s) - Phi((d - h) / s)

of its light from ink, where Phi is the normal distribution function and s the standard deviation
of the optics' blur and of the pixel's own area (a square's: 1/12 of its side squared) together.
The curvature of the line and its ends, within s, are left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.camera import Camera, decode_keys, pixel_rule, pixel_thresholds
from spikeshot.data.camera_kernels import watch_changes
from spikeshot.data.events import Events
from spikeshot.data.pen_kernels import trace_ink
from spikeshot.errors import ConfigError, DataError

PEN_VERSION = 1  # goes up whenever the same arguments come to give other events
SCREEN_CAMERA = Camera(sensor_size=(68, 68), noise_on_hz=0.01, noise_off_hz=0.005)
"""N-MNIST's pixels, twice as fine and with little noise: a drawing lasts seconds, not 0.3."""


@dataclass(frozen=True)
class Pen:
    """How strokes are shown to the camera.

    `origin = (x, y)`: where on the sensor the drawing's corner (0, 0) lies, in pixels (the middle
    of a pixel is a whole number); `scale`: sensor pixels per unit of the strokes; `width_px`: the
    ink's width in sensor pixels. `longest_pause_us`: a pen that waits longer, on the paper or above
    it, waits this long. `after_us`: how long the recording goes on after the last stroke;
    `step_us`: in steps of this length the ink grows.
    """

    origin: tuple[float, float] = (5.5, 5.5)
    scale: float = 56 / 105
    width_px: float = 2.4
    longest_pause_us: int = 1_000_000
    after_us: int = 50_000
    step_us: int = 4_000

    def __post_init__(self) -> None:
        """Refuse a pen that cannot write."""
        for name in ("scale", "width_px", "longest_pause_us", "after_us", "step_us"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"pen {name} is {value}; expected a number above 0.")


Stroke = NDArray[np.float64]
"""The pen's way from down to up: [points, 3] of x, y (down the page) and t in microseconds."""


def write(
    strokes: Sequence[Stroke],
    *,
    pen: Pen,
    camera: Camera,
    seed: int,
    thresholds: NDArray[np.float64] | None = None,
    until_us: int | None = None,
) -> Events:
    """Return the events of one drawing from its start to `pen.after_us` after its end.

    Times of the strokes that go back are taken as equal to the latest before. `thresholds`
    [height, width, 2] spare working out the camera's for each drawing (`pixel_thresholds`);
    `until_us` ends the recording early, with exactly the events before it.
    Raises `DataError` for strokes without a point.
    """
    way = _way(strokes, pen)
    length = math.ceil((way[-1, 2] + pen.after_us) / pen.step_us)
    if until_us is not None:
        length = min(length, math.ceil(until_us / pen.step_us))
    end_us = min(length * pen.step_us, until_us or length * pen.step_us)
    thresholds = pixel_thresholds(camera) if thresholds is None else thresholds
    changes = _changes(way, pen, camera, length)
    rule, still = (pixel_rule(camera, step_us, end_us) for step_us in (pen.step_us, end_us))
    room = 8_192
    while True:
        keys = np.empty(room, np.int64)
        n = watch_changes(changes, length, thresholds, rule, still, np.uint64(seed % 2**64), keys)
        if n <= room:
            return decode_keys(keys[:n], camera.sensor_size)
        room = n


def _way(strokes: Sequence[Stroke], pen: Pen) -> NDArray[np.float64]:
    """Return all points [n, 4]: x, y in sensor pixels, t from 0 on, and whether ink leads there."""
    if not strokes or not all(len(stroke) for stroke in strokes):
        raise DataError("a drawing has a stroke without a point; expected one point or more each.")
    way = np.concatenate([np.column_stack([s, np.ones(len(s))]) for s in strokes])
    way[np.cumsum([0, *(len(s) for s in strokes[:-1])]), 3] = 0
    way[:, :2] = way[:, :2] * pen.scale + np.asarray(pen.origin)
    waits = np.diff(np.maximum.accumulate(way[:, 2]))
    way[:, 2] = np.concatenate([[0], np.cumsum(np.minimum(waits, pen.longest_pause_us))])
    return way


def _changes(
    way: NDArray[np.float64], pen: Pen, camera: Camera, length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return what `watch_changes` takes: per pixel, at which steps the log luminance changes."""
    width, height = camera.sensor_size
    blur = math.sqrt(camera.blur_px**2 + 1 / 12)
    light = (camera.paper, camera.ink, pen.width_px / 2, blur)
    room = 16_384
    while True:
        pixels, steps = np.empty(room, np.int64), np.empty(room, np.int64)
        values = np.empty(room)
        n = trace_ink(way, pen.step_us, length, light, width, height, pixels, steps, values)
        if n <= room:
            break
        room = n
    order = np.argsort(pixels[:n], kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(pixels[:n], minlength=width * height))])
    return starts, steps[:n][order], values[:n][order]
