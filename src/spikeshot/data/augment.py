"""Light augmentation of event recordings, for meta-training only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.events import Events


@dataclass(frozen=True)
class Augmentation:
    """Random changes, drawn once per recording (drop and jitter: per event).

    `shift_px`: largest shift along x and y, in sensor pixels. `rotate_deg`, `scale`, `shear`:
    largest rotation in degrees, relative change of size and shear, about the sensor's centre.
    `drop`: largest share of events dropped. `jitter_us`: standard deviation of the noise on
    timestamps, in microseconds.
    """

    shift_px: float = 0.0
    rotate_deg: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    drop: float = 0.0
    jitter_us: float = 0.0

    def apply(
        self,
        events: Events,
        owner: NDArray[np.int64],
        batch: int,
        sensor_size: tuple[int, int],
        rng: np.random.Generator,
    ) -> tuple[Events, NDArray[np.int64]]:
        """Return changed events and their owners; `owner[i]` is the recording of event `i`.

        Events that leave the sensor are dropped. Timestamps may come out of order: only binning,
        which does not mind, comes after.
        """
        x, y = self._move(events, owner, batch, sensor_size, rng)
        keep = (x >= 0) & (x < sensor_size[0]) & (y >= 0) & (y < sensor_size[1])
        if self.drop:
            share = rng.uniform(0, self.drop, batch)
            keep &= rng.random(len(events)) >= share[owner]
        changed = events[keep]
        changed["x"], changed["y"] = x[keep], y[keep]
        if self.jitter_us:
            noise = rng.normal(0, self.jitter_us, len(changed))
            changed["t"] = np.maximum(changed["t"] + np.rint(noise).astype(np.int64), 0)
        return changed, owner[keep]

    def _move(
        self,
        events: Events,
        owner: NDArray[np.int64],
        batch: int,
        sensor_size: tuple[int, int],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pixel of each event after an affine map drawn for its recording."""
        angle = np.deg2rad(rng.uniform(-self.rotate_deg, self.rotate_deg, batch))
        size = 1 + rng.uniform(-self.scale, self.scale, (2, batch))
        shear = rng.uniform(-self.shear, self.shear, batch)
        shift = rng.uniform(-self.shift_px, self.shift_px, (2, batch))
        cos, sin = np.cos(angle), np.sin(angle)
        centre_x, centre_y = (sensor_size[0] - 1) / 2, (sensor_size[1] - 1) / 2
        a, b = size[0] * cos, size[0] * (shear * cos - sin)
        c, d = size[1] * sin, size[1] * (shear * sin + cos)
        dx, dy = events["x"] - centre_x, events["y"] - centre_y
        x = a[owner] * dx + b[owner] * dy + centre_x + shift[0][owner]
        y = c[owner] * dx + d[owner] * dy + centre_y + shift[1][owner]
        return np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
