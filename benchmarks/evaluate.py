"""Episodes per second of evaluation by number of workers, in alternation, on one run's weights.

    spikeshot train double-nmnist-fast --data N-MNIST.zip --out RUN --set train.iterations=150
    python benchmarks/evaluate.py RUN [--episodes 40] [--rounds 7] [--workers 1 2]

Prints the median over rounds, the spread (quartiles) and the ratio of medians to the first number
of workers. Reading the recordings is left out: each call is timed from its first episode on.
"""

import argparse
import statistics
import time
from pathlib import Path

from spikeshot import jobs
from spikeshot.assemble_data import load_recordings
from spikeshot.listener import Silent
from spikeshot.run_folder import RunFolder
from spikeshot.study.evaluate import available_cores


class Start(Silent):
    """Keeps when the evaluation began."""

    at = 0.0

    def on_evaluation_start(self, split: str, episodes: int) -> None:
        """Keep the time."""
        self.at = time.perf_counter()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, available_cores()])
    asked = parser.parse_args()
    run = RunFolder.open(asked.run)
    record = run.data()
    path = Path(record.path) if record.path else None
    recordings = load_recordings(run.config(), record.corpus, path)
    seconds: dict[int, list[float]] = {workers: [] for workers in asked.workers}
    results = []
    for _ in range(asked.rounds + 1):  # the first warms up
        for workers, times in seconds.items():
            start = Start()
            results.append(
                jobs.evaluate(
                    asked.run,
                    episodes=asked.episodes,
                    workers=workers,
                    recordings=recordings,
                    listener=start,
                )
            )
            times.append(time.perf_counter() - start.at)
    if any(result != results[0] for result in results):
        raise SystemExit("the results differ")
    first = asked.workers[0]
    for workers, times in seconds.items():
        speeds = [asked.episodes / t for t in times[1:]]
        low, _, high = statistics.quantiles(speeds, n=4)
        ratio = statistics.median(a / b for a, b in zip(seconds[first][1:], times[1:], strict=True))
        print(
            f"{workers} workers: {statistics.median(speeds):.1f} episodes/s "
            f"({low:.1f} to {high:.1f}), {ratio:.2f} x {first} workers"
        )


if __name__ == "__main__":
    main()
