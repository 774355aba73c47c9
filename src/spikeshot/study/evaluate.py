"""Evaluation: accuracy over many episodes, before and after adaptation, with 95 % intervals."""

import math
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TypeVar

import torch

from spikeshot.learn.parallel import ALONE, Team, numbers
from spikeshot.learn.prefetch import prefetch
from spikeshot.learn.scoring import Score

E = TypeVar("E")


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
    make: Callable[[int], E],
    score: Callable[[E], Score],
    episodes: Sequence[int],
    on_episode: Callable[[Score], None] | None = None,
    *,
    workers: int = 1,
    stop: Callable[[], bool] = lambda: False,
    team: Team = ALONE,
) -> Evaluation | None:
    """Make and score every episode index; return the summary, or None when `stop` said so.

    Episodes are made in a background thread and scored in `workers` threads, each with one thread
    of torch's: the result is the same for any number. The processes of `team` share the episodes
    out; all of them hear all scores, in the episodes' order, by `on_episode`, and stop together.
    """
    scores: list[Score] = []
    mine = [episodes[i] for i in numbers(team, len(episodes))]
    with _one_torch_thread(), closing(_scored(make, score, mine, workers)) as scored:
        for first in range(0, len(episodes), team.world):
            members = min(team.world, len(episodes) - first)
            table = torch.zeros(members, len(Score._fields), dtype=torch.float64)
            if team.rank < members:
                table[team.rank] = torch.tensor(next(scored), dtype=torch.float64)
            told = team.sum({"scores": table, "stop": torch.tensor([float(stop())])})
            if told["stop"].any():
                return None
            for row in told["scores"].tolist():
                scores.append(Score(*row))
                if on_episode:
                    on_episode(scores[-1])
    return summarise(scores)


def _scored(
    make: Callable[[int], E], score: Callable[[E], Score], episodes: Sequence[int], workers: int
) -> Generator[Score, None, None]:
    """Yield the scores in order; torch's and numba's loops run without Python's global lock."""
    with closing(prefetch(make, episodes, ahead=workers + 1)) as made:
        if workers == 1:
            yield from map(score, made)
            return
        with closing(prefetch(score, made, ahead=workers, threads=workers)) as scored:
            yield from scored


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Let torch use one thread for each operation in this context."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _half_width(values: Sequence[float]) -> float:
    return 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else float("nan")
