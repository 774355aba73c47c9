"""A rule of your own: sign descent on the readout alone, put together from the three slots.

Only the last layer learns, and only the sign of its gradient is used, as simple hardware would.
Run: python examples/own_rule.py        (needs spikeshot[sample])
"""

from dataclasses import dataclass, replace

import spikeshot
from pretrained_digits import CLASSES, QUERIES, unseen_recordings
from spikeshot.learn.rules.apply import add
from spikeshot.learn.rules.credit import backprop
from spikeshot.learn.rules.rule import Moment, Params


@dataclass(frozen=True)
class SignOfReadout:
    """update = -rate * sign(gradient) in the readout, nothing elsewhere."""

    rate: float

    def learned(self, params: Params) -> Params:
        """Nothing of it is meta-learned."""
        return {}

    def init(self, params: Params) -> None:
        """It keeps no state from step to step."""

    def update(
        self, grads: Params, state: None, learned: Params, moment: Moment
    ) -> tuple[Params, None]:
        """Return updates, the minus sign included."""
        return {
            name: -self.rate * grad.sign() if name.startswith("readout") else 0 * grad
            for name, grad in grads.items()
        }, None


def main(rate: float = 0.003, steps: int = 10) -> dict[str, float]:
    """Adapt one learner by its own rule and by this one; return the accuracies (0 to 1)."""
    digits = unseen_recordings(per_digit=2 * (1 + QUERIES))
    pairs = {
        name: list(zip(digits[name[0]], digits[name[1]][::-1], strict=True)) for name in CLASSES
    }
    learner = spikeshot.load("pretrained:double-nmnist-simulated")
    mine = spikeshot.Rule(backprop, SignOfReadout(rate), add)
    found = {}
    for name, rule in (("its own rule", learner.learner.rule), ("sign of readout", mine)):
        other = replace(learner, learner=replace(learner.learner, rule=rule))
        adapted = other.adapt([pairs[c][0] for c in CLASSES], CLASSES, steps=steps)
        asked = [(c, pair) for c in CLASSES for pair in pairs[c][1 : 1 + QUERIES]]
        labels, _ = adapted.predict([pair for _, pair in asked])
        found[name] = sum(a == b for (a, _), b in zip(asked, labels, strict=True)) / len(asked)
        print(f"{name}: {found[name]:.0%} right")
    return found


if __name__ == "__main__":
    main()
