"""Evaluation: accuracy over many episodes, before and after adaptation, with 95 % intervals."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from spikeshot.learn.scoring import Score


@dataclass(frozen=True)
class Evaluation:
    """Mean accuracy over episodes (0..1), with half-widths of the 95 % intervals of the means."""

    accuracy: float
    ci95: float
    accuracy_before: float
    ci95_before: float
    loss: float
    episodes: int


def summarise(scores: Sequence[Score]) -> Evaluation:
    """Return means and intervals (normal approximation, 1.96 standard errors over episodes)."""
    after, before = [s.after for s in scores], [s.before for s in scores]
    return Evaluation(
        fmean(after),
        _half_width(after),
        fmean(before),
        _half_width(before),
        fmean(s.loss for s in scores),
        len(scores),
    )


def evaluate_episodes(
    score: Callable[[int], Score],
    episodes: Iterable[int],
    on_episode: Callable[[Score], None] | None = None,
) -> Evaluation:
    """Score every episode index and return the summary; `on_episode` hears of each."""
    scores = []
    for index in episodes:
        scores.append(score(index))
        if on_episode:
            on_episode(scores[-1])
    return summarise(scores)


def _half_width(values: Sequence[float]) -> float:
    return 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else float("nan")
