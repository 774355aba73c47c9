"""A trained learner under other conditions: another rule, precision, device or size of task."""

from collections.abc import Sequence

from spikeshot.config import Config, config_from_dict
from spikeshot.errors import ConfigError
from spikeshot.learn.meta_train import Learner
from spikeshot.learn.rules.rule import Params
from spikeshot.stored import StoredLearner
from spikeshot.yaml_tree import override

SECTIONS = ("learn", "task")
KEYS = ("engine", "threads")


def overridden(config: Config, overrides: Sequence[str]) -> Config:
    """Return the configuration of a run with `key=value` changed for an evaluation.

    Raises `ConfigError` for a key that what was learned depends on, or an unknown one.
    """
    if not overrides:
        return config
    raw = config.model_dump(mode="json")
    for text in overrides:
        key = text.partition("=")[0]
        if key not in KEYS and key.partition(".")[0] not in SECTIONS:
            raise ConfigError(
                f"--set {text!r}: the learner is trained, and {key} made it what it is; expected "
                "learn.KEY, task.KEY, engine or threads. To change others, train anew."
            )
        override(raw, text)
    return config_from_dict(raw, "--set")


def weights_and_rates(stored: StoredLearner, learner: Learner) -> tuple[Params, Params]:
    """Return the weights, and what the learner's rule has learned: (init, learned).

    A rule that the run was not trained with starts from its own values where the run has none.
    Raises `ConfigError` where it wants them in another shape.
    """
    learned = learner.rule.learned(stored.init)
    for name, value in learned.items():
        there = stored.learned.get(name, value)
        if there.shape != value.shape:
            raise ConfigError(
                f"{stored.source}: learned.{name} has shape {tuple(there.shape)}, but the rule "
                f"takes {tuple(value.shape)}. Leave the learn.* key that changes it as it was."
            )
        learned[name] = there
    return stored.init, learned
