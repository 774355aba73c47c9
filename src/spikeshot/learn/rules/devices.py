"""Devices: how memristive weights change when they are asked to, and how they are read.

A weight w lives in a range of its tensor, -B..B, found when a task starts: B is `headroom` times
the largest meta-learned |w|. The models see v = w / B and the update x = u / B that is asked for:

    ideal           v' = v + x
    linear          v' = v + x (1 + asymmetry sign(x))      equal steps, up and down of other size
    soft_bounds     v' = v + x (1 - v sign(x))^curvature    steps shrink towards the bound ahead
    gokmen_haensch  v' = -b + (b + v) exp(A x), A = beta + gamma sign(x), b = alpha / A
    table           v' = the measured conductance some pulses on (`device_table.py`)

The law of Gokmen & Haensch (2020) is dv = (alpha + A v) dx, integrated: with beta = 0 and gamma
below 0 it has bounds at +-alpha / |gamma|, and beta makes them unequal. Whatever the model, every
device has a strength of its own, fixed in a task (`variation`), pulses are noisy (`sigma`: standard
deviation sigma sqrt(|x|)), and so are writing, placing and reading. A weight that is asked for
nothing stays as it is, bit for bit. Derivatives are those of these laws, exact almost everywhere,
and 0 beyond the range; noise and its size are constants to every gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spikeshot.learn.rules.device_table import Table, pulsed
from spikeshot.learn.rules.rounding import Rounding, Use, normal, uniform
from spikeshot.learn.rules.rule import Moment, Params

Model = Literal["none", "ideal", "linear", "soft_bounds", "gokmen_haensch", "table"]


@dataclass(frozen=True)
class DeviceSpec:
    """A device (`model` `none`: weights are numbers); noises in units of half the range.

    `asymmetry` of `linear`; `curvature` of `soft_bounds`; `alpha`, `beta`, `gamma` of
    `gokmen_haensch`; `table`, whose pulses are whole numbers by `rounding`. `variation`: standard
    deviation of the logarithm of a device's strength. `sigma` of pulses, `write_noise` of every
    weight that a step changes, `place_noise` of the start, `read_noise` of each forward pass.
    `biases`: they live on devices too (else they are numbers).
    """

    model: Model = "none"
    asymmetry: float = 0.0
    curvature: float = 1.0
    alpha: float = 1.0
    beta: float = 0.0
    gamma: float = -1.0
    table: Table | None = None
    rounding: Rounding = "stochastic"
    variation: float = 0.0
    sigma: float = 0.0
    write_noise: float = 0.0
    place_noise: float = 0.0
    read_noise: float = 0.0
    headroom: float = 1.0
    readout_headroom: float = 4.0
    biases: bool = False

    @property
    def on(self) -> bool:
        """True where there is a device at all."""
        return self.model != "none"


@dataclass(frozen=True)
class Device:
    """The devices of one task: `reach` [] is the B of each tensor that lives on them."""

    spec: DeviceSpec
    reach: Params

    def place(self, params: Params, moment: Moment) -> Params:
        """Return the parameters written onto the devices: held in the range, with noise."""
        noisy = self._noisy(params, moment, self.spec.place_noise, Use.PLACE_NOISE)
        return {n: self._held(n, value) for n, value in noisy.items()}

    def read(self, params: Params, moment: Moment) -> Params:
        """Return the parameters as a forward pass at this moment sees them."""
        return self._noisy(params, moment, self.spec.read_noise, Use.READ_NOISE)

    def apply(self, params: Params, updates: Params, moment: Moment) -> Params:
        """Return what the devices hold after `updates` were asked for."""
        return {
            n: self._changed(n, value, updates[n], moment)
            if n in self.reach
            else value + updates[n]
            for n, value in params.items()
        }

    def _changed(self, name: str, value: Tensor, update: Tensor, moment: Moment) -> Tensor:
        spec, reach = self.spec, self.reach[name]
        v, x = value / reach, update / reach
        if spec.variation:  # drawn for the task: the same devices at every step
            eps = normal(Moment(moment.key, 0), Use.VARIATION, name, value)
            x = x * torch.exp(spec.variation * eps)
        change = _MODELS[spec.model](spec, v, x, (moment, name))
        noise = torch.zeros_like(v)
        if spec.sigma:
            size = spec.sigma * x.detach().abs().sqrt()
            noise = noise + size * normal(moment, Use.PULSE_NOISE, name, value)
        if spec.write_noise:
            written = (change.detach() != 0).to(v.dtype)
            noise = noise + spec.write_noise * written * normal(
                moment, Use.WRITE_NOISE, name, value
            )
        return self._held(name, value + (change + noise) * reach)

    def _noisy(self, params: Params, moment: Moment, size: float, use: Use) -> Params:
        if not size:
            return params
        return {
            n: value + size * self.reach[n] * normal(moment, use, n, value)
            if n in self.reach
            else value
            for n, value in params.items()
        }

    def _held(self, name: str, value: Tensor) -> Tensor:
        if name not in self.reach:
            return value
        return torch.clamp(value, -self.reach[name], self.reach[name])


def fit_device(params: Params, spec: DeviceSpec) -> Device:
    """Return the devices of a task that starts at `params`; a tensor of zeros has the range 1."""
    reach = {}
    for name, value in params.items():
        if value.dim() > 1 or spec.biases:
            room = spec.readout_headroom if name.startswith("readout.") else spec.headroom
            largest = value.abs().max()
            reach[name] = torch.where(largest > 0, largest, torch.ones_like(largest)) * room
    return Device(spec, reach)


_Drawn = tuple[Moment, str]


def _ideal(spec: DeviceSpec, v: Tensor, x: Tensor, drawn: _Drawn) -> Tensor:
    return x


def _linear(spec: DeviceSpec, v: Tensor, x: Tensor, drawn: _Drawn) -> Tensor:
    return x * (1 + spec.asymmetry * x.detach().sign())


def _soft_bounds(spec: DeviceSpec, v: Tensor, x: Tensor, drawn: _Drawn) -> Tensor:
    room = (1 - v * x.detach().sign()).clamp(min=0)
    return x * (room if spec.curvature == 1 else (room + 1e-12) ** spec.curvature)


def _gokmen_haensch(spec: DeviceSpec, v: Tensor, x: Tensor, drawn: _Drawn) -> Tensor:
    slope = spec.beta + spec.gamma * x.detach().sign()  # A
    flat = slope.abs() < 1e-9  # then exp(A x) - 1 over A is x
    safe = torch.where(flat, torch.ones_like(slope), slope)
    return (spec.alpha + slope * v) * torch.where(flat, x, torch.expm1(safe * x) / safe)


def _table(spec: DeviceSpec, v: Tensor, x: Tensor, drawn: _Drawn) -> Tensor:
    if spec.table is None:
        raise ValueError("a device of model 'table' needs a table")
    moment, name = drawn
    draw = uniform(moment, Use.PULSE, name, x) if spec.rounding == "stochastic" else None
    return pulsed(spec.table, v, x, draw) - v


_MODELS: dict[str, Callable[[DeviceSpec, Tensor, Tensor, _Drawn], Tensor]] = {
    "ideal": _ideal,
    "linear": _linear,
    "soft_bounds": _soft_bounds,
    "gokmen_haensch": _gokmen_haensch,
    "table": _table,
}
