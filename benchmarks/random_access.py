"""How long random access to the binned frames of one packed N-MNIST-sized recording takes.

Method. A pack of `--recordings` made-up recordings (4,000 events, 300 ms, 34 x 34 pixels) is
written into a temporary folder and opened. Recordings are drawn at random and binned into frames
`[T, 2, 34, 34]`, one call of `bin_events` each, with one thread. Reported are the median and the
95th percentile over `--accesses` calls:

    warm      the pack is in the page cache
    before    as warm, for the recordings without their last third (`Recordings.before`)
    cold      the kernel was asked to drop the pack's pages before each access
    words     as warm, were the events stored as 64-bit words and decoded at each access

The aim is a warm median under 0.4 ms.

    python benchmarks/random_access.py [--json PATH] [--recordings 2000] [--accesses 500]
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from spikeshot.data.events import make_events
from spikeshot.data.frames import FrameSpec, bin_events
from spikeshot.data.packs import EVENTS, pack
from spikeshot.data.recordings import Recordings, gather_recordings

EVENTS_EACH, DURATION_US, SENSOR = 4_000, 300_000, (34, 34)
AIM_MS = 0.4


def made_up(n: int, rng: np.random.Generator) -> Recordings:
    """Return `n` recordings of events at random, in order of time."""
    samples = []
    for _ in range(n):
        x, y = rng.integers(0, 34, (2, EVENTS_EACH))
        t = np.sort(rng.integers(0, DURATION_US, EVENTS_EACH))
        samples.append(make_events(x, y, t, rng.integers(0, 2, EVENTS_EACH)))
    return gather_recordings(samples, [0] * n, ["a"], [str(i) for i in range(n)], SENSOR)


def as_words(recordings: Recordings) -> np.ndarray:
    """Return the events as 64-bit words: 47 bits of time, 8 of x, 8 of y, 1 of polarity."""
    e = recordings.events
    x, y, t, p = (e[f].astype(np.uint64) for f in ("x", "y", "t", "p"))
    return t << 17 | x << 9 | y << 1 | p


def decode(words: np.ndarray) -> np.ndarray:
    """Return the events of 64-bit words."""
    return make_events(words >> 9 & 255, words >> 1 & 255, words >> 17, words & 1)


def measure(
    access: Callable[[int], Any], n: int, accesses: int, prepare: Callable[[], None]
) -> Any:
    """Return the median and the 95th percentile of the milliseconds of one access."""
    rng = np.random.default_rng(1)
    access(0)
    times = []
    for i in rng.integers(0, n, accesses):
        prepare()
        start = time.perf_counter()
        access(int(i))
        times.append((time.perf_counter() - start) * 1e3)
    return {"median_ms": float(np.median(times)), "p95_ms": float(np.quantile(times, 0.95))}


def main() -> None:
    """Measure, print a table, and write the figures to --json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--recordings", type=int, default=2000)
    parser.add_argument("--accesses", type=int, default=500)
    options = parser.parse_args()
    n, results = options.recordings, []
    with tempfile.TemporaryDirectory() as temporary:
        recordings = pack(made_up(n, np.random.default_rng(0)), Path(temporary) / "pack")
        early, events = recordings.before(2 * DURATION_US // 3), Path(temporary) / "pack" / EVENTS
        np.save(Path(temporary) / "words.npy", as_words(recordings))
        words = np.load(Path(temporary) / "words.npy", mmap_mode="r")
        at = recordings.offsets

        def drop() -> None:
            with events.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

        def nothing() -> None:
            pass

        for bins in (100, 200, 300):
            spec = FrameSpec(dt_us=DURATION_US // bins, bins=bins)
            ways = {
                "warm": (lambda i, s=spec: bin_events(recordings[i], SENSOR, s), nothing),
                "before": (lambda i, s=spec: bin_events(early[i], SENSOR, s), nothing),
                "cold": (lambda i, s=spec: bin_events(recordings[i], SENSOR, s), drop),
                "words": (
                    lambda i, s=spec: bin_events(decode(words[at[i] : at[i + 1]]), SENSOR, s),
                    nothing,
                ),
            }
            for name, (access, prepare) in ways.items():
                figures = measure(access, n, options.accesses, prepare)
                results.append({"way": name, "bins": bins, **figures})
                print(f"{name:7} T={bins}  median {figures['median_ms']:.3f} ms", flush=True)
    worst = max(r["median_ms"] for r in results if r["way"] == "warm")
    print(f"warm, worst median: {worst:.3f} ms; aim: under {AIM_MS} ms")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
