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
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.camera_kernels import MIN_GAIN, Pixel, watch_film
from spikeshot.data.events import Events, make_events
from spikeshot.errors import ConfigError, DataError


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
    theta_on: float = 0.288
    theta_off: float = 0.277
    mismatch: float = 0.05
    threshold_noise: float = 0.0
    drift: float = 0.0
    start_spread: float = 0.385
    refractory_us: float = 426.0
    lag_on_us: float = 1_540.0
    lag_off_us: float = 480.0
    noise_on_hz: float = 0.4
    noise_off_hz: float = 0.04
    paper: float = 1.0
    ink: float = 0.125
    gamma: float = 0.950
    blur_px: float = 0.441
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
        count = watch_film(film, thresholds, rule, np.uint64(seed % 2**64), keys)
        if count <= room:
            return decode_keys(keys[:count], camera.sensor_size)
        room = count


def decode_keys(keys: NDArray[np.int64], sensor_size: tuple[int, int]) -> Events:
    """Return the events of keys `((t * height + y) * width + x) * 2 + p`, in order of time."""
    width, height = sensor_size
    t, code = np.divmod(np.sort(keys), height * width * 2)
    return make_events(code // 2 % width, code // 2 // width, t, code % 2)
