"""Transforms: gradients become updates, chainable, the minus sign included at the end."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from spikeshot.learn.rules.rule import Moment, Params, Transform

RateKind = Literal["fixed", "scalar", "tensor"]


@dataclass(frozen=True)
class Chain:
    """Transforms one after the other; states and learned values are kept per link."""

    links: tuple[Transform, ...]

    def learned(self, params: Params) -> Params:
        """Return the meta-parameters of every link, named `<link>.<name>`."""
        return {
            f"{i}.{name}": value
            for i, link in enumerate(self.links)
            for name, value in link.learned(params).items()
        }

    def init(self, params: Params) -> tuple[Any, ...]:
        """Return the states of all links."""
        return tuple(link.init(params) for link in self.links)

    def update(
        self, grads: Params, state: tuple[Any, ...], learned: Params, moment: Moment
    ) -> tuple[Params, tuple[Any, ...]]:
        """Run the links in order."""
        after = []
        for i, (link, before) in enumerate(zip(self.links, state, strict=True)):
            prefix = f"{i}."
            mine = {n.removeprefix(prefix): v for n, v in learned.items() if n.startswith(prefix)}
            grads, link_state = link.update(grads, before, mine, moment)
            after.append(link_state)
        return grads, tuple(after)


def chain(*links: Transform) -> Chain:
    """Return the transforms run one after the other."""
    return Chain(links)


@dataclass(frozen=True)
class DescendAtRate:
    """update = -rate * gradient (plain SGD), the rate fixed or a meta-parameter.

    `kind`: `fixed`; `scalar`, one learned rate (Meta-SGD's idea, Li et al. 2017, at its coarsest);
    `tensor`, one per parameter tensor (Antoniou et al. 2019). Learned as its logarithm, so a rate
    stays positive and its outer steps are relative.
    """

    rate: float
    kind: RateKind = "fixed"

    def learned(self, params: Params) -> Params:
        """Return log rates: none, `log_rate`, or `log_rate.<parameter>`, each of shape []."""
        some = next(iter(params.values()))
        start = torch.tensor(math.log(self.rate), dtype=some.dtype, device=some.device)
        if self.kind == "fixed":
            return {}
        if self.kind == "scalar":
            return {"log_rate": start}
        return {f"log_rate.{name}": start.clone() for name in params}

    def init(self, params: Params) -> None:
        """No state."""

    def update(
        self, grads: Params, state: None, learned: Params, moment: Moment
    ) -> tuple[Params, None]:
        """Return `-rate * gradient` for every parameter."""
        return {name: -self._rate(name, learned) * grad for name, grad in grads.items()}, None

    def _rate(self, name: str, learned: Params) -> torch.Tensor | float:
        if self.kind == "fixed":
            return self.rate
        return learned["log_rate" if self.kind == "scalar" else f"log_rate.{name}"].exp()
