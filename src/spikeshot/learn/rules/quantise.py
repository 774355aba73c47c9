"""Weights on a fixed-point grid: whole numbers times a step that stays the same in a task.

    w = step * code,   code a whole number in -limit..limit,   limit = 2^(bits - 1) - 1

The grid is symmetric (2 bits: -1, 0, 1), so that it prefers no sign. Its step comes from the
meta-learned parameters before they are placed, and the whole task stays on it: a weight that would
leave the range stops at its end. The step is a constant to every gradient, and rounding passes
gradients straight through: the derivative is 1 (Bengio et al. 2013), beyond the range too, unless
`clipped_gradient` makes it 0 there.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spikeshot.learn.rules.rounding import (
    Rounding,
    Use,
    straight_through,
    to_whole,
    uniform,
)
from spikeshot.learn.rules.rule import Apply, Moment, Params, View

Fit = Literal["max", "mse"]
_SHARES = 24  # ranges that the fit `mse` tries


@dataclass(frozen=True)
class Grid:
    """The grid of one tensor: `step` [] or [units, 1, ...], and the largest code `limit`."""

    step: Tensor
    limit: int

    def codes(self, value: Tensor) -> Tensor:
        """Return the whole numbers (int32) of values on the grid, exactly."""
        return (value / self.step).round().to(torch.int32)

    def values(self, codes: Tensor) -> Tensor:
        """Return the values of whole numbers: what `codes` was given, bit for bit."""
        return codes.to(self.step.dtype) * self.step

    def holds(self, value: Tensor) -> bool:
        """True where every value is on the grid and in its range."""
        codes = self.codes(value)
        return bool((codes.abs() <= self.limit).all()) and torch.equal(self.values(codes), value)

    def put(self, value: Tensor, draw: Tensor | None = None, *, clipped: bool = False) -> Tensor:
        """Return `value` on the grid: nearest, or with uniform numbers `draw` stochastic.

        A value on the grid stays where it is. `clipped`: no derivative from beyond the range.
        """
        x = value.detach() / self.step
        code = to_whole(x)
        if draw is not None:  # a quotient may lie a rounding error beside its whole number
            code = torch.where(code * self.step == value, code, to_whole(x, draw))
        code = code.clamp(-self.limit, self.limit) + 0.0  # + 0.0: there is no negative zero
        passes = (x.abs() <= self.limit).to(value.dtype) if clipped else None
        return straight_through(value, code * self.step, passes)


@dataclass(frozen=True)
class WeightSpec:
    """How weights are stored: `bits` (0: floating point) and how their grid is found.

    `bias_bits`: of the biases, which are added where the inputs are summed, in more bits than a
    weight has (0: floating point). `where`: `outer`, the parameters that a task starts from are on
    the grid; `inner`, those after each inner step; `both`. `rounding` of inner steps,
    `place_rounding` of the start. `scale`: one step per `tensor` or per output `channel` (biases
    always have one per tensor); `power_of_two`: the step is one. `fit`: the range is the largest
    |w|, or the one of least squared error. The range is `headroom` times that; in the readout,
    which starts small and moves most, `readout_headroom` times.
    """

    bits: int = 0
    bias_bits: int = 16
    where: Literal["none", "inner", "outer", "both"] = "both"
    rounding: Rounding = "nearest"
    place_rounding: Rounding = "nearest"
    scale: Literal["tensor", "channel"] = "tensor"
    power_of_two: bool = False
    fit: Fit = "mse"
    headroom: float = 1.0
    readout_headroom: float = 4.0
    clipped_gradient: bool = False
    accumulate: bool = False

    @property
    def on(self) -> bool:
        """True where there is a grid at all."""
        return self.bits > 0 and self.where != "none"


def fit_grids(params: Params, spec: WeightSpec) -> dict[str, Grid]:
    """Return the grids of the tensors that have one, from the meta-learned parameters."""
    grids = {}
    for name, value in params.items():
        weight = value.dim() > 1
        bits = spec.bits if weight else spec.bias_bits
        if bits:
            per_channel = weight and spec.scale == "channel"
            room = spec.readout_headroom if name.startswith("readout.") else spec.headroom
            limit = 2 ** (bits - 1) - 1
            reach = _reach(value, limit, per_channel, spec) * room
            grids[name] = Grid(_step(reach, limit, spec.power_of_two), limit)
    return grids


def _reach(value: Tensor, limit: int, per_channel: bool, spec: WeightSpec) -> Tensor:
    """Return the largest value of the grid; 1 for a tensor or channel of zeros."""
    dims = list(range(1, value.dim())) if per_channel else list(range(value.dim()))
    largest = value.abs().amax(dims, keepdim=per_channel)
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    if spec.fit == "max":
        return largest
    best, least = largest, torch.full_like(largest, float("inf"))
    for share in range(1, _SHARES + 1):
        reach = largest * share / _SHARES
        grid = Grid(_step(reach, limit, spec.power_of_two), limit)
        error = (grid.put(value) - value).square().sum(dims, keepdim=per_channel)
        best, least = torch.where(error <= least, reach, best), torch.minimum(error, least)
    return best


def _step(reach: Tensor, limit: int, power_of_two: bool) -> Tensor:
    """Return the step of a grid that reaches so far; as a power of two, at least so far."""
    step = reach / limit
    if not power_of_two:
        return step
    mantissa, exponent = torch.frexp(step)  # step = mantissa 2^exponent, 0.5 <= mantissa < 1
    return torch.ldexp(torch.ones_like(step), exponent - (mantissa == 0.5).to(exponent.dtype))


def quantised(
    grids: dict[str, Grid], rounding: Rounding, use: Use, *, clipped: bool = False
) -> View:
    """Return the view of parameters as they are on their grids."""

    def put(params: Params, moment: Moment) -> Params:
        return {
            n: _put(grids, n, value, rounding, use, moment, clipped) for n, value in params.items()
        }

    return put


def _put(
    grids: dict[str, Grid],
    name: str,
    value: Tensor,
    rounding: Rounding,
    use: Use,
    moment: Moment,
    clipped: bool,
) -> Tensor:
    if name not in grids:
        return value
    draw = uniform(moment, use, name, value) if rounding == "stochastic" else None
    return grids[name].put(value, draw, clipped=clipped)


def in_turn(*views: View) -> View:
    """Return the views one after the other."""

    def all_of_them(params: Params, moment: Moment) -> Params:
        for view in views:
            params = view(params, moment)
        return params

    return all_of_them


def then(apply: Apply, *views: View) -> Apply:
    """Return `apply` followed by `views`, as in: add, then quantise."""
    after = in_turn(*views)
    return lambda params, updates, moment: after(apply(params, updates, moment), moment)


def clamp(low: Params, high: Params) -> View:
    """Return the view of parameters held between `low` and `high`; no derivative beyond them."""

    def held(params: Params, moment: Moment) -> Params:
        return {n: torch.clamp(value, low[n], high[n]) for n, value in params.items()}

    return held
