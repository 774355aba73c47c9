"""Published algorithms as compositions of the three slots, a line each."""

from collections.abc import Callable

from spikeshot.errors import ConfigError, nearest_hint
from spikeshot.learn.rules.apply import add
from spikeshot.learn.rules.credit import backprop
from spikeshot.learn.rules.rule import Rule
from spikeshot.learn.rules.transform import DescendAtRate, RateKind

RULES: dict[str, Callable[[DescendAtRate], Rule]] = {
    "sgd": lambda descend: Rule(backprop, descend, add),
}


def get_rule(name: str, rate: float, kind: RateKind, steps: int = 1) -> Rule:
    """Return the rule `name` at its (start) rate; raises `ConfigError` for an unknown name."""
    if name not in RULES:
        raise ConfigError(
            f"rule {name!r} is unknown{nearest_hint(name, RULES)}; expected one of "
            f"{', '.join(RULES)}."
        )
    return RULES[name](DescendAtRate(rate, kind, steps))
