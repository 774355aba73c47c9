"""The compiled loops of the camera: a pixel, a film, an image that moves.

All of them stand in this one file on purpose: numba's cache notices a change of a function's own
file, not of another file that it calls into, and would go on running the old code.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np

MIN_GAIN = 0.3  # no random factor takes a threshold below this share of its mean
STEP_US = 1_000  # the light is followed in steps of this length, linearly in between
FINE = 2  # rendered samples per image pixel and axis
MARGIN = 4  # blank image pixels rendered around an image


class Pixel(NamedTuple):
    """What all pixels of a camera share, as the compiled loop takes it (units as in `Camera`)."""

    step_us: float
    end_us: float
    threshold_noise: float
    start_spread: float
    refractory_us: float
    noise_hz: float
    noise_on: float  # share of ON among the background events
    follow_off: float  # share of the way down to the light that the receptor goes in one step
    follow_on: float


class Scene(NamedTuple):
    """What is shown and how it is seen (units as in `Camera` and `Saccades`)."""

    paper: float
    ink: float
    gamma: float
    blur_px: float
    scale: float


def jit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return numba's compiling decorator with its cache on; typed, which numba's own is not."""
    decorate: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(cache=True, **options)
    return decorate


@jit(inline="always")
def uniform(seed: Any, draw: Any) -> Any:
    """Return draw number `draw` of the stream `seed`, a float in (0, 1).

    The finaliser is splitmix64's (Steele, Lea & Flood, OOPSLA 2014).
    """
    z = seed + draw * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (np.float64(z >> np.uint64(11)) + 0.5) * 2.0**-53


@jit(inline="always")
def _vary(theta: Any, std: Any, seed: Any, draw: Any) -> Any:
    """Return `theta` times a normal factor of mean 1 and standard deviation `std`."""
    if std == 0:
        return theta
    radius = math.sqrt(-2.0 * math.log(uniform(seed, draw)))  # Box & Muller 1958
    angle = 2.0 * math.pi * uniform(seed, draw + np.uint64(1))
    return theta * max(1.0 + std * radius * math.cos(angle), MIN_GAIN)


@jit(inline="always")
def _wait(noise_hz: Any, seed: Any, draw: Any) -> Any:
    """Return the microseconds to a pixel's next background event."""
    if noise_hz == 0:
        return np.inf
    return -1e6 / noise_hz * math.log(uniform(seed, draw))


@jit(inline="always")
def _crossing(start: Any, level: Any, slope: Any, reference: Any, off: Any, on: Any) -> Any:
    """Return when the line through (start, level) meets the threshold that it heads for."""
    if slope > 0:
        return start + (reference + on - level) / slope
    if slope < 0:
        return start + (reference - off - level) / slope
    return np.inf


@jit()
def watch_pixel(levels: Any, thresholds: Any, rule: Any, seed: Any, code: Any, keys: Any) -> Any:
    """Write one pixel's events before `rule.end_us` to `keys`; return how many there are.

    levels: [steps + 1] log luminance at each `rule.step_us`; thresholds: (off, on); code:
    `(pixels * 2, (y * width + x) * 2)`, so that a key is `t * code[0] + code[1] + polarity`.
    The number may exceed the room in `keys`, which then lacks the rest. Random numbers are drawn
    from the pixel's own stream `seed` in order of time: nothing later changes what came before.
    """
    count, draw, last = 0, np.uint64(8), levels[0]
    off = _vary(thresholds[0], rule.threshold_noise, seed, np.uint64(1))
    on = _vary(thresholds[1], rule.threshold_noise, seed, np.uint64(3))
    noise_at = _wait(rule.noise_hz, seed, np.uint64(5))
    below = rule.start_spread * (on - uniform(seed, np.uint64(6)) * (off + on))
    reference, free_at, held = last - below, 0.0, False
    for k in range(levels.shape[0] - 1):
        start, stop = k * rule.step_us, min((k + 1) * rule.step_us, rule.end_us)
        if levels[k + 1] == last and noise_at >= stop:
            continue  # still light, no noise
        follow = rule.follow_on if levels[k + 1] > last else rule.follow_off
        level, last = last, last + follow * (levels[k + 1] - last)
        slope = (last - level) / rule.step_us
        now = start
        while not held or free_at < stop:
            if held:  # the reset ends: the reference has followed the light until here
                now, held = max(now, free_at), False
                reference = level + slope * (now - start)
                while noise_at < now:
                    noise_at += _wait(rule.noise_hz, seed, draw)
                    draw += np.uint64(1)
            at = max(_crossing(start, level, slope, reference, off, on), now)
            polarity = 1 if slope > 0 else 0
            if min(at, noise_at) >= stop:
                break
            if noise_at < at:
                at, polarity = noise_at, 1 if uniform(seed, draw) < rule.noise_on else 0
                noise_at += _wait(rule.noise_hz, seed, draw + np.uint64(1))
                reference = level + slope * (at - start)
            else:
                reference += on if polarity == 1 else -off
            if count < keys.shape[0]:
                keys[count] = np.int64(at) * code[0] + code[1] + polarity
            count += 1
            off = _vary(thresholds[0], rule.threshold_noise, seed, draw + np.uint64(2))
            on = _vary(thresholds[1], rule.threshold_noise, seed, draw + np.uint64(4))
            draw += np.uint64(6)
            now, free_at, held = at, at + rule.refractory_us, rule.refractory_us > 0
    return count


@jit(inline="always")
def pixel_seed(seed: Any, pixel: Any) -> Any:
    """Return the stream of pixel number `pixel` in the recording of stream `seed`."""
    return seed ^ (np.uint64(pixel + 1) * np.uint64(0xD1B54A32D192ED03))


@jit()
def watch_film(levels: Any, thresholds: Any, rule: Any, seed: Any, keys: Any) -> Any:
    """Write the film's events to `keys`, unsorted; return how many there are."""
    height, width, total = levels.shape[1], levels.shape[2], 0
    for y in range(height):
        for x in range(width):
            pixel = y * width + x
            total += watch_pixel(
                np.ascontiguousarray(levels[:, y, x]),
                thresholds[y, x],
                rule,
                pixel_seed(seed, pixel),
                (height * width * 2, pixel * 2),
                keys[min(total, len(keys)) :],
            )
    return total


@jit()
def watch_changes(
    changes: Any, length: Any, thresholds: Any, rule: Any, still: Any, seed: Any, keys: Any
) -> Any:
    """Write the events of light that changes seldom to `keys`, unsorted; return their number.

    changes: (starts, steps, values). Pixel i (row by row) sees log luminance 0 until its first
    change; change j of `starts[i]` to `starts[i + 1]` takes it to `values[j]` at step `steps[j]`.
    `length`: steps of the film; `still`: `rule`, but of one step that lasts the whole film, for
    pixels without any change.
    """
    starts, steps, values = changes
    height, width, total = thresholds.shape[0], thresholds.shape[1], 0
    film, dark = np.empty(length + 1), np.zeros(2)
    for pixel in range(height * width):
        level, since = 0.0, 0
        for j in range(starts[pixel], starts[pixel + 1]):
            film[since : steps[j]] = level
            level, since = values[j], steps[j]
        changing = starts[pixel] < starts[pixel + 1]
        if changing:
            film[since:] = level
        total += watch_pixel(
            film if changing else dark,
            thresholds[pixel // width, pixel % width],
            rule if changing else still,
            pixel_seed(seed, pixel),
            (height * width * 2, pixel * 2),
            keys[min(total, len(keys)) :],
        )
    return total


@jit()
def _blur_rows(light: Any, sigma: Any) -> Any:
    """Return `light` blurred along its last axis, TRANSPOSED: twice gives the 2-d blur."""
    height, width = light.shape
    reach = math.ceil(3 * sigma)
    taps = np.ones(2 * reach + 1)
    for i in range(2 * reach + 1):
        if sigma > 0:
            taps[i] = math.exp(-0.5 * ((i - reach) / sigma) ** 2)
    taps /= taps.sum()
    blurred = np.zeros((width, height))
    for i in range(2 * reach + 1):
        for x in range(width):
            blurred[x] += taps[i] * light[:, min(max(x + i - reach, 0), width - 1)]
    return blurred


@jit()
def render(image: Any, scene: Any) -> Any:
    """Return the log luminance of `image` [H, W] as the optics show it, FINE samples a pixel.

    The result has MARGIN blank image pixels on each side.
    """
    shown = np.empty(256)
    for value in range(256):
        shown[value] = scene.paper + (scene.ink - scene.paper) * (value / 255.0) ** scene.gamma
    height, width = (image.shape[0] + 2 * MARGIN) * FINE, (image.shape[1] + 2 * MARGIN) * FINE
    light = np.full((height, width), shown[0])
    for y in range(image.shape[0] * FINE):
        for x in range(image.shape[1] * FINE):
            light[y + MARGIN * FINE, x + MARGIN * FINE] = shown[image[y // FINE, x // FINE]]
    sigma = scene.blur_px / scene.scale * FINE
    return np.log(_blur_rows(_blur_rows(light, sigma), sigma))


@jit(inline="always")
def _place(at: Any, origin: Any, scale: Any, size: Any) -> Any:
    """Return where, in samples of `render` along one axis, the sensor pixel `at` looks."""
    place = ((at - origin) / scale + MARGIN + 0.5) * FINE - 0.5
    return min(max(place, 0.0), size - 1.001)


@jit()
def _same_all_along(fine: Any, reach: Any, scale: Any, x: Any, y: Any) -> Any:
    """Return whether pixel (x, y) sees one luminance however the image moves within `reach`.

    reach: (smallest x, largest x, smallest y, largest y) of the image's path.
    """
    height, width = fine.shape
    left, right = _place(x, reach[1], scale, width), _place(x, reach[0], scale, width)
    top, bottom = _place(y, reach[3], scale, height), _place(y, reach[2], scale, height)
    first = fine[int(top), int(left)]
    for j in range(int(top), int(bottom) + 2):
        for i in range(int(left), int(right) + 2):
            if fine[j, i] != first:
                return False
    return True


@jit()
def trace(fine: Any, path: Any, scale: Any, x: Any, y: Any, levels: Any) -> None:
    """Fill `levels` [steps + 1] with the log luminance at pixel (x, y) as the image moves.

    fine: a result of `render`; path: [steps + 1, 2], where on the sensor the middle of the top
    left image pixel lies. Bilinear between samples; past the margin the nearest sample holds.
    """
    height, width = fine.shape
    for k in range(path.shape[0]):
        u, v = _place(x, path[k, 0], scale, width), _place(y, path[k, 1], scale, height)
        i, j = int(u), int(v)
        a, b = u - i, v - j
        above = (1 - a) * fine[j, i] + a * fine[j, i + 1]
        below = (1 - a) * fine[j + 1, i] + a * fine[j + 1, i + 1]
        levels[k] = (1 - b) * above + b * below


@jit(parallel=True)
def watch_images(
    images: Any,
    paths: Any,
    drifts: Any,
    seeds: Any,
    scene: Any,
    thresholds: Any,
    rule: Any,
    keys: Any,
) -> Any:
    """Write each image's events to its row of `keys`, unsorted; return their numbers."""
    n, (height, width) = images.shape[0], thresholds.shape[:2]
    counts = np.zeros(n, np.int64)
    for i in numba.prange(n):
        fine = render(images[i], scene)
        levels = np.empty(paths.shape[1])
        px, py = paths[i, :, 0], paths[i, :, 1]
        reach = (px.min(), px.max(), py.min(), py.max())
        for pixel in range(height * width):
            y, x = pixel // width, pixel % width
            if _same_all_along(fine, reach, scene.scale, x, y):
                levels[:] = 0.0  # only changes count
            else:
                trace(fine, paths[i], scene.scale, x, y, levels)
            counts[i] += watch_pixel(
                levels,
                drifts[i] * thresholds[y, x],
                rule,
                pixel_seed(seeds[i], pixel),
                (height * width * 2, pixel * 2),
                keys[i, min(counts[i], keys.shape[1]) :],
            )
    return counts
