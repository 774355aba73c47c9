"""What every rule of the registry declares of itself, a line each, for `test_rules.py`.

Each is also tested where the readout starts as the support's prototypes: its name with `STARTED`.
"""

from typing import NamedTuple

from spikeshot.learn.rules.transform import RateKind

ALL = ("layer0", "layer1", "layer2", "readout")
STARTED = " from prototypes"
NAMES = {"tensor": "log_rate", "step": "log_rates", "parameter": "rate_factor"}  # of learned rates


class Case(NamedTuple):
    """A rule's declarations.

    `changes`: the layers that inner steps change; `rate`: one with which it learns the small task;
    `options` of its credit; `rates`: the kind with which it is tested; `learned`: meta-parameters
    beside the rates of what it changes; `first_order`: its exact meta-gradient is that already;
    `constant`: why central differences do not see the exact meta-gradient ("": they do);
    `random`: it draws from the task's key.
    """

    changes: tuple[str, ...] = ALL
    rate: float = 0.3
    options: dict[str, float] = {}  # noqa: RUF012
    rates: RateKind = "tensor"
    learned: tuple[str, ...] = ()
    first_order: bool = False
    constant: str = ""
    random: bool = False


CASES = {
    "sgd": Case(),
    "anil": Case(changes=ALL[3:], rate=1.0),
    "boil": Case(changes=ALL[:3], rate=1.0),
    "frozen": Case(changes=ALL[1:], rate=2.0, options={"freeze": 1}),
    "truncated": Case(options={"last_steps": 5}, constant="the state before the last steps"),
    "soel": Case(
        changes=ALL[3:],
        rate=1.0,
        options={"threshold": 0.3, "learn_threshold": True},
        learned=("credit.log_threshold",),
    ),
    "decolle": Case(options={"readout_seed": 7}),
    "sign": Case(rate=0.02, first_order=True),
    "meta-sgd": Case(rates="parameter"),
    "maml++": Case(rates="step"),
}


def case_of(name: str) -> Case:
    """Return the declarations of a rule, or of one with `STARTED`, which learns its gain too."""
    case = CASES[name.removesuffix(STARTED)]
    return case._replace(learned=(*case.learned, "start.log_gain")) if STARTED in name else case


def reached(name: str) -> set[str]:
    """Return the layers whose meta-learned values the query loss depends on."""
    return set(ALL[:3] if name.endswith(STARTED) else ALL)
