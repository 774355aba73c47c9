"""What layouts do to the time of a recording: start it at zero, or cut a part out."""

import numpy as np

from spikeshot.data.events import Events


def from_zero(events: Events) -> Events:
    """Return the events with the first one at 0 microseconds."""
    moved = events.copy()
    if len(moved):
        moved["t"] -= moved["t"][0]
    return moved


def between(events: Events, start_us: int, end_us: int) -> Events:
    """Return the events from `start_us` (included) to `end_us` (not), which are in order."""
    first, last = np.searchsorted(events["t"], [start_us, end_us], side="left")
    return events[first:last]
