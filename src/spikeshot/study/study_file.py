"""A study's YAML file, and what the command line changes of it, become a checked study.

    about: one line
    base: double-nmnist-fast            preset or YAML file that every arm is trained by
    set: {train.meta_batch: 2}          keys of its configuration, for every arm
    budget: 12000                       training tasks of each arm, or 30m: minutes
    arms:
      spiking: {label: SNN}
      leaky: {label: ANN twin, set: {network.kind: leaky}}
      none: {learner: spiking, set: {learn.method: none, learn.readout_start: learned}}
      features: {learner: spiking, train: true, set: {...}}    trained on from another arm's;
                                        without train its learner is evaluated
    reference: spiking                  what differences are taken to
    evaluate: {split: test, episodes: 600}
    steps: [0, 1, 5, 10]                further evaluations of what is adapted by inner steps
    tasks: [{shots: 5}, {ways: 20}]     further evaluations of every arm
    inside: 100                         episodes for confusion, firing rates and operations
    seeds: [0, 1, 2]

What `learn.method=centroid` reads is not trained, so such an arm takes one iteration. An arm's
`set` is where its own few settings stand.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spikeshot.errors import ConfigError
from spikeshot.study.grid import FRESH, Keys, read_measure, require_measure
from spikeshot.study.plan import Measure
from spikeshot.study.yaml_file import (
    mapping,
    read_source,
    require_known,
    seeds_of,
    shipped_names,
    value_of,
)
from spikeshot.yaml_tree import override

FOLDER = "studies"
KEYS = (
    *("about", "base", "set", "budget", "arms", "reference", "evaluate", "steps", "tasks"),
    *("inside", "seeds"),
)
ARM_KEYS = ("label", "learner", "train", "set")
TASK_KEYS = ("ways", "shots", "queries")
UNITS = {"s": 1 / 60, "m": 1.0, "min": 1.0, "h": 60.0}


@dataclass(frozen=True)
class Budget:
    """What each arm is trained for: so many `tasks`, or so many `minutes` (0: the other)."""

    tasks: int = 0
    minutes: float = 0.0

    def __str__(self) -> str:
        return f"{self.minutes:.4g} minutes" if self.minutes else f"{self.tasks} tasks"


@dataclass(frozen=True)
class StudyArm:
    """An arm: its label, the arm whose learner it uses, whether it is trained, and what it sets."""

    label: str
    learner: str
    train: bool
    keys: Keys

    @property
    def method(self) -> str:
        """How a task is learned, where the arm says it."""
        return str(self.keys.get("learn.method", "maml"))


@dataclass(frozen=True)
class Study:
    """A study that was read and checked; `budget` None: the base's iterations.

    `steps` and `tasks`: further evaluations; `inside`: episodes that are looked into; `extra`:
    keys given at the command line, applied last.
    """

    name: str
    about: str
    base: str
    keys: Keys
    budget: Budget | None
    arms: Mapping[str, StudyArm]
    reference: str
    measure: Measure
    steps: tuple[int, ...]
    tasks: tuple[Mapping[str, int], ...]
    inside: int
    seeds: tuple[int, ...]
    extra: Keys = field(default_factory=dict)


def study_names() -> list[str]:
    """Return the names of the studies that ship."""
    return shipped_names(FOLDER)


def load_study(source: str, sets: Sequence[str], config_keys: Iterable[str]) -> Study:
    """Return the study of a name that ships or a YAML file, with `--set` texts.

    `config_keys`: the first words of keys of a configuration. Raises `ConfigError` for whatever is
    wrong or unknown.
    """
    raw, extra = read_source(source, FOLDER, "study"), {}
    known = list(config_keys)
    for text in sets:
        key = text.partition("=")[0]
        first = key.partition(".")[0]
        if key in ("train.iterations", "train.minutes"):
            raise ConfigError(f"--set {text!r}: expected --budget, which all arms share, instead.")
        if first in KEYS:
            override(raw, text)
        else:
            require_known(first, [*KEYS, *known], f"--set {text!r}: key")
            extra[key] = value_of(text)
    return replace(_checked(raw, source), extra=extra)


def adjusted_study(
    study: Study, seeds: Sequence[int] | None, episodes: int | None, budget: str | None
) -> Study:
    """Return the study with other seeds, episodes of each evaluation, or another budget."""
    measure = study.measure if episodes is None else replace(study.measure, episodes=episodes)
    inside = study.inside if episodes is None else min(study.inside, episodes)
    spent = study.budget if budget is None else read_budget(budget, "--budget")
    seeds = tuple(seeds or study.seeds)
    return replace(study, seeds=seeds, measure=measure, inside=inside, budget=spent)


def read_budget(value: Any, where: str) -> Budget:
    """Return the budget in a number of tasks (`2000`) or a text of time (`30m`, `1.5h`)."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip())
    amount, unit = (float(found[1]), found[2]) if found else (0.0, "")
    if found and math.isfinite(amount) and amount > 0:
        if unit in UNITS:
            return Budget(minutes=amount * UNITS[unit])
        if not unit and amount == int(amount):
            return Budget(tasks=int(amount))
    raise ConfigError(
        f"{where} is {value!r}; expected a number of training tasks, as 2000, or a time, as 30m "
        "or 1.5h."
    )


def _checked(raw: Mapping[str, Any], source: str) -> Study:
    for key in raw:
        require_known(key, KEYS, f"{source}: key")
    arms_raw = mapping(raw.get("arms"), f"{source}: arms")
    if not arms_raw:
        raise ConfigError(f"{source}: arms is empty; expected at least one.")
    arms = {str(name): _arm(str(name), arm, arms_raw, source) for name, arm in arms_raw.items()}
    for name, arm in arms.items():
        if arm.learner != FRESH and not arms[arm.learner].train:
            raise ConfigError(
                f"{source}: arms.{name}.learner is {arm.learner!r}, which is not trained; expected "
                "an arm that is."
            )
    reference = str(raw.get("reference", next(iter(arms))))
    require_known(reference, arms, f"{source}: reference: arm")
    measure = read_measure(
        mapping(raw.get("evaluate"), f"{source}: evaluate"), f"{source}: evaluate"
    )
    return Study(
        Path(source).stem,
        str(raw.get("about", "")),
        str(raw.get("base", "")),
        flat(mapping(raw.get("set"), f"{source}: set")),
        read_budget(raw["budget"], f"{source}: budget") if "budget" in raw else None,
        arms,
        reference,
        measure,
        _steps(raw.get("steps", []), source),
        _tasks(raw.get("tasks", []), source),
        _inside(raw.get("inside", 100), source),
        seeds_of(raw.get("seeds", [0]), source),
    )


def _arm(name: str, raw: Any, arms: Iterable[str], source: str) -> StudyArm:
    where = f"{source}: arms.{name}"
    if not re.fullmatch(r"[\w.+-]+", name):
        raise ConfigError(f"{where}: expected a name of letters, digits, _, +, - and dots.")
    raw = mapping(raw, where)
    for key in raw:
        require_known(key, ARM_KEYS, f"{where}: key")
    learner = str(raw.get("learner", FRESH))
    require_known(learner, [FRESH, *(a for a in arms if a != name)], f"{where}.learner: arm")
    train = raw.get("train", learner == FRESH)
    if type(train) is not bool or not (train or learner != FRESH):
        raise ConfigError(f"{where}.train is {train!r}; expected true, or false with a learner.")
    return StudyArm(
        str(raw.get("label", name)), learner, train, flat(mapping(raw.get("set"), f"{where}.set"))
    )


def _steps(raw: Any, source: str) -> tuple[int, ...]:
    if not isinstance(raw, list):
        raise ConfigError(f"{source}: steps is {raw!r}; expected a list of numbers.")
    for value in raw:
        require_measure("steps", value, source)
    return tuple(dict.fromkeys(raw))


def _tasks(raw: Any, source: str) -> tuple[Mapping[str, int], ...]:
    if not isinstance(raw, list):
        raise ConfigError(f"{source}: tasks is {raw!r}; expected a list, as [{{shots: 5}}].")
    for task in raw:
        for key, value in mapping(task, f"{source}: tasks").items():
            require_known(key, TASK_KEYS, f"{source}: tasks: key")
            require_measure(key, value, f"{source}: tasks")
    return tuple(raw)


def _inside(raw: Any, source: str) -> int:
    if type(raw) is not int or raw < 1:
        raise ConfigError(f"{source}: inside is {raw!r}; expected a number of episodes from 1 on.")
    return raw


def flat(keys: Mapping[str, Any], at: str = "") -> Keys:
    """Return nested keys as dotted ones; sections and dotted keys may be mixed."""
    found: Keys = {}
    for key, value in keys.items():
        if isinstance(value, dict):
            found |= flat(value, f"{at}{key}.")
        else:
            found[f"{at}{key}"] = value
    return found
