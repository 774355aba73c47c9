"""A rule meets hardware: any rule, with updates of few bits, weights on a grid and a device."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from spikeshot.learn.rules.apply import add
from spikeshot.learn.rules.devices import DeviceSpec, fit_device
from spikeshot.learn.rules.quantise import WeightSpec, fit_grids, in_turn, quantised, then
from spikeshot.learn.rules.rounding import Rounding, Use
from spikeshot.learn.rules.rule import Credit, Medium, Params, Rule, Slots, Transform
from spikeshot.learn.rules.transform import DescendAtRate, RateKind, chain
from spikeshot.learn.rules.transform_limits import Clip, ClipNorm, Sparsify
from spikeshot.learn.rules.transform_memory import KeepBack, Momentum, WholeSteps
from spikeshot.learn.rules.transform_precision import Derivative, Levels, Sign, Size


@dataclass(frozen=True)
class UpdateSpec:
    """What happens to gradients before the rate, in this order; 0 (1 for `keep`) switches off.

    `clip`, `clip_norm`, `momentum`, `keep` (a share; `keep_which`, `keep_rescale`), `keep_back`
    (`KeepBack`'s threshold), `levels` (`threshold` of `ternary`, `bits` and `rounding` of `bits`,
    `size` of both signs, and their `derivative`).
    """

    clip: float = 0.0
    clip_norm: float = 0.0
    momentum: float = 0.0
    keep: float = 1.0
    keep_which: Literal["random", "largest"] = "random"
    keep_rescale: bool = False
    keep_back: float = 0.0
    levels: Literal["float", "sign", "ternary", "bits"] = "float"
    threshold: float = 0.5
    bits: int = 8
    rounding: Rounding = "nearest"
    size: Size = "mean"
    derivative: Derivative = "straight_through"

    def links(self) -> tuple[Transform, ...]:
        """Return the links of the chain that are switched on."""
        links: list[Transform] = []
        if self.clip:
            links.append(Clip(self.clip))
        if self.clip_norm:
            links.append(ClipNorm(self.clip_norm))
        if self.momentum:
            links.append(Momentum(self.momentum))
        if self.keep < 1:
            links.append(Sparsify(self.keep, self.keep_which, self.keep_rescale))
        if self.keep_back:
            links.append(KeepBack(self.keep_back))
        return (*links, *_LEVELS[self.levels](self))


_LEVELS: dict[str, Callable[[UpdateSpec], tuple[Transform, ...]]] = {
    "float": lambda spec: (),
    "sign": lambda spec: (Sign(spec.size, 0.0, spec.derivative),),
    "ternary": lambda spec: (Sign(spec.size, spec.threshold, spec.derivative),),
    "bits": lambda spec: (Levels(spec.bits, spec.rounding, spec.derivative),),
}


def compose(
    credit: Credit,
    rate: float = 1.0,
    kind: RateKind = "fixed",
    steps: int = 1,
    *,
    weights: WeightSpec | None = None,
    updates: UpdateSpec | None = None,
    device: DeviceSpec | None = None,
) -> Rule:
    """Return gradient descent by `credit` (`rate`, `kind`, `steps`: `DescendAtRate`), equipped."""
    rule = Rule(credit, DescendAtRate(rate, kind, steps), add)
    return equip(rule, weights=weights, updates=updates, device=device)


def equip(
    rule: Rule,
    *,
    weights: WeightSpec | None = None,
    updates: UpdateSpec | None = None,
    device: DeviceSpec | None = None,
) -> Rule:
    """Return `rule` with updates, weights and device as specified; with none of them, `rule`.

    What `updates` asks for comes before the rule's own transform (its rates), so that a threshold
    or a number of bits means the same for any rate. A device takes the place of the rule's `apply`.
    The grid of `weights` comes after everything: what a device holds is put on it.
    """
    weights, device = weights or WeightSpec(), device or DeviceSpec()
    transform, medium = rule.transform, rule.medium
    if links := (updates or UpdateSpec()).links():
        transform = chain(*links, transform)
    if weights.on or device.on:
        medium = _medium(rule, weights, device)
    return replace(rule, transform=transform, medium=medium)


def _medium(rule: Rule, weights: WeightSpec, device: DeviceSpec) -> Medium:
    """Return what fits grid and device to the parameters that a task starts from."""

    def settle(start: Params, transform: Transform) -> Slots:
        apply, places, read = rule.apply, [rule.place], rule.read
        grids = fit_grids(start, weights) if weights.on else {}
        clipped = weights.clipped_gradient
        if grids and weights.where in ("outer", "both"):
            places.append(quantised(grids, weights.place_rounding, Use.PLACE, clipped=clipped))
        if device.on:
            there = fit_device(start, device)
            apply, read = there.apply, there.read if device.read_noise else rule.read
            places.append(there.place)
        if grids and weights.where in ("inner", "both"):
            apply = then(apply, quantised(grids, weights.rounding, Use.WRITE, clipped=clipped))
            if weights.accumulate:
                transform = chain(transform, WholeSteps(grids))
        return Slots(transform, apply, in_turn(*places), read)

    return settle
