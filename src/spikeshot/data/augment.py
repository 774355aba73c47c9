"""Light augmentation of event recordings and of classes, for meta-training only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.event_kernels import keep_moved
from spikeshot.data.events import Events


@dataclass(frozen=True)
class Augmentation:
    """Random changes, drawn once per recording (drop and jitter: per event).

    `shift_px`: largest shift along x and y, in sensor pixels. `rotate_deg`, `scale`, `shear`:
    largest rotation in degrees, relative change of size and shear, about the sensor's centre.
    `drop`: largest share of events dropped. `jitter_us`: standard deviation of the noise on
    timestamps, in microseconds.

    `symmetry` makes new classes: the probability that, in one episode, a part of a class is shown
    mirrored or turned by a right angle, in support and query alike (as is usual with Omniglot's
    characters since Santoro et al. 2016).
    """

    shift_px: float = 0.0
    rotate_deg: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    drop: float = 0.0
    jitter_us: float = 0.0
    symmetry: float = 0.0

    @property
    def reach_us(self) -> int:
        """How far jitter can move an event, in microseconds (six standard deviations)."""
        return int(6 * self.jitter_us)

    def draw_symmetries(
        self, shape: tuple[int, int], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Return a symmetry of the square for every (class, part): 0 to 7, 0 changes nothing."""
        turned = rng.random(shape) < self.symmetry
        return np.where(turned, rng.integers(1, 8, shape), 0)

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
        maps = self._draw_maps(batch, sensor_size, rng)
        dropped = np.empty(0, np.bool_)
        if self.drop:
            share = rng.uniform(0, self.drop, batch)
            dropped = rng.random(len(events)) < share[owner]
        moved, owners = np.empty_like(events), np.empty_like(owner)
        kept = keep_moved(events, owner, maps, dropped, *sensor_size, moved, owners)
        changed = moved[:kept]
        if self.jitter_us:
            noise = rng.normal(0, self.jitter_us, kept)
            changed["t"] = np.maximum(changed["t"] + np.rint(noise).astype(np.int64), 0)
        return changed, owners[:kept]

    def _draw_maps(
        self, batch: int, sensor_size: tuple[int, int], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Return one affine map about the sensor's centre per recording, `[batch, 6]`."""
        angle = np.deg2rad(rng.uniform(-self.rotate_deg, self.rotate_deg, batch))
        size = 1 + rng.uniform(-self.scale, self.scale, (2, batch))
        shear = rng.uniform(-self.shear, self.shear, batch)
        shift = rng.uniform(-self.shift_px, self.shift_px, (2, batch))
        cos, sin = np.cos(angle), np.sin(angle)
        a, b = size[0] * cos, size[0] * (shear * cos - sin)
        c, d = size[1] * sin, size[1] * (shear * sin + cos)
        e, f = (shift[k] + (sensor_size[k] - 1) / 2 for k in (0, 1))
        return np.stack([a, b, c, d, e, f], axis=1)


def turn(frames: NDArray[np.int32], symmetry: int) -> NDArray[np.int32]:
    """Return frames `[..., H, W]` under a symmetry of the square (0 to 7).

    The lowest bit mirrors along x; the others turn by 0 to 3 right angles, where H = W, or else by
    0 or 2.
    """
    if symmetry & 1:
        frames = frames[..., ::-1]
    angles = symmetry >> 1
    if frames.shape[-1] != frames.shape[-2]:
        angles &= 2
    turned: NDArray[np.int32] = np.rot90(frames, angles, axes=(-2, -1))
    return turned
