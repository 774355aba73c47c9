"""A study becomes a plan: one training per arm and seed, and evaluations of what it gave."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from spikeshot.study.grid import FRESH, for_evaluation, texts
from spikeshot.study.plan import Measure, Point, in_order
from spikeshot.study.study_file import Study, StudyArm

STEPS, TASK = "steps", "task"  # the axes of a study


class Settings(NamedTuple):
    """What an arm's configuration says: tasks of an iteration, and the size of a task."""

    meta_batch: int
    ways: int
    shots: int


def study_points(study: Study, settings: Mapping[str, Settings]) -> list[Point]:
    """Return the points of a study, in an order in which they can be done.

    `settings`: of every arm that is trained.
    """
    points = []
    for seed in study.seeds:
        for name, arm in study.arms.items():
            own = settings[name if arm.train else arm.learner]
            main = _main_point(study, seed, name, arm, own)
            points.append(main)
            points += _further(study, main, arm, own)
    return in_order(points)


def arm_overrides(study: Study, name: str, seed: int = 0) -> tuple[str, ...]:
    """Return what an arm changes of the base's configuration, its budget apart."""
    return texts(study.keys | study.arms[name].keys | study.extra | {"seed": seed})


def _main_point(study: Study, seed: int, name: str, arm: StudyArm, own: Settings) -> Point:
    after = "" if arm.learner == FRESH else f"{arm.learner}/s{seed}"
    if not arm.train:
        keys = arm.keys | for_evaluation(study.extra)
        measure = replace(study.measure, overrides=texts(keys))
        return Point(f"{name}/s{seed}", seed, name, after=after, measure=measure)
    overrides = arm_overrides(study, name, seed) + _budget(study, arm, own)
    return Point(
        *(f"{name}/s{seed}", seed, name, {}, True, study.base, overrides),
        after=after,
        measure=study.measure,
        inside=study.inside,
    )


def _budget(study: Study, arm: StudyArm, own: Settings) -> tuple[str, ...]:
    if arm.method == "centroid":
        return texts({"train.iterations": 1, "train.minutes": 0})
    if study.budget is None:
        return ()
    if study.budget.minutes:
        return texts({"train.minutes": study.budget.minutes})
    iterations = max(1, study.budget.tasks // own.meta_batch)
    return texts({"train.iterations": iterations, "train.minutes": 0})


def _further(study: Study, main: Point, arm: StudyArm, own: Settings) -> list[Point]:
    """Return the further evaluations of an arm's learner, none of one that does not adapt."""
    found = []
    if arm.train and arm.method == "maml":
        for steps in study.steps:
            measure = replace(main.measure, steps=steps)
            found.append(_evaluation(main, STEPS, str(steps), measure))
    if arm.method != "none":
        for task in study.tasks:
            ways, shots = task.get("ways", own.ways), task.get("shots", own.shots)
            if (ways, shots) != (own.ways, own.shots) or "queries" in task:
                measure = replace(main.measure, ways=ways, shots=shots)
                if "queries" in task:
                    measure = replace(measure, queries=task["queries"])
                found.append(_evaluation(main, TASK, f"{ways}-way {shots}-shot", measure))
    return found


def _evaluation(main: Point, axis: str, value: str, measure: Measure) -> Point:
    name = f"{main.arm}/{axis}={value.replace(' ', '_')}/s{main.seed}"
    after = main.name if main.train else main.after
    return Point(name, main.seed, main.arm, {axis: value}, after=after, measure=measure)
