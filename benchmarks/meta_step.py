"""How long one exact meta-step takes, against the step-by-step oracle and the dense floor.

Method. One meta-step is one task: adapt on 5 support samples, query loss on 50, exact second-order
meta-gradient, float32. Every variant runs in a process of its own, so that its peak memory is its
own; all processes of one workload stay alive and are asked for one step each, in turn, so that a
slower or faster spell of the machine meets all of them. Reported are the median over the rounds,
the spread (interquartile range over median), the peak resident memory, and ratios of medians:

    ratio_to_oracle   median of the step-by-step oracle (the authors' order: a Python loop over
                      time, one graph through everything) over this variant's: how many times faster
    ratio_to_floor    this variant's median over that of the dense convolutions alone: the forward
                      passes, backward passes and double backward passes that a dense exact
                      meta-step has to do, and nothing else

Frames are Poisson counts at the density of real 1 ms N-MNIST bins (3 %), or with `--data PATH` real
Double N-MNIST frames.

    python benchmarks/meta_step.py [--json PATH] [--threads 1 2] [--workloads small reference]
                                   [--inner-steps 1] [--rounds 9] [--data PATH]
"""

import argparse
import json
import multiprocessing as mp
import os
import resource
import statistics
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

WAYS, QUERIES, DENSITY = 5, 10, 0.03
VARIANTS = (
    ("oracle", "double_backward"),
    ("floor", "-"),
    ("auto", "double_backward"),
    ("auto", "split"),
    ("auto", "remat"),
    ("auto", "first_order"),
)


@dataclass(frozen=True)
class Workload:
    """Shape of one benchmark: time steps, burn-in, input size (C, H, W) and channels."""

    name: str
    steps: int
    burn_in: int
    shape: tuple[int, int, int]
    channels: tuple[int, ...]


WORKLOADS = {
    "small": Workload("small", 30, 0, (2, 16, 16), (16, 32, 32)),
    "reference": Workload("reference", 100, 70, (2, 32, 16), (32, 64, 128)),
}


@dataclass
class Row:
    """One line of the table."""

    workload: str
    threads: int
    inner_steps: int
    engine: str
    strategy: str
    median_s: float
    spread: float
    peak_mb: float
    ratio_to_oracle: float = float("nan")
    ratio_to_floor: float = float("nan")


def build_task(workload: Workload, data: Path | None) -> Any:
    """Return (network, init, learned, rule, support, query) of one task."""
    import torch

    from spikeshot.learn.rules.presets import get_rule
    from spikeshot.learn.rules.rule import Batch
    from spikeshot.snn.init import init_params
    from spikeshot.snn.layer import Layer, LayerStyle
    from spikeshot.snn.network import Network
    from spikeshot.snn.neuron import Neuron

    generator = torch.Generator().manual_seed(0)
    network = Network(
        workload.shape,
        tuple(Layer(c, 5, 2) for c in workload.channels),
        LayerStyle(Neuron(0.95, 0.9, 0.65)),
        burn_in=workload.burn_in,
        input_gain=10.0,
    )
    samples = WAYS * (1 + QUERIES)
    frames = real_frames(workload, data) if data else None
    if frames is None:
        rate = torch.full((workload.steps, samples, *workload.shape), DENSITY)
        frames = torch.poisson(rate, generator=generator)
    labels = torch.arange(WAYS)
    support = Batch(frames[:, :WAYS], labels)
    query = Batch(frames[:, WAYS:], labels.repeat_interleave(QUERIES))
    init = init_params(network, WAYS, frames, generator=generator)
    rule = get_rule("sgd", 1.0, "fixed")
    return network, init, rule.transform.learned(init), rule, support, query


def real_frames(workload: Workload, data: Path) -> Any:
    """Return real Double N-MNIST frames `[T, 55, 2, H, W]` fitted to the workload's shape."""
    import torch

    from spikeshot.data.frames import FrameSpec, bin_recordings
    from spikeshot.data.nmnist import read_nmnist

    _, height, width = workload.shape
    spec = FrameSpec(crop=(1, 1, 32, 32), downsample=2, dt_us=1000, bins=workload.steps)
    frames = torch.as_tensor(bin_recordings(read_nmnist(data), range(110), spec)).float()
    pairs = torch.cat([frames[:, :55], frames[:, 55:]], dim=-2)  # one above the other
    return pairs[..., :height, :width].contiguous()


def floor_step(workload: Workload) -> Any:
    """Return a function that does the dense convolutions of one meta-step and nothing else."""
    import torch
    import torch.nn.functional as F

    weights, inputs = [], []
    c, h, w = workload.shape
    for channels in workload.channels:
        weights.append(torch.randn(channels, c, 5, 5, requires_grad=True))
        inputs.append((c, h, w))
        c, h, w = channels, h // 2, w // 2
    window = workload.steps - workload.burn_in

    def images(count: int, shape: tuple[int, int, int], grad: bool) -> torch.Tensor:
        x = torch.randn(count, *shape).contiguous(memory_format=torch.channels_last)
        return x.requires_grad_(grad)

    plan = [
        (
            weight,
            images(window * WAYS, shape, i > 0),
            images(window * WAYS * QUERIES, shape, i > 0),
            images(max(workload.burn_in, 1) * WAYS, shape, False),
            images(max(workload.burn_in, 1) * WAYS * QUERIES, shape, False),
        )
        for i, (weight, shape) in enumerate(zip(weights, inputs, strict=True))
    ]

    def step() -> None:
        for weight, support, query, burn_support, burn_query in plan:
            if workload.burn_in:
                with torch.no_grad():
                    F.conv2d(burn_support, weight, padding=2)
                    F.conv2d(burn_query, weight, padding=2)
            for x, second in ((support, True), (query, False)):
                wanted = [weight, x] if x.requires_grad else [weight]
                y = F.conv2d(x, weight, padding=2)
                g = torch.ones_like(y, requires_grad=second)
                first = torch.autograd.grad(y, wanted, g, create_graph=second)
                if second:
                    ones = [torch.ones_like(f) for f in first]
                    torch.autograd.grad(first, [*wanted, g], ones, allow_unused=True)

    return step


def worker(
    pipe: Connection, workload: Workload, variant: tuple[str, str], threads: int, inner: int,
    data: Path | None,
) -> None:  # fmt: skip
    """Do one step each time the parent asks; answer with seconds and peak memory."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch
    import torch.nn.functional as F

    from spikeshot.learn.meta_gradient import meta_gradient
    from spikeshot.snn.network import forward

    torch.set_num_threads(threads)
    engine, strategy = variant
    if engine == "floor":
        step = floor_step(workload)
    else:
        network, init, learned, rule, support, query = build_task(workload, data)
        network = replace(network, engine=engine)
        kind = "first_order" if strategy == "first_order" else "exact"
        step = partial(
            meta_gradient,
            partial(forward, network), F.cross_entropy, init, learned, rule, support, query, inner,
            kind,
            strategy="split" if strategy == "first_order" else strategy,
            micro_batch=0 if engine == "oracle" else WAYS * QUERIES // 5,
        )  # fmt: skip
    while pipe.recv():
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start
        pipe.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measure(
    workload: Workload, threads: int, inner: int, rounds: int, data: Path | None
) -> list[Row]:
    """Return one row per variant, timed in alternation; the first round warms up."""
    context = mp.get_context("spawn")
    pipes, processes = [], []
    for variant in VARIANTS:
        mine, theirs = context.Pipe()
        process = context.Process(
            target=worker, args=(theirs, workload, variant, threads, inner, data), daemon=True
        )
        process.start()
        pipes.append(mine)
        processes.append(process)
    answers: list[list[tuple[float, float]]] = [[] for _ in VARIANTS]
    for _ in range(rounds + 1):
        for pipe, answer in zip(pipes, answers, strict=True):
            pipe.send(True)
            answer.append(pipe.recv())
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(False)
        process.join()
    rows = []
    for (engine, strategy), answer in zip(VARIANTS, answers, strict=True):
        times = [seconds for seconds, _ in answer[1:]]
        median = statistics.median(times)
        low, _, high = statistics.quantiles(times, n=4)
        peak = max(memory for _, memory in answer)
        rows.append(
            Row(
                workload.name, threads, inner, engine, strategy, median, (high - low) / median, peak
            )
        )
    oracle, floor = rows[0].median_s, rows[1].median_s
    for row in rows:
        row.ratio_to_oracle, row.ratio_to_floor = oracle / row.median_s, row.median_s / floor
    return rows


def main() -> None:
    """Measure what the arguments ask for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=WORKLOADS)
    parser.add_argument("--inner-steps", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--data", type=Path)
    chosen = parser.parse_args()
    header = ("workload", "threads", "inner", "engine", "strategy", "median s", "spread", "peak MB")
    print("| " + " | ".join((*header, "x faster than oracle", "x floor")) + " |")
    print("|" + " --- |" * 10)
    rows = []
    for name in chosen.workloads:
        for threads in chosen.threads:
            for inner in chosen.inner_steps:
                for row in measure(WORKLOADS[name], threads, inner, chosen.rounds, chosen.data):
                    rows.append(row)
                    print(
                        f"| {row.workload} | {row.threads} | {row.inner_steps} | {row.engine} | "
                        f"{row.strategy} | {row.median_s:.4f} | {row.spread:.2f} | "
                        f"{row.peak_mb:.0f} | {row.ratio_to_oracle:.2f} | "
                        f"{row.ratio_to_floor:.2f} |",
                        flush=True,
                    )
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
