"""Which classes are taken for which, summed over episodes.

An episode shows a few of all classes, so a count says little: an error is counted against how often
the two classes stood in one episode.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

MATRIX_CLASSES = 40  # of more, only the pairs that are taken for each other most
PAIRS = 10


class Confusion:
    """Counts of query samples: by true and predicted class, and by true class and class present."""

    def __init__(self) -> None:
        self.taken: Counter[tuple[str, str]] = Counter()
        self.offered: Counter[tuple[str, str]] = Counter()

    def add(self, classes: Sequence[str], labels: Sequence[int], predicted: Sequence[int]) -> None:
        """Count one episode: the names of its classes, and the number of one for each sample."""
        for label, guess in zip(labels, predicted, strict=True):
            self.taken[classes[label], classes[guess]] += 1
            self.offered.update((classes[label], other) for other in classes)

    def summary(self) -> dict[str, Any]:
        """Return classes, the pairs taken for each other most, and the matrix if it is readable.

        `matrix[i][j]`: share of samples of class i that were taken for class j, of those in whose
        episode j stood; None where the two never met. A pair's `errors` are of `of` samples.
        """
        classes = sorted({true for true, _ in self.offered})
        wrong = Counter({pair: n for pair, n in self.taken.items() if pair[0] != pair[1]})
        most = sorted(wrong, key=lambda pair: (-wrong[pair], pair))[:PAIRS]
        found: dict[str, Any] = {
            "samples": sum(self.taken.values()),
            "classes": classes,
            "most": [
                {"true": a, "taken_for": b, "errors": wrong[a, b], "of": self.offered[a, b]}
                for a, b in most
            ],
        }
        if len(classes) <= MATRIX_CLASSES:
            found["matrix"] = [[self._share(a, b) for b in classes] for a in classes]
        return found

    def _share(self, true: str, guess: str) -> float | None:
        offered = self.offered[true, guess]
        return round(self.taken[true, guess] / offered, 4) if offered else None
