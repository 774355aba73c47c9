"""Published algorithms as compositions of the slots, a line each.

What belongs to the outer loop is not a rule: first order, Reptile, the multi-step loss and the
annealing of derivatives are settings of the meta-gradient (`meta_gradient.py`, `meta_train.py`) and
go with any rule: `maml++` is its rates alone. ANIL and BOIL follow from the part that inner steps
change: all is meta-learned. `sign` takes no derivative through the signs, as published, and its
rate is what a weight moves by.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from spikeshot.errors import ConfigError, nearest_hint
from spikeshot.learn.rules.apply import add
from spikeshot.learn.rules.credit import Truncated, backprop
from spikeshot.learn.rules.credit_local import ErrorTriggered, LocalReadouts
from spikeshot.learn.rules.part import above, body, last_layer
from spikeshot.learn.rules.rule import Rule
from spikeshot.learn.rules.transform import DescendAtRate, RateKind, chain
from spikeshot.learn.rules.transform_precision import Sign


@dataclass(frozen=True)
class CreditOptions:
    """Constants of credits; each rule heeds its own.

    `freeze`: first layers that inner steps leave alone (`frozen`); `threshold` of the error, and
    whether it is learned (`soel`); `readout_seed` of the fixed local readouts (`decolle`);
    `last_steps`: time steps looked back (`truncated`).
    """

    freeze: int = 1
    threshold: float = 0.05
    learn_threshold: bool = False
    readout_seed: int = 0
    last_steps: int = 10


DEFAULTS = CreditOptions()

RULES: dict[str, Callable[[DescendAtRate, CreditOptions], Rule]] = {
    "sgd": lambda sgd, o: Rule(backprop, sgd, add),
    "anil": lambda sgd, o: Rule(backprop, sgd, add, part=last_layer),
    "boil": lambda sgd, o: Rule(backprop, sgd, add, part=body),
    "frozen": lambda sgd, o: Rule(backprop, sgd, add, part=above(o.freeze)),
    "truncated": lambda sgd, o: Rule(Truncated(o.last_steps), sgd, add),
    "soel": lambda sgd, o: Rule(
        ErrorTriggered(o.threshold, o.learn_threshold), sgd, add, part=last_layer
    ),
    "decolle": lambda sgd, o: Rule(LocalReadouts(o.readout_seed), sgd, add),
    "sign": lambda sgd, o: Rule(backprop, chain(Sign("one", 0.0, "zero"), sgd), add),
    "meta-sgd": lambda sgd, o: Rule(backprop, _with(sgd, "parameter"), add),
    "maml++": lambda sgd, o: Rule(backprop, _with(sgd, "step"), add),
}


def _with(sgd: DescendAtRate, kind: RateKind) -> DescendAtRate:
    """Return `sgd` with the rates that are a rule's own; raises `ConfigError` for other learned."""
    if sgd.kind not in ("fixed", kind):
        raise ConfigError(f"rates are {sgd.kind!r}; expected {kind!r}, which this rule learns.")
    return replace(sgd, kind=kind)


def get_rule(
    name: str, rate: float, kind: RateKind, options: CreditOptions = DEFAULTS, *, steps: int = 1
) -> Rule:
    """Return the rule `name` with its (start) rate; raises `ConfigError` for an unknown name.

    `steps`: inner steps that have a rate of their own, where `kind` is `step`.
    """
    if name not in RULES:
        raise ConfigError(
            f"rule {name!r} is unknown{nearest_hint(name, RULES)}; expected one of "
            f"{', '.join(RULES)}."
        )
    return RULES[name](DescendAtRate(rate, kind, steps), options)
