"""Meta-train a small spiking network on simulated digit pairs, then evaluate it on held-out ones.

Run: python examples/train_small.py        (about a minute; needs spikeshot[sample])
"""

import sys
import tempfile
from pathlib import Path

import spikeshot

SETTINGS = [
    "train.iterations=200",
    "train.validate_every=100",
    "train.validation_episodes=20",
    "train.test_episodes=50",
    "network.layers=[{units: 8, kernel: 5, pool: 2}, {units: 16, kernel: 5, pool: 2}]",
]


def main(*more: str) -> float:
    """Train with SETTINGS and `more` of them (`key=value`); return the accuracy (0 to 1)."""
    config = spikeshot.load_config("quickstart", [*SETTINGS, *more])
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        result = spikeshot.train(config, run)
        print(
            f"{result['ways']}-way {result['shots']}-shot on {result['classes']} held-out classes:"
        )
        print(f"  before adaptation {result['accuracy_before']:.1%} ± {result['ci95_before']:.1%}")
        print(f"  after             {result['accuracy']:.1%} ± {result['ci95']:.1%}")
        more_shots = spikeshot.evaluate(run, shots=3, episodes=result["episodes"])
        print(f"  with three shots  {more_shots['accuracy']:.1%} ± {more_shots['ci95']:.1%}")
    return float(result["accuracy"])


if __name__ == "__main__":
    main(*sys.argv[1:])
