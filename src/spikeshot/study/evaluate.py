"""Evaluation: accuracy over many episodes, before and after adaptation, with 95 % intervals."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch

from spikeshot.learn.parallel import ALONE, Team, numbers
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
    episodes: Sequence[int],
    on_episode: Callable[[Score], None] | None = None,
    *,
    stop: Callable[[], bool] = lambda: False,
    team: Team = ALONE,
) -> Evaluation | None:
    """Score every episode index and return the summary, or None when `stop` said so.

    The processes of `team` share the episodes out; all of them hear all scores, in the episodes'
    order, by `on_episode`, and stop together.
    """
    scores: list[Score] = []
    mine = (score(episodes[i]) for i in numbers(team, len(episodes)))
    for first in range(0, len(episodes), team.world):
        members = min(team.world, len(episodes) - first)
        table = torch.zeros(members, len(Score._fields), dtype=torch.float64)
        if team.rank < members:
            table[team.rank] = torch.tensor(next(mine), dtype=torch.float64)
        told = team.sum({"scores": table, "stop": torch.tensor([float(stop())])})
        if told["stop"].any():
            return None
        for row in told["scores"].tolist():
            scores.append(Score(*row))
            if on_episode:
                on_episode(scores[-1])
    return summarise(scores)


def _half_width(values: Sequence[float]) -> float:
    return 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else float("nan")
