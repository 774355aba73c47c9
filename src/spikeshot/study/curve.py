"""The learning curve of a run: as a PNG, and as a few points."""

import io
from collections.abc import Mapping, Sequence
from itertools import accumulate
from statistics import fmean
from typing import Any

WINDOW = 100  # iterations over which training accuracy is averaged
BLOCKS = 60  # points of training accuracy, where there are so many iterations


def curve_points(metrics: Sequence[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    """Return `training` [iteration, minutes, accuracy] of blocks, `validation` with `ci95` too.

    Minutes are those of training and validation until then; accuracies 0..1.
    """
    seconds = list(accumulate(m.get("seconds") or 0.0 for m in metrics))
    timed = list(zip(metrics, seconds, strict=True))
    train = [(m, s) for m, s in timed if m["kind"] == "train"]
    size = -(-len(train) // BLOCKS) or 1
    blocks = [train[i : i + size] for i in range(0, len(train), size)]
    return {
        "training": [
            [b[-1][0]["iteration"], b[-1][1] / 60, fmean(m["accuracy"] for m, _ in b)]
            for b in blocks
        ],
        "validation": [
            [m["iteration"], s / 60, m["accuracy"], m["ci95"]]
            for m, s in timed
            if m["kind"] == "validation"
        ],
    }


def draw_learning_curve(metrics: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> bytes:
    """Return a PNG: training and validation accuracy over iterations, the test result as a line.

    `training_ways` and `validation_ways` of the result: those of the tasks behind the two curves.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    train = [m for m in metrics if m["kind"] == "train"]
    validation = [m for m in metrics if m["kind"] == "validation"]
    figure = Figure(figsize=(7, 4), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    accuracy = [100 * m["accuracy"] for m in train]
    blocks = range(0, len(accuracy), WINDOW)
    axes.plot(
        [train[min(i + WINDOW, len(train)) - 1]["iteration"] for i in blocks],
        [sum(accuracy[i : i + WINDOW]) / len(accuracy[i : i + WINDOW]) for i in blocks],
        color="0.6",
        label=f"meta-train{_ways('training_ways', result)}, mean of {WINDOW}",
    )
    axes.errorbar(
        [m["iteration"] for m in validation],
        [100 * m["accuracy"] for m in validation],
        [100 * m["ci95"] for m in validation],
        color="C0",
        capsize=2,
        label=f"meta-validation{_ways('validation_ways', result)}, 95 % interval",
    )
    test, half = 100 * result["accuracy"], 100 * result["ci95"]
    axes.axhspan(test - half, test + half, color="C1", alpha=0.3)
    axes.axhline(test, color="C1", label=f"{result['split']}: {test:.1f} ± {half:.1f} %")
    axes.axhline(100 / result["ways"], color="0.8", linestyle=":", label="chance")
    axes.set_xlabel("meta-iteration")
    axes.set_ylabel("query accuracy after adaptation (%)")
    axes.set_title(f"{result['config']}: {result['ways']}-way {result['shots']}-shot")
    axes.legend(loc="lower right", fontsize=8)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": "spikeshot"})
    return png.getvalue()


def _ways(key: str, result: Mapping[str, Any]) -> str:
    """Return the ways of a curve's tasks for its label, where they are not those of the test's."""
    ways = result.get(key, result["ways"])
    return "" if ways == result["ways"] else f" of {ways} ways"
