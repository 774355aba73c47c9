"""The event: one pixel change, as one numpy structured dtype, with pure functions on arrays of it.

`x, y` int16 in pixels, `t` int64 in microseconds, `p` (polarity) 0 for OFF and 1 for ON.
`sensor_size = (width, height)` everywhere.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeshot.errors import DataError

EVENT_DTYPE = np.dtype([("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "u1")])

Events = NDArray[np.void]
"""A 1-d array of `EVENT_DTYPE`."""


def make_events(x: ArrayLike, y: ArrayLike, t: ArrayLike, p: ArrayLike) -> Events:
    """Return events from four columns of equal length (`t` in microseconds)."""
    columns: dict[str, NDArray[Any]] = {
        "x": np.asarray(x),
        "y": np.asarray(y),
        "t": np.asarray(t),
        "p": np.asarray(p),
    }
    events = np.empty(columns["t"].shape, EVENT_DTYPE)
    for name, column in columns.items():
        events[name] = column
    return events


def check_events(events: Events, sensor_size: tuple[int, int], name: str) -> None:
    """Raise `DataError`, naming the recording `name`, unless the events are a valid recording.

    Valid: at least one event, coordinates on the sensor, polarity 0 or 1, timestamps not
    negative and never going back.
    """
    width, height = sensor_size
    if len(events) == 0:
        raise DataError(f"{name}: no event in it; expected at least one. Remove the recording.")
    outside = (
        (events["x"] < 0) | (events["x"] >= width) | (events["y"] < 0) | (events["y"] >= height)
    )
    if outside.any():
        i = int(np.argmax(outside))
        raise DataError(
            f"{name}: event {i} lies at x={events['x'][i]}, y={events['y'][i]}, outside the "
            f"{width}x{height} sensor. Check the sensor size or the file."
        )
    if (events["p"] > 1).any():
        i = int(np.argmax(events["p"] > 1))
        raise DataError(f"{name}: event {i} has polarity {events['p'][i]}; expected 0 or 1.")
    if events["t"][0] < 0:
        raise DataError(f"{name}: first timestamp is {events['t'][0]} us; expected 0 or later.")
    back = np.diff(events["t"]) < 0
    if back.any():
        i = int(np.argmax(back))
        raise DataError(
            f"{name}: timestamps go back at event {i + 1} ({events['t'][i]} us to "
            f"{events['t'][i + 1]} us); expected them in order. Sort the recording by time."
        )


def crop(events: Events, left: int, top: int, width: int, height: int) -> Events:
    """Return the events in the window `[left, left+width) x [top, top+height)`, moved to (0, 0)."""
    x, y = events["x"], events["y"]
    inside = (x >= left) & (x < left + width) & (y >= top) & (y < top + height)
    kept = events[inside]
    kept["x"] -= left
    kept["y"] -= top
    return kept


def downsample(events: Events, factor: int) -> Events:
    """Return the events with coordinates divided by `factor`, rounding down; none is lost."""
    if factor < 1:
        raise DataError(f"downsampling factor is {factor}; expected 1 or more.")
    coarse = events.copy()
    coarse["x"] //= factor
    coarse["y"] //= factor
    return coarse
