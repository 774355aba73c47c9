"""Events become frames: crop, downsample and count events per pixel, polarity and time bin.

A batch of frames is TIME-FIRST: `[T, B, 2, H, W]`, channel 0 OFF and 1 ON.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.augment import Augmentation
from spikeshot.data.event_kernels import count
from spikeshot.data.events import Events
from spikeshot.data.recordings import Recordings, offsets_of
from spikeshot.errors import ConfigError

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class FrameSpec:
    """How events become frames.

    `crop` (left, top, width, height) in sensor pixels, or None for the whole sensor; `downsample`
    sensor pixels per frame pixel; `bins` time bins of `dt_us` microseconds from `start_us` on;
    counts above `clip` are set to it (0: no clipping). With `stretch`, each recording is stretched
    in time so that the bins cover it from its first event to its last, as frames of N-Omniglot do.
    """

    crop: tuple[int, int, int, int] | None = None
    downsample: int = 1
    dt_us: int = 1000
    bins: int = 100
    start_us: int = 0
    clip: int = 0
    stretch: bool = False

    @property
    def end_us(self) -> int:
        """End of the last time bin, in microseconds."""
        return self.start_us + self.bins * self.dt_us

    def window(self, sensor_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the crop window; raises `ConfigError` if it leaves the sensor."""
        width, height = sensor_size
        left, top, w, h = self.crop or (0, 0, width, height)
        if min(left, top) < 0 or min(w, h) < 1 or left + w > width or top + h > height:
            raise ConfigError(
                f"crop {self.crop} leaves the {width}x{height} sensor; expected "
                "(left, top, width, height) inside it."
            )
        return left, top, w, h

    def frame_size(self, sensor_size: tuple[int, int]) -> tuple[int, int]:
        """Return (width, height) of the frames; a border that fills no whole pixel is cut."""
        _, _, w, h = self.window(sensor_size)
        if self.downsample < 1 or min(w, h) < self.downsample:
            raise ConfigError(
                f"downsample is {self.downsample}; expected 1 to {min(w, h)}, the crop's side."
            )
        return w // self.downsample, h // self.downsample


def bin_events(events: Events, sensor_size: tuple[int, int], spec: FrameSpec) -> NDArray[np.int32]:
    """Return the frames `[T, 2, H, W]` of one recording."""
    owner = np.zeros(len(events), np.int64)
    if spec.stretch:
        events = _stretched(events, np.array([0, len(events)]), spec)
    frames: NDArray[np.int32] = _count(events, owner, 1, sensor_size, spec)[:, 0]
    return frames


def bin_recordings(
    recordings: Recordings,
    indices: Sequence[int] | NDArray[np.int64],
    spec: FrameSpec,
    augmentation: Augmentation | None = None,
    rng: np.random.Generator | None = None,
) -> NDArray[np.int32]:
    """Return the frames `[T, B, 2, H, W]` of several recordings, each augmented on its own."""
    index = np.asarray(indices, np.int64)
    events, lengths = recordings.gather(index)
    owner = np.repeat(np.arange(len(index)), lengths)
    if spec.stretch:
        events = _stretched(events, offsets_of(lengths), spec)
    if augmentation is not None and rng is not None:
        events, owner = augmentation.apply(events, owner, len(index), recordings.sensor_size, rng)
    return _count(events, owner, len(index), recordings.sensor_size, spec)


def side_by_side(frames: NDArray[T], parts: int) -> NDArray[T]:
    """Return frames `[T, n * parts, 2, H, W]`, parts of one sample together, as one image each.

    That is `[T, n, 2, H, parts * W]`, the first part on the left.
    """
    bins, _, polarity, height, width = frames.shape
    grouped = frames.reshape(bins, -1, parts, polarity, height, width)
    grouped = np.moveaxis(grouped, 2, 4)  # (T, n, parts, 2, H, W) -> (T, n, 2, H, parts, W)
    return grouped.reshape(bins, -1, polarity, height, parts * width)


def _stretched(events: Events, offsets: NDArray[np.int64], spec: FrameSpec) -> Events:
    """Return the events with each recording's times spread over all bins.

    Recording `i` is `events[offsets[i]:offsets[i + 1]]`, in order of time.
    """
    stretched, span = events.copy(), spec.bins * spec.dt_us
    for start, stop in itertools.pairwise(offsets.tolist()):
        if start < stop:
            t = (events["t"][start:stop] - events["t"][start]).astype(np.float64)
            share = t / (t[-1] + 1)  # below 1
            stretched["t"][start:stop] = spec.start_us + np.minimum(share * span, span - 1)
    return stretched


def _count(
    events: Events,
    owner: NDArray[np.int64],
    batch: int,
    sensor_size: tuple[int, int],
    spec: FrameSpec,
) -> NDArray[np.int32]:
    """Count events into `[T, B, 2, H, W]`; with `clip`, counts stop there."""
    left, top, _, _ = spec.window(sensor_size)
    width, height = spec.frame_size(sensor_size)
    counts = np.zeros((spec.bins, batch, 2, height, width), np.int32)
    count(events, owner, left, top, spec.downsample, spec.start_us, spec.dt_us, counts)
    if spec.clip:
        np.minimum(counts, spec.clip, out=counts)
    return counts
