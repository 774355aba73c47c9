"""A rule meets hardware: any rule, with updates of few bits, weights on a grid and a device."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from spikeshot.learn.rules.apply import add
from spikeshot.learn.rules.quantise import WeightSpec, fit_grids, quantised, then
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
) -> Rule:
    """Return gradient descent by `credit` (`rate`, `kind`, `steps`: `DescendAtRate`), equipped."""
    rule = Rule(credit, DescendAtRate(rate, kind, steps), add)
    return equip(rule, weights=weights, updates=updates)


def equip(
    rule: Rule, *, weights: WeightSpec | None = None, updates: UpdateSpec | None = None
) -> Rule:
    """Return `rule` with its updates and weights as specified; with nothing given, `rule` itself.

    What `updates` asks for comes before the rule's own transform (its rates), so that a threshold
    or a number of bits means the same for any rate. The grid of `weights` comes after everything.
    """
    transform, medium = rule.transform, rule.medium
    if links := (updates or UpdateSpec()).links():
        transform = chain(*links, transform)
    if weights is not None and weights.on:
        medium = _medium(rule, weights)
    return replace(rule, transform=transform, medium=medium)


def _medium(rule: Rule, weights: WeightSpec) -> Medium:
    def settle(start: Params, transform: Transform) -> Slots:
        place, apply = rule.place, rule.apply
        grids = fit_grids(start, weights)
        clipped = weights.clipped_gradient
        if weights.where in ("outer", "both"):
            place = quantised(grids, weights.place_rounding, Use.PLACE, clipped=clipped)
        if weights.where in ("inner", "both"):
            put = quantised(grids, weights.rounding, Use.WRITE, clipped=clipped)
            apply = then(apply, put)
            if weights.accumulate:
                transform = chain(transform, WholeSteps(grids))
        return Slots(transform, apply, place, rule.read)

    return settle
