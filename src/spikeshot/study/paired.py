"""Means with 95 % intervals: over episodes, over seeds, and of paired differences.

Over episodes the normal approximation (1.96 standard errors), as in `evaluate.py`; over seeds,
which are few, Student's t. A paired difference is taken episode by episode, so that what makes an
episode hard for both learners falls out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

# Student's t, two-sided 95 %, for 1, 2, ... degrees of freedom (any table, as NIST/SEMATECH's
# e-Handbook of Statistical Methods, 1.3.6.7.2).
T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
Z95 = 1.96


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds of means over episodes, with half-widths of 95 % intervals.

    `ci_episodes`: what other episodes would change, the seeds given; `ci_seeds`: what other seeds
    would, None for fewer than three.
    """

    mean: float
    ci_episodes: float
    ci_seeds: float | None
    seeds: int


def estimate(by_seed: Sequence[Sequence[float]]) -> Estimate:
    """Return the estimate from one list of values per seed, each over that seed's episodes.

    The seeds are independent, so the variances of their means add up: se = sqrt(sum se_s^2) / n.
    """
    means = [fmean(values) for values in by_seed]
    variances = [stdev(v) ** 2 / len(v) if len(v) > 1 else math.nan for v in by_seed]
    half = Z95 * math.sqrt(sum(variances)) / len(means)
    return Estimate(fmean(means), half, over_seeds(means), len(means))


def over_seeds(means: Sequence[float]) -> float | None:
    """Return the half-width of Student's 95 % interval of the mean, None for fewer than three."""
    n = len(means)
    if n < 3:
        return None
    t = T95[n - 2] if n - 2 < len(T95) else Z95
    return t * stdev(means) / math.sqrt(n)


def paired(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Estimate:
    """Return the estimate of ours minus theirs, per seed over the same episodes in the same order.

    Raises `ValueError` where they are not as many.
    """
    return estimate(
        [
            [a - b for a, b in zip(mine, other, strict=True)]
            for mine, other in zip(ours, theirs, strict=True)
        ]
    )
