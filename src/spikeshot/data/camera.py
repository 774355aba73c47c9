"""The event camera: each pixel tells when its log luminance has moved by a threshold.

A pixel keeps a reference level. When `log L - reference >= theta_on` it sends an ON event, when
`reference - log L >= theta_off` an OFF event; the reference moves by the threshold, and after an
event the pixel is held in reset, its reference following the light, for the refractory period.

This is the pixel of Lichtsteiner, Posch & Delbruck, IEEE J. Solid-State Circuits 43(2) (2008),
shared by the ATIS of Posch, Matolin & Wohlgenannt, IEEE J. Solid-State Circuits 46(1) (2011)
that recorded N-MNIST; thresholds that differ between pixels, a photoreceptor of finite bandwidth
and background events follow Hu, Liu & Delbruck, "v2e", CVPR Workshops (2021).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from spikeshot.data.events import Events, make_events
from spikeshot.errors import ConfigError, DataError

MIN_GAIN = 0.3  # no random factor takes a threshold below this share of its mean


@dataclass(frozen=True)
class Camera:
    """The parameters of one event camera; all defaults are fitted to N-MNIST's ATIS.

    Pixel:
        sensor_size: (width, height) in pixels.
        theta_on, theta_off: thresholds in log luminance (natural logarithm).
        mismatch: standard deviation of a pixel's thresholds relative to `theta_on`, `theta_off`;
            a fixed property of one camera, drawn from `mismatch_seed`.
        threshold_noise: relative standard deviation of a threshold from event to event.
        drift: relative standard deviation of all thresholds from one recording to the next.
        start_spread: where a reference stands at time 0: at the level of the light (0) or
            anywhere between the two thresholds (1, as after a long past of events).
        refractory_us: dead time of a pixel after an event, microseconds.
        lag_on_us, lag_off_us: time constants of the photoreceptor's first-order low-pass for
            rising and for falling light, microseconds; 0: none.
        noise_on_hz, noise_off_hz: background events per pixel and second.
    Scene (used for images of 0..255):
        paper, ink: relative luminance shown for 0 and for 255. N-MNIST's polarity is that of
            dark digits on a bright ground.
        gamma: luminance is `paper + (ink - paper) * (value / 255) ** gamma`.
        blur_px: standard deviation of the optics' Gaussian blur, in sensor pixels.
    """

    sensor_size: tuple[int, int] = (34, 34)
    theta_on: float = 0.26
    theta_off: float = 0.266
    mismatch: float = 0.05
    threshold_noise: float = 0.0
    drift: float = 0.0
    start_spread: float = 0.5
    refractory_us: float = 586.0
    lag_on_us: float = 2_840.0
    lag_off_us: float = 1_200.0
    noise_on_hz: float = 0.224
    noise_off_hz: float = 0.046
    paper: float = 1.0
    ink: float = 0.1215
    gamma: float = 0.782
    blur_px: float = 0.514
    mismatch_seed: int = 0

    def __post_init__(self) -> None:
        """Refuse parameters that no camera has."""
        if min(self.sensor_size) < 1:
            raise ConfigError(f"sensor_size is {self.sensor_size}; expected 1 pixel or more each.")
        for name in ("theta_on", "theta_off", "paper", "ink", "gamma"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"camera {name} is {value}; expected a number above 0.")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "sensor_size" and not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"camera {field.name} is {value}; expected 0 or more.")


def pixel_thresholds(camera: Camera) -> NDArray[np.float64]:
    """Return the thresholds [height, width, 2] (OFF, ON) of the camera's pixels, mismatched."""
    width, height = camera.sensor_size
    rng = np.random.default_rng([camera.mismatch_seed, 0x6361])
    gains = 1.0 + camera.mismatch * rng.standard_normal((height, width, 2))
    thresholds = np.array([camera.theta_off, camera.theta_on], np.float64)
    return np.maximum(gains, MIN_GAIN) * thresholds


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


def pixel_rule(camera: Camera, step_us: float, end_us: float) -> Pixel:
    """Return the camera's pixel for light sampled each `step_us`, watched until `end_us`."""
    lags = (camera.lag_off_us, camera.lag_on_us)
    noise_hz = camera.noise_on_hz + camera.noise_off_hz
    return Pixel(
        float(step_us),
        float(end_us),
        float(camera.threshold_noise),
        float(camera.start_spread),
        float(camera.refractory_us),
        float(noise_hz),
        float(camera.noise_on_hz / noise_hz if noise_hz > 0 else 0.5),
        *(1.0 - math.exp(-step_us / lag) if lag > 0 else 1.0 for lag in lags),
    )


def watch(levels: NDArray[np.float64], step_us: float, *, camera: Camera, seed: int) -> Events:
    """Return the events of a film of log luminance.

    levels: [steps + 1, height, width], natural logarithm, at times 0, `step_us`, ...; linear in
    between. Raises `DataError` for another shape than the camera's sensor has.
    """
    width, height = camera.sensor_size
    if levels.ndim != 3 or levels.shape[1:] != (height, width) or len(levels) < 2:
        raise DataError(
            f"levels have shape {levels.shape}; expected [2 or more, {height}, {width}]. "
            "Give one log-luminance map of the sensor's size per step."
        )
    if not step_us > 0:
        raise DataError(f"step_us is {step_us}; expected more than 0 microseconds.")
    rule = pixel_rule(camera, step_us, (len(levels) - 1) * step_us)
    thresholds = pixel_thresholds(camera)
    film = np.ascontiguousarray(levels, np.float64)
    room = 1_024
    while True:
        keys = np.empty(room, np.int64)
        count = _watch_film(film, thresholds, rule, np.uint64(seed % 2**64), keys)
        if count <= room:
            return decode_keys(keys[:count], camera.sensor_size)
        room = count


def decode_keys(keys: NDArray[np.int64], sensor_size: tuple[int, int]) -> Events:
    """Return the events of keys `((t * height + y) * width + x) * 2 + p`, in order of time."""
    width, height = sensor_size
    t, code = np.divmod(np.sort(keys), height * width * 2)
    return make_events(code // 2 % width, code // 2 // width, t, code % 2)


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
        follow = rule.follow_on if levels[k + 1] > last else rule.follow_off
        level, last = last, last + follow * (levels[k + 1] - last)
        slope = (last - level) / rule.step_us
        if slope == 0.0 and noise_at >= stop:
            continue
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
def _watch_film(levels: Any, thresholds: Any, rule: Any, seed: Any, keys: Any) -> Any:
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
