"""Recordings: the events of many samples in one array, with labels and origins."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.events import EVENT_DTYPE, Events, check_events
from spikeshot.errors import DataError


@dataclass(frozen=True)
class Recordings:
    """Labelled recordings of one sensor; recording `i` is `events[offsets[i]:offsets[i + 1]]`.

    `labels[i]` indexes `classes`. `origins[i]` names what was recorded (for N-MNIST the MNIST
    image, as `train/00001`): recordings of one origin always go to the same meta-split, so a
    simulated and a real recording of one image can never stand on both sides.
    """

    events: Events
    offsets: NDArray[np.int64]  # [n + 1]
    labels: NDArray[np.int64]  # [n]
    classes: tuple[str, ...]
    origins: tuple[str, ...]  # n
    sensor_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Events:
        """Return the events of recording `index`."""
        return self.events[self.offsets[index] : self.offsets[index + 1]]

    def before(self, t_us: int) -> "Recordings":
        """Return the same recordings, each without its events at `t_us` microseconds or later."""
        keep = self.events["t"] < t_us
        if keep.all():
            return self
        kept_before = np.concatenate([[0], np.cumsum(keep)])
        return replace(self, events=self.events[keep], offsets=kept_before[self.offsets])

    def subset(self, indices: NDArray[np.int64]) -> "Recordings":
        """Return the recordings at `indices`, in that order."""
        lengths = np.diff(self.offsets)[indices]
        return Recordings(
            events=np.concatenate([self[i] for i in indices] or [self.events[:0]]),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            labels=self.labels[indices],
            classes=self.classes,
            origins=tuple(self.origins[i] for i in indices),
            sensor_size=self.sensor_size,
        )

    @cached_property
    def digest(self) -> str:
        """Hex digest of the content: events, labels, classes, origins and sensor size."""
        h = hashlib.blake2b(digest_size=16)
        h.update(np.ascontiguousarray(self.events).tobytes())
        h.update(self.offsets.astype("<i8").tobytes())
        h.update(self.labels.astype("<i8").tobytes())
        h.update(repr((self.classes, self.origins, self.sensor_size)).encode())
        return h.hexdigest()


def join(first: Recordings, second: Recordings) -> Recordings:
    """Return the recordings of both, of the same sensor: the first's, then the second's."""
    if first.sensor_size != second.sensor_size:
        raise DataError(
            f"recordings of sensors of {first.sensor_size} and {second.sensor_size} pixels; "
            "expected the same sensor. Use them in separate runs."
        )
    classes = tuple(dict.fromkeys((*first.classes, *second.classes)))
    places = np.array([classes.index(name) for name in second.classes], np.int64)
    return Recordings(
        events=np.concatenate([first.events, second.events]),
        offsets=np.concatenate([first.offsets, second.offsets[1:] + first.offsets[-1]]),
        labels=np.concatenate([first.labels, places[second.labels]]),
        classes=classes,
        origins=first.origins + second.origins,
        sensor_size=first.sensor_size,
    )


def gather_recordings(
    samples: Sequence[Events],
    labels: Sequence[int],
    classes: Sequence[str],
    origins: Sequence[str],
    sensor_size: tuple[int, int],
    *,
    names: Sequence[str] | None = None,
) -> Recordings:
    """Return `Recordings` from one event array per sample.

    Raises `DataError` for a bad recording, called by its name in `names` (default: its origin).
    """
    for sample, name in zip(samples, names or origins, strict=True):
        check_events(sample, sensor_size, name)
    lengths = [len(s) for s in samples]
    return Recordings(
        events=np.concatenate(samples) if samples else np.empty(0, EVENT_DTYPE),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        labels=np.asarray(labels, np.int64),
        classes=tuple(classes),
        origins=tuple(origins),
        sensor_size=sensor_size,
    )
