"""From which density on lists of spikes beat the dense convolution, and how dense real spikes are.

Method. Every layer whose input is spikes, with its pooling folded into a strided kernel as the
engine does it, float32, as many images as the query of one task (50 samples times the time steps
that are differentiated; the burn-in's forward pass is the same per image). Random spikes of each
density go through torch's dense convolution (oneDNN, channels last) and through lists of spikes, in
turn in one process, so that a slower or faster spell of the machine meets both. Reported are
medians over the rounds and ratios of medians, dense over sparse, for

    forward    the convolution, packing and listing the spikes included
    weights    forward and weight gradient
    layer      forward, weight gradient and input gradient (which is never sparse)
    second     all of these and their double backward, as on the support samples

The crossover is the density at which the ratio, interpolated, is 1. `--clock cpu` counts the
seconds the process had (for a machine that others use too; one thread). `--run RUN` adds how dense
the spikes of a trained run are, on validation tasks, before and after adaptation.

    python benchmarks/sparse_conv.py [--json PATH] [--threads 1] [--workloads small fast reference]
                                     [--batch 50] [--rounds 3] [--clock wall] [--run RUN ...]
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeshot.snn import sparse_conv
from spikeshot.snn.product import product

DENSITIES = (0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)
WORKLOADS = {  # time steps differentiated, layer input (C, H, W), units of the layers after it
    "small": (30, (16, 8, 8), (32, 32)),
    "fast": (10, (16, 8, 16), (32, 32)),
    "reference": (30, (32, 16, 8), (64, 128)),
}
SIZE, STRIDE, PADDING = 6, 2, 2  # kernel 5, pooling 2


@dataclass
class Row:
    """One line of the table: seconds per pass, dense and sparse, and the dense one's multiple."""

    workload: str
    layer: str
    batch: int
    threads: int
    density: float
    passes: str
    dense_s: float
    sparse_s: float
    ratio: float


def dense(x: Tensor, weight: Tensor) -> Tensor:
    """Torch's own convolution."""
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, stride=STRIDE, padding=PADDING)
    return y.permute(0, 2, 3, 1)


def sparse(x: Tensor, weight: Tensor) -> Tensor:
    """The engine's, packing included; torch's own where that is chosen (`snn/weights.py`)."""
    shape = sparse_conv.Geometry(x.shape[1], x.shape[2], weight.shape[-1], STRIDE, PADDING)
    bits = sparse_conv.pack(x, weight, shape)
    if not bits.numel():
        return dense(x, weight)
    return product(x, weight, sparse_conv.Convolution(shape), bits)


def build_passes(x: Tensor, weight: Tensor) -> dict[str, Callable[[Any], object]]:
    """Return what is timed, by name, each a function of the convolution to use."""
    with torch.no_grad():
        g = torch.randn_like(dense(x, weight)).contiguous()
    constant, weight = x.detach(), weight.requires_grad_()
    x = x.requires_grad_()

    def forward(run: Any) -> object:
        with torch.no_grad():
            return run(constant, weight)

    def second(run: Any) -> object:
        cotangent = g.detach().requires_grad_()
        first = torch.autograd.grad(run(x, weight), [x, weight], cotangent, create_graph=True)
        ones = [torch.ones_like(f) for f in first]
        return torch.autograd.grad(first, [x, weight, cotangent], ones)

    return {
        "forward": forward,
        "weights": lambda run: torch.autograd.grad(run(constant, weight), weight, g),
        "layer": lambda run: torch.autograd.grad(run(x, weight), [x, weight], g),
        "second": second,
    }


def alternate(
    step: Callable[[Any], object], rounds: int, clock: Callable[[], float]
) -> list[float]:
    """Return the median seconds of `step(dense)` and of `step(sparse)`, taken in turn."""
    times: dict[Any, list[float]] = {dense: [], sparse: []}
    for i in range(rounds + 1):  # the first warms up
        for run, seconds in times.items():
            start = clock()
            step(run)
            if i:
                seconds.append(clock() - start)
    return [statistics.median(seconds) for seconds in times.values()]


def measure(
    name: str, batch: int, threads: int, rounds: int, clock: Callable[[], float]
) -> list[Row]:
    """Return the rows of one workload."""
    generator = torch.Generator().manual_seed(0)
    steps, (channels, height, width), layers = WORKLOADS[name]
    rows = []
    for units in layers:
        layer = f"{channels}x{height}x{width} -> {units}"
        for density in DENSITIES:
            shape = steps * batch, height, width, channels
            x = (torch.rand(shape, generator=generator) < density).float()
            weight = torch.randn(units, channels, SIZE, SIZE, generator=generator)
            for passes, step in build_passes(x, weight).items():
                times = alternate(step, rounds, clock)
                ratio = times[0] / times[1]
                rows.append(Row(name, layer, batch, threads, density, passes, *times, ratio))
        channels, height, width = units, height // 2, width // 2
    return rows


def crossover(rows: list[Row]) -> float:
    """Return the density at which the ratio is 1; nan where it stays above."""
    for a, b in pairwise(rows):
        if a.ratio >= 1 > b.ratio:
            share = math.log(a.ratio) / math.log(a.ratio / b.ratio)
            return a.density + share * (b.density - a.density)
    return math.nan if rows[-1].ratio >= 1 else 0.0


def print_table(rows: list[Row]) -> None:
    """Print, per layer and kind of passes, the ratio at each density and the crossover."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for r in rows:
        groups.setdefault((r.workload, r.layer, str(r.batch), str(r.threads), r.passes), []).append(
            r
        )
    for key, group in groups.items():
        at = crossover(group)
        cells = [*key, f"{statistics.median(r.dense_s for r in group) * 1e3:.1f}"]
        cells += [f"{r.ratio:.2f}" for r in group]
        cells.append(f"> {DENSITIES[-1]:.0%}" if math.isnan(at) else f"{at:.0%}")
        print("| " + " | ".join(cells) + " |", flush=True)


def spike_densities(folder: Path, tasks: int = 8) -> None:
    """Print how dense input and spikes of a trained run are, on validation tasks."""
    from spikeshot.assemble import build_learner, pose, start_state
    from spikeshot.assemble_data import load_recordings, task_space
    from spikeshot.assemble_network import build_network
    from spikeshot.learn.adapt import adapt
    from spikeshot.run_folder import BEST, RunFolder
    from spikeshot.snn.network import forward_recorded

    run = RunFolder.open(folder)
    config, record = run.config(), run.data()
    path = Path(record.path) if record.path else None
    recordings = load_recordings(config, record.corpus, path)
    space = task_space(config, recordings, record.split, "val")
    network = build_network(config, space.frame_shape)
    learner = build_learner(config, network)
    tensors, about = run.read_tensors(BEST, config)
    init = {k.removeprefix("init/"): v for k, v in tensors.items() if k.startswith("init/")}
    rates = {k.removeprefix("learned/"): v for k, v in tensors.items() if k.startswith("learned/")}
    fresh = start_state(config, network, learner, space).init
    found: dict[str, list[float]] = {}
    for episode in range(tasks):
        frames = space.episode(episode).query
        support = pose(network, space.episode(episode)).support
        rule, steps = learner.rule, config.learn.inner_steps
        adapted = adapt(learner.forward, learner.loss, init, rates, rule, support, steps)
        found.setdefault("input", []).append((frames != 0).double().mean().item())
        for stage, params in (("random", fresh), ("meta-trained", init), ("adapted", adapted)):
            with torch.no_grad():
                _, record_ = forward_recorded(network, params, frames)
            for i, s in enumerate(record_):
                found.setdefault(f"{stage}, layer {i}", []).append(s.mean().item())
    print(f"\n{config.name}, iteration {about['iteration']}: share of ones in")
    for name, values in found.items():
        print(f"  {name}: {statistics.mean(values):.1%}")


def main() -> None:
    """Measure what the arguments ask for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=WORKLOADS)
    parser.add_argument("--batch", type=int, nargs="+", default=[50])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--run", type=Path, nargs="*", default=[])
    chosen = parser.parse_args()
    clock = time.perf_counter if chosen.clock == "wall" else time.process_time
    kept = sparse_conv.DENSEST, sparse_conv.FEWEST
    sparse_conv.DENSEST, sparse_conv.FEWEST = 1.0, 0  # sparse at any density and size
    header = ["workload", "layer", "batch", "threads", "passes", "dense ms"]
    header += [*(f"{d:.0%}" for d in DENSITIES), "crossover"]
    print("| " + " | ".join(header) + " |\n|" + " --- |" * len(header))
    rows = []
    for name in chosen.workloads:
        for batch in chosen.batch:
            for threads in chosen.threads:
                torch.set_num_threads(threads)
                rows += measure(name, batch, threads, chosen.rounds, clock)
                print_table(rows[-4 * len(DENSITIES) * len(WORKLOADS[name][2]) :])
    sparse_conv.DENSEST, sparse_conv.FEWEST = kept
    for folder in chosen.run:
        spike_densities(folder)
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
