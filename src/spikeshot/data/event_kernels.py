"""Loops over events, compiled: moving, keeping and counting them.

All run without Python's global lock, so that episodes are made in a background thread while the
network computes. Compiled once and cached on disk.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])


def _compiled(function: F) -> F:
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


@_compiled
def keep_moved(
    events: Any, owner: Any, maps: Any, dropped: Any, width: int, height: int, out: Any, owners: Any
) -> int:
    """Move events by their recording's affine map; write those that stay, return how many.

    `maps` `[B, 6]`: (a, b, c, d, e, f) of x' = a dx + b dy + e, y' = c dx + d dy + f, with dx, dy
    from the sensor's centre. `dropped` `[n]` bool, or empty. `out`, `owners` `[n]` are filled from
    the front.
    """
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    kept = 0
    for i in range(len(events)):
        if len(dropped) and dropped[i]:
            continue
        a, b, c, d, e, f = maps[owner[i]]
        dx, dy = events[i].x - centre_x, events[i].y - centre_y
        x, y = np.rint(a * dx + b * dy + e), np.rint(c * dx + d * dy + f)
        if 0 <= x < width and 0 <= y < height:
            out[kept].x, out[kept].y = np.int16(x), np.int16(y)
            out[kept].t, out[kept].p = events[i].t, events[i].p
            owners[kept] = owner[i]
            kept += 1
    return kept


@_compiled
def count(
    events: Any,
    owner: Any,
    left: int,
    top: int,
    factor: int,
    start_us: int,
    dt_us: int,
    counts: Any,
) -> None:
    """Add every event inside the window to `counts` `[T, B, 2, H, W]`."""
    bins, _, _, height, width = counts.shape
    for i in range(len(events)):
        column = (events[i].x - left) // factor
        row = (events[i].y - top) // factor
        time = (events[i].t - start_us) // dt_us
        inside = 0 <= column < width and 0 <= row < height and 0 <= time < bins
        if inside and events[i].p < 2:  # a pack that the disk has damaged must not write elsewhere
            counts[time, owner[i], events[i].p, row, column] += 1
