"""Recordings: the events of many samples in one array, with labels and origins."""

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeshot.data.events import EVENT_DTYPE, Events, check_events
from spikeshot.errors import DataError


@dataclass(frozen=True)
class Recordings:
    """Labelled recordings of one sensor, as views of one array of events, or of several.

    An array is in memory or mapped from a pack (`store.py`); nothing of it is copied before it is
    asked for. Recording `i` is `events[offsets[r]:offsets[r + 1]]` with `r = rows[i]` (None: all
    rows, in their order), without its events at `until_us` microseconds or later. Where there is
    `more`, the offsets go on through those arrays, one after another (`join`).

    `labels[i]` indexes `classes`. `origins[i]` names what was recorded (for N-MNIST the MNIST
    image, as `train/00001`): recordings of one origin always go to the same meta-split, so a
    simulated and a real recording of one image can never stand on both sides.
    """

    events: Events
    offsets: NDArray[np.int64]  # [rows of the array + 1]
    labels: NDArray[np.int64]  # [n]
    classes: tuple[str, ...]
    origins: tuple[str, ...]  # n
    sensor_size: tuple[int, int]
    rows: NDArray[np.int64] | None = None  # [n]
    until_us: int | None = None
    known_digest: str | None = None  # of a pack: spares reading it all
    more: tuple[Events, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Events:
        """Return the events of recording `index`: a view, of a pack a read-only one."""
        row = index if self.rows is None else self.rows[index]
        events = self._slice(self.offsets[row], self.offsets[row + 1])
        if self.until_us is not None:
            events = events[: np.searchsorted(events["t"], self.until_us)]
        return events

    def gather(self, indices: NDArray[np.int64]) -> tuple[Events, NDArray[np.int64]]:
        """Return the events of recordings `indices`, copied one after another, and how many each.

        The second is `[k]`.
        """
        rows = indices if self.rows is None else self.rows[indices]
        starts, stops = self.offsets[rows], self.offsets[rows + 1]
        if self.until_us is not None:
            for first, array in zip(self._starts, self._arrays, strict=True):
                here = (first <= starts) & (starts < first + len(array))
                cut = _cut(array["t"], starts[here] - first, stops[here] - first, self.until_us)
                stops[here] = cut + first
        parts = [self._slice(*span) for span in zip(starts.tolist(), stops.tolist(), strict=True)]
        return np.concatenate([np.empty(0, EVENT_DTYPE), *parts]), stops - starts

    def _slice(self, start: int, stop: int) -> Events:
        """Return events `start` to `stop`, which are of one array."""
        k = bisect.bisect_right(self._starts, start) - 1 if self.more else 0
        return self._arrays[k][start - self._starts[k] : stop - self._starts[k]]

    @cached_property
    def _arrays(self) -> tuple[Events, ...]:
        """The arrays; of a pack a plain view, which slices faster."""
        return tuple(np.asarray(array) for array in (self.events, *self.more))

    @cached_property
    def _starts(self) -> list[int]:
        """Where in `offsets` each array begins."""
        starts: list[int] = offsets_of([len(array) for array in self._arrays])[:-1].tolist()
        return starts

    def before(self, t_us: int) -> "Recordings":
        """Return the same recordings, each without its events at `t_us` microseconds or later."""
        until = t_us if self.until_us is None else min(t_us, self.until_us)
        return replace(self, until_us=until, known_digest=None)

    def subset(self, indices: NDArray[np.int64]) -> "Recordings":
        """Return the recordings at `indices`, in that order."""
        return replace(
            self,
            labels=self.labels[indices],
            origins=tuple(self.origins[i] for i in indices),
            rows=indices if self.rows is None else self.rows[indices],
            known_digest=None,
        )

    @cached_property
    def digest(self) -> str:
        """Hex digest of the content: events, labels, classes, origins and sensor size."""
        if self.known_digest:
            return self.known_digest
        digest = ContentDigest()
        for i in range(len(self)):
            digest.add(self[i])
        return digest.end(self.labels, self.classes, self.origins, self.sensor_size)


def _cut(
    times: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    until_us: int,
) -> NDArray[np.int64]:
    """Return where the spans stop that end before `until_us`, of times that never go back in one.

    All spans are halved at once until they are cut.
    """
    low = starts
    while (open_ := low < stops).any():
        middle = np.where(open_, (low + stops) // 2, low)
        late = times[np.minimum(middle, len(times) - 1)] >= until_us
        stops = np.where(open_ & late, middle, stops)
        low = np.where(open_ & ~late, middle + 1, low)
    return stops


def join(first: Recordings, second: Recordings) -> Recordings:
    """Return the recordings of both, the first's, then the second's: a view that copies no event.

    Classes of one name are one class. Raises `DataError` for recordings of different sensors, or
    that end at different times.
    """
    for what, one, other in (
        ("sensors", first.sensor_size, second.sensor_size),
        ("ends", first.until_us, second.until_us),
    ):
        if one != other:
            raise DataError(
                f"recordings of {what} {one} and {other}; expected the same. Use them in separate "
                "runs."
            )
    classes = tuple(dict.fromkeys((*first.classes, *second.classes)))
    places = np.array([classes.index(name) for name in second.classes], np.int64)
    rows = [np.arange(len(r.offsets) - 1) if r.rows is None else r.rows for r in (first, second)]
    return Recordings(
        events=first.events,
        more=(*first.more, second.events, *second.more),
        offsets=np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]]),
        labels=np.concatenate([first.labels, places[second.labels]]),
        classes=classes,
        origins=first.origins + second.origins,
        sensor_size=first.sensor_size,
        rows=np.concatenate([rows[0], rows[1] + len(first.offsets) - 1]),
        until_us=first.until_us,
    )


class ContentDigest:
    """The digest of recordings, fed one recording at a time."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._lengths: list[int] = []

    def add(self, events: Events) -> None:
        """Add the events of the next recording."""
        self._hash.update(np.ascontiguousarray(events).tobytes())
        self._lengths.append(len(events))

    def end(
        self,
        labels: ArrayLike,
        classes: tuple[str, ...],
        origins: tuple[str, ...],
        sensor_size: tuple[int, int],
    ) -> str:
        """Return the hex digest of all that was added."""
        self._hash.update(offsets_of(self._lengths).astype("<i8").tobytes())
        self._hash.update(np.asarray(labels).astype("<i8").tobytes())
        self._hash.update(repr((classes, origins, sensor_size)).encode())
        return self._hash.hexdigest()


def offsets_of(lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each of consecutive parts starts, and the end of the last: `[n + 1]`."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


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
    return Recordings(
        events=np.concatenate(samples) if samples else np.empty(0, EVENT_DTYPE),
        offsets=offsets_of([len(s) for s in samples]),
        labels=np.asarray(labels, np.int64),
        classes=tuple(classes),
        origins=tuple(origins),
        sensor_size=sensor_size,
    )
