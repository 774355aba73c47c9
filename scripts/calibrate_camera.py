"""Compare simulated N-MNIST with real N-MNIST, recording by recording, and write the table.

    python scripts/calibrate_camera.py --nmnist ../shared/data/nmnist/N-MNIST-small.zip \
        --mnist ../shared/data/mnist --out docs/results/camera.md

Each real recording is set against the simulation of the same MNIST image, with the default camera
and motion.
"""

import argparse
import gzip
import shlex
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeshot.data.camera import Camera
from spikeshot.data.nmnist import read_nmnist
from spikeshot.data.recordings import Recordings
from spikeshot.data.saccades import Saccades
from spikeshot.data.simulate import simulate
from spikeshot.errors import DataError, SpikeshotError

BIN_US = 10_000
IDX = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}


def read_images(folder: Path, origins: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return the MNIST image [28, 28] of each origin, as `train/00001` (numbers start at 1)."""
    stacks = {}
    for part, name in IDX.items():
        try:
            raw = gzip.decompress((folder / name).read_bytes())
        except OSError as error:
            raise DataError(
                f"{folder / name}: cannot be read ({error}). Point --mnist at MNIST's IDX files."
            ) from error
        stacks[part] = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)
    places = [origin.split("/") for origin in origins]
    return np.stack([stacks[part][int(number) - 1] for part, number in places])


@dataclass(frozen=True)
class Statistics:
    """What the recordings of one sensor have in common, and each recording's frames."""

    counts: NDArray[np.float64]  # [n] events per recording
    on_share: float
    saccade_shares: NDArray[np.float64]  # [saccades] of all events
    activity: NDArray[np.float64]  # [height, width] mean events per pixel and recording
    rate: NDArray[np.float64]  # [bins] mean events per recording
    active_ms: float  # mean time between the 1st and 99th percentile of a recording's events
    frames: NDArray[np.float32]  # [n, bins * 2 * 16 * 16]: 10 ms, ON and OFF, 34 -> 32 -> 16


def measure(recordings: Recordings, motion: Saccades) -> Statistics:
    """Return the statistics of `recordings`."""
    events, n = recordings.events, len(recordings)
    width, height = recordings.sensor_size
    x, y, t, p = (events[field].astype(np.int64) for field in ("x", "y", "t", "p"))
    activity = np.bincount(y * width + x, minlength=width * height).reshape(height, width) / n
    saccade = np.digitize(t, motion.ends_us[:-1])
    bins = -(-motion.duration_us // BIN_US)
    percentiles = [np.percentile(recordings[i]["t"], [1, 99]) for i in range(n)]
    return Statistics(
        counts=np.diff(recordings.offsets).astype(np.float64),
        on_share=float(p.mean()),
        saccade_shares=np.bincount(saccade, minlength=len(motion.ends_us)) / len(t),
        activity=activity,
        rate=np.bincount(t // BIN_US, minlength=bins)[:bins] / n,
        active_ms=float(np.mean([b - a for a, b in percentiles]) / 1000),
        frames=frames(recordings, bins),
    )


def frames(recordings: Recordings, bins: int) -> NDArray[np.float32]:
    """Return event counts [n, bins * 2 * 16 * 16] of the middle 32 x 32 pixels, 2 x 2 summed."""
    events, n = recordings.events, len(recordings)
    x, y, t, p = (events[field].astype(np.int64) for field in ("x", "y", "t", "p"))
    of = np.repeat(np.arange(n), np.diff(recordings.offsets))
    kept = (x >= 1) & (x < 33) & (y >= 1) & (y < 33) & (t < bins * BIN_US)
    cell = (((of * bins + t // BIN_US) * 2 + p) * 16 + (y - 1) // 2) * 16 + (x - 1) // 2
    return (
        np.bincount(cell[kept], minlength=n * bins * 512).reshape(n, bins * 512).astype(np.float32)
    )


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the mean cosine of corresponding rows."""
    dots = np.einsum("ij,ij->i", a, b)
    return float(np.mean(dots / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))


def cosine_within(a: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the mean cosine of all pairs of different rows with equal labels."""
    unit = a / np.linalg.norm(a, axis=1, keepdims=True)
    total, pairs = 0.0, 0
    for label in np.unique(labels):
        rows = unit[labels == label]
        total += float(np.square(np.linalg.norm(rows.sum(0))) - len(rows))
        pairs += len(rows) * (len(rows) - 1)
    return total / pairs


def spread(activity: NDArray[np.float64]) -> float:
    """Return the standard deviation over pixels as a share of the mean."""
    return float(activity.std() / activity.mean())


def table(real: Statistics, fake: Statistics) -> list[str]:
    """Return the lines of the table real | simulated | ratio."""
    rows = [
        ("events per recording", real.counts.mean(), fake.counts.mean()),
        ("ON share", real.on_share, fake.on_share),
    ]
    for i, (a, b) in enumerate(zip(real.saccade_shares, fake.saccade_shares, strict=True)):
        rows.append((f"share of events in saccade {i + 1}", a, b))
    rows += [
        ("per-pixel activity spread (std / mean)", spread(real.activity), spread(fake.activity)),
        ("spread of events per recording (std)", real.counts.std(), fake.counts.std()),
        ("active duration (1 % to 99 % of events), ms", real.active_ms, fake.active_ms),
    ]
    lines = ["| statistic | real | simulated | ratio |", "| --- | --- | --- | --- |"]
    lines += [f"| {name} | {a:.4g} | {b:.4g} | {b / a:.3f} |" for name, a, b in rows]
    return lines


def agreement(
    real: Statistics, fake: Statistics, again: Statistics, recordings: Recordings
) -> list[str]:
    """Return the lines of the tables of correlations and of frame cosines."""

    def correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    def cosines(part: str, n_bins: int) -> str:
        rows = np.array([origin.startswith(part) for origin in recordings.origins])
        r, f, g = (s.frames[rows, : n_bins * 512] for s in (real, fake, again))
        within = cosine_within(r, recordings.labels[rows])
        return f"{rows.sum()} | {cosine(r, f):.3f} | {cosine(f, g):.3f} | {within:.3f} |"

    spans = [("first 100 ms", 10), ("whole recording", len(real.rate))]
    return [
        "| real with simulated | correlation |",
        "| --- | --- |",
        f"| events per recording | {correlation(real.counts, fake.counts):.3f} |",
        f"| activity map, 34 x 34 | {correlation(real.activity, fake.activity):.3f} |",
        f"| event rate over time, 10 ms bins | {correlation(real.rate, fake.rate):.3f} |",
        "",
        "Mean cosine of frames (10 ms bins, ON and OFF, 16 x 16 cells of 2 x 2 pixels):",
        "",
        "| part | span | recordings | real, simulated | simulated twice | "
        "real, another real one of its digit |",
        "| --- | --- | --- | --- | --- | --- |",
        *(f"| {part} | {name} | {cosines(part, n)}" for part in IDX for name, n in spans),
        "",
        "The test part was recorded with the digits about 0.5 px higher and up to 4 ms later than "
        "the training part that the motion was fitted to; one of it (test/00012) starts 25 ms "
        "late.",
    ]


def parameters(camera: Camera, motion: Saccades) -> list[str]:
    """Return the lines of the table of all parameters."""
    lines = ["| parameter | value |", "| --- | --- |"]
    for group in (camera, motion):
        for field in fields(group):
            if field.name != "strokes":
                lines.append(f"| {field.name} | {getattr(group, field.name)} |")
    for s in motion.strokes:
        way = f"({s.dx:g}, {s.dy:g}) px from {s.start_us / 1000:g} ms for {s.length_us / 1000:g} ms"
        lines.append(f"| stroke of saccade {s.saccade + 1} | {way} |")
    return lines


def compare(nmnist: Path, mnist: Path, seed: int) -> list[str]:
    """Return the report's lines."""
    camera, motion = Camera(), Saccades()
    recordings = read_nmnist(nmnist)
    images = read_images(mnist, recordings.origins)

    def run(seed: int) -> Statistics:
        r = recordings
        fake = simulate(images, list(r.labels), r.classes, r.origins, camera=camera, seed=seed)
        return measure(fake, motion)

    real, fake, again = measure(recordings, motion), run(seed), run(seed + 1)
    return [
        f"{len(recordings)} real N-MNIST recordings and the simulation of the same MNIST images "
        f"(seed {seed}). The defaults were fitted to 100 training recordings, every eighth.",
        "",
        *table(real, fake),
        "",
        *agreement(real, fake, again, recordings),
        "",
        *parameters(camera, motion),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nmnist", type=Path, required=True, help="N-MNIST folder or zip")
    parser.add_argument("--mnist", type=Path, required=True, help="folder of MNIST's IDX .gz files")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    try:
        lines = compare(options.nmnist, options.mnist, options.seed)
    except SpikeshotError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("\n".join(lines))
    print(f"\n{time.perf_counter() - start:.0f} s", file=sys.stderr)
    if options.out:
        command = shlex.join(["python", *sys.argv])
        head = ["# The camera model against real N-MNIST", "", "```", command, "```", ""]
        options.out.write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
