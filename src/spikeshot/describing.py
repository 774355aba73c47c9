"""What a run, a learner file or a learner that ships is, in one dictionary."""

from pathlib import Path
from typing import Any

from spikeshot.run_folder import RunFolder
from spikeshot.stored import is_run, open_learner


def describe(out: Path | str) -> dict[str, Any]:
    """Return what run, learner file or pretrained learner `out` is.

    Its configuration, seed, data, best validation, result and, where it ships, its card.
    """
    if is_run(out):
        return _describe_run(RunFolder.open(Path(out)))
    stored = open_learner(out)
    results = stored.about.get("results")
    return {
        "config": stored.config,
        "data": stored.data(),
        "iterations_done": (results or stored.about).get("iterations", stored.about["iteration"]),
        "best_validation": stored.about.get("best_validation"),
        "results": results,
        "card": stored.card,
    }


def _describe_run(run: RunFolder) -> dict[str, Any]:
    config, record = run.config(), run.data()
    done = max((m["iteration"] for m in run.metrics()), default=0)
    validations = [m for m in run.metrics() if m["kind"] == "validation"]
    best = max(validations, key=lambda m: m["accuracy"], default=None)
    return {
        "config": config,
        "data": record,
        "iterations_done": done,
        "best_validation": best,
        "results": run.results(),
        "card": "",
    }
