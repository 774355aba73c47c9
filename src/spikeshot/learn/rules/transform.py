"""Transforms: gradients become updates, chainable, the minus sign included at the end."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from spikeshot.errors import ConfigError
from spikeshot.learn.rules.rule import Moment, Params, Transform

RateKind = Literal["fixed", "scalar", "tensor", "step", "parameter"]


@dataclass(frozen=True)
class Chain:
    """Transforms one after the other; the state is kept per link.

    Learned values keep the names that their link gives them, so that weights learned with one chain
    can be used with a longer one; no two links may learn values of one name.
    """

    links: tuple[Transform, ...]

    def learned(self, params: Params) -> Params:
        """Return the meta-parameters of every link."""
        found: Params = {}
        for link in self.links:
            mine = link.learned(params)
            if twice := sorted(found.keys() & mine.keys()):
                raise ConfigError(
                    f"two links of a chain learn {twice[0]!r}; expected one link of each kind."
                )
            found |= mine
        return found

    def init(self, params: Params) -> tuple[Any, ...]:
        """Return the states of all links."""
        return tuple(link.init(params) for link in self.links)

    def update(
        self, grads: Params, state: tuple[Any, ...], learned: Params, moment: Moment
    ) -> tuple[Params, tuple[Any, ...]]:
        """Run the links in order."""
        after = []
        for link, before in zip(self.links, state, strict=True):
            grads, link_state = link.update(grads, before, learned, moment)
            after.append(link_state)
        return grads, tuple(after)


def chain(*links: Transform) -> Chain:
    """Return the transforms run one after the other."""
    return Chain(links)


class Fixed:
    """A transform that learns nothing and keeps no state: what most of them are."""

    def learned(self, params: Params) -> Params:
        """Return nothing."""
        return {}

    def init(self, params: Params) -> Any:
        """Return no state."""
        return None


@dataclass(frozen=True)
class DescendAtRate:
    """update = -rate * gradient (plain SGD), the rate fixed or a meta-parameter.

    `kind`: `fixed`; `scalar`, one learned rate (Meta-SGD's idea, Li et al. 2017, at its coarsest);
    `tensor`, one per parameter tensor; `step`, one per tensor and inner step (MAML++, Antoniou et
    al. 2019), where steps beyond the `steps` trained ones take the last one's. These are learned as
    their logarithm, so that a rate stays positive and its outer steps are relative. `parameter`,
    one for every weight (Meta-SGD): `rate` times a learned factor that starts at 1 and may become
    negative, as in the paper, so that a weight may learn to go up its gradient.
    """

    rate: float
    kind: RateKind = "fixed"
    steps: int = 1

    def learned(self, params: Params) -> Params:
        """Return what is learned.

        `log_rate` or `log_rate.<parameter>` [], `log_rates.<parameter>` [steps, at least 1], or
        `rate_factor.<parameter>` of the parameter's shape.
        """
        some = next(iter(params.values()))
        start = torch.tensor(math.log(self.rate), dtype=some.dtype, device=some.device)
        if self.kind == "fixed":
            return {}
        if self.kind == "scalar":
            return {"log_rate": start}
        if self.kind == "tensor":
            return {f"log_rate.{name}": start.clone() for name in params}
        if self.kind == "step":
            return {f"log_rates.{name}": start.repeat(max(self.steps, 1)) for name in params}
        return {f"rate_factor.{name}": torch.ones_like(value) for name, value in params.items()}

    def init(self, params: Params) -> None:
        """No state."""

    def update(
        self, grads: Params, state: None, learned: Params, moment: Moment
    ) -> tuple[Params, None]:
        """Return `-rate * gradient` for every parameter."""
        rates = {name: self._rate(name, learned, moment.step) for name in grads}
        return {name: -rates[name] * grad for name, grad in grads.items()}, None

    def _rate(self, name: str, learned: Params, step: int) -> torch.Tensor | float:
        if self.kind == "fixed":
            return self.rate
        if self.kind == "scalar":
            return learned["log_rate"].exp()
        if self.kind == "tensor":
            return learned[f"log_rate.{name}"].exp()
        if self.kind == "step":
            rates = learned[f"log_rates.{name}"]
            return rates[min(step, len(rates) - 1)].exp()
        return self.rate * learned[f"rate_factor.{name}"]
