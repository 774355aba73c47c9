"""What hardware pays for: how many weights an adaptation touches, and how often it writes them."""

from dataclasses import dataclass, field, replace

from torch import Tensor

from spikeshot.learn.rules.rule import Moment, Params, Rule


@dataclass
class Tally:
    """Counts over the inner steps of one task; `weights`: all parameters, biases included.

    A write is an inner step after which the stored value of a weight is another than before it. The
    writing of the start (`Rule.place`) is not counted: a device does it once for many tasks.
    """

    weights: int
    writes: int = 0
    _touched: dict[str, Tensor] = field(default_factory=dict)

    def note(self, before: Params, after: Params) -> None:
        """Count what one inner step changed."""
        for name, value in after.items():
            changed = (value != before[name]).detach()
            self.writes += int(changed.sum())
            old = self._touched.get(name)
            self._touched[name] = changed if old is None else old | changed

    @property
    def writes_per_weight(self) -> float:
        """Writes in the whole adaptation over the number of weights."""
        return self.writes / self.weights

    @property
    def touched(self) -> float:
        """Share (0..1) of the weights that were written at least once."""
        return sum(int(t.sum()) for t in self._touched.values()) / self.weights


def counted(rule: Rule, init: Params) -> tuple[Rule, Tally]:
    """Return `rule`, settled at `init`, with the tally of its steps, for one task only."""
    rule = rule.settled(init)
    tally = Tally(sum(value.numel() for value in init.values()))

    def apply(params: Params, updates: Params, moment: Moment) -> Params:
        after = rule.apply(params, updates, moment)
        tally.note(params, after)
        return after

    return replace(rule, apply=apply), tally
