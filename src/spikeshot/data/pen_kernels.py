"""The compiled loop of the pen: how the light at each pixel changes while a line is drawn.

It calls no function of another file: numba's cache would not notice a change there.
"""

import math
from typing import Any

import numba
import numpy as np


def _jit(function: Any) -> Any:
    return numba.njit(cache=True)(function)


@_jit
def _distance(x: Any, y: Any, ax: Any, ay: Any, bx: Any, by: Any) -> Any:
    """Return the distance of (x, y) from the line from (ax, ay) to (bx, by)."""
    dx, dy = bx - ax, by - ay
    square = dx * dx + dy * dy
    along = 0.0
    if square > 0:
        along = min(max(((x - ax) * dx + (y - ay) * dy) / square, 0.0), 1.0)
    return math.hypot(x - ax - along * dx, y - ay - along * dy)


@_jit
def trace_ink(
    way: Any,
    step_us: Any,
    length: Any,
    light: Any,
    width: Any,
    height: Any,
    pixels: Any,
    steps: Any,
    values: Any,
) -> Any:
    """Write each change of a pixel's log luminance: pixel, step and new value; return how many.

    way: [n, 4] of x, y in pixels, t in microseconds, whether ink leads there; `length`: steps of
    the film; light: (paper, ink, half-width of the line, blur). Ink that is drawn between two
    steps is seen at the later. The number may exceed the room, which then lacks the rest.
    Changes come in order of time; a value is relative to the paper's.
    """
    paper, ink, half, blur = light
    reach = half + 3.5 * blur
    nearest = np.full((height, width), np.inf)
    seen_at = np.full((height, width), -1)  # where in the lists the pixel's last change stands
    count, point = 0, 0
    x, y = way[0, 0], way[0, 1]  # the tip
    for step in range(1, length + 1):
        now = step * step_us
        drawing = True
        while drawing and point < len(way):
            ax, ay = x, y
            if way[point, 2] <= now:  # the point is reached: to it, and on
                x, y = way[point, 0], way[point, 1]
                if way[point, 3] == 0:
                    ax, ay = x, y  # the pen comes down here
                inked = True
                point += 1
            else:
                drawing = False
                inked = way[point, 3] == 1
                if inked:  # part of the way to the next point
                    before = max(way[point - 1, 2], now - step_us)
                    share = (now - before) / (way[point, 2] - before)
                    x, y = ax + share * (way[point, 0] - ax), ay + share * (way[point, 1] - ay)
            if not inked:
                continue
            for row in range(
                max(math.ceil(min(ay, y) - reach), 0), min(int(max(ay, y) + reach), height - 1) + 1
            ):
                for column in range(
                    max(math.ceil(min(ax, x) - reach), 0),
                    min(int(max(ax, x) + reach), width - 1) + 1,
                ):
                    distance = _distance(column, row, ax, ay, x, y)
                    if distance >= min(nearest[row, column], reach):
                        continue
                    nearest[row, column] = distance
                    root = blur * math.sqrt(2.0)
                    share = 0.5 * (math.erf((distance + half) / root))
                    share -= 0.5 * (math.erf((distance - half) / root))
                    at = seen_at[row, column]
                    if at < 0 or at >= len(steps) or steps[at] != step:
                        at = count
                        seen_at[row, column] = at
                        count += 1
                    if at < len(pixels):
                        pixels[at], steps[at] = row * width + column, step
                        values[at] = math.log(1.0 + (ink / paper - 1.0) * share)
    return count
