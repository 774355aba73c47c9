"""How long one exact meta-step takes, against the step-by-step oracle and the dense floor.

Method. Every variant runs in a process of its own, so that its peak memory is its own; all
processes of one table row group stay alive and are asked for one step each, in turn, so that a
slower or faster spell of the machine meets all of them. The first round warms up. Reported are the
median over the rounds, the spread (interquartile range over median), the peak resident memory of
the process, and ratios of medians:

    ratio_to_oracle   median of the step-by-step oracle (the authors' order: a Python loop over
                      time, one graph through everything) over this variant's: how many times faster
    ratio_to_floor    this variant's median over that of the dense convolutions alone, unpooled: all
                      that a dense exact meta-step has to do per layer, and nothing else

    python benchmarks/meta_step.py [--json PATH] [--workloads small reference] [--threads 1 2]
                                   [--inner-steps N ...] [--rounds N] [--data PATH] [--run RUN]

Without `--inner-steps`: all variants at one inner step, and for `small` the strategies at 5 and 10.
Frames are Poisson counts at the density of real 1 ms N-MNIST bins, or with `--data PATH` (N-MNIST's
zip or folder) real Double N-MNIST. `--run RUN` measures a trained run instead: its network, best
weights and a meta-validation episode. norse and SpikingJelly take part in `small` and `reference`
where they are installed (`others.py`). Progress goes to standard error.
"""

import argparse
import contextlib
import ctypes
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Variant = tuple[str, str]  # engine and strategy, the columns of the table
ORACLE, FLOOR = ("oracle", "double_backward"), ("floor", "-")
STRATEGIES = (("auto", "split"), ("auto", "remat"))
VARIANTS = (ORACLE, FLOOR, *STRATEGIES, ("auto", "double_backward"), ("auto", "first_order"))
OTHERS = ("norse", "spikingjelly")
ROUNDS = {"small": 11, "reference": 5}  # at one inner step; a run has as many as `small`
MORE_STEPS, MORE_ROUNDS = (5, 10), 5


@dataclass(frozen=True)
class Case:
    """One group of rows: what is measured in alternation.

    `workload`: a name in `workloads.py`, or with `run` that of the run.
    """

    workload: str
    threads: int
    inner_steps: int
    variants: tuple[Variant, ...]
    rounds: int
    data: Path | None = None
    run: Path | None = None


@dataclass(frozen=True)
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
    ratio_to_oracle: float
    ratio_to_floor: float


HEADER = (
    *("workload", "threads", "inner steps", "engine", "strategy", "median s", "spread", "peak MB"),
    *("x faster than oracle", "x floor"),
)


def build_step(case: Case, variant: Variant) -> Callable[[], Any]:
    """Return the function that does one step of `variant`."""
    import others
    import workloads

    engine, strategy = variant
    if case.run:
        task = workloads.task_of_run(case.run, case.data)[1]
    else:
        shape = workloads.WORKLOADS[case.workload]
        neuron = others.neuron_of(engine) if engine in OTHERS else workloads.PAPER
        task = workloads.task_of_workload(shape, case.data, neuron)
    if engine == "floor":
        return workloads.floor_step(task, case.inner_steps)
    if engine in OTHERS:
        return others.other_step(engine, task, case.inner_steps)
    return workloads.engine_step(task, engine, strategy, case.inner_steps)


def worker(pipe: Connection, case: Case, variant: Variant) -> None:
    """Do one step each time the parent asks; answer with seconds and peak memory in MB."""
    import torch

    torch.set_num_threads(case.threads)
    _keep_freed_memory()
    step = build_step(case, variant)
    while pipe.recv():
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start
        pipe.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory, for every variant alike, as `spikeshot train` does."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(option, 1 << 30)


def measure(case: Case, say: Callable[[str], None], processes: Any = None) -> list[Row]:
    """Return one row per variant, timed in alternation; the first round warms up.

    `processes` has `Pipe` and `Process`, as multiprocessing's contexts do.
    """
    processes = processes or multiprocessing.get_context("spawn")
    workers = []
    for variant in case.variants:
        mine, theirs = processes.Pipe()
        process = processes.Process(target=worker, args=(theirs, case, variant))
        process.daemon = True
        with _environment(OMP_NUM_THREADS=str(case.threads)):
            process.start()
        workers.append((mine, process))
    answers: list[list[tuple[float, float]]] = [[] for _ in case.variants]
    for number in range(case.rounds + 1):
        say(f"round {number} of {case.rounds}" if number else "warming up")
        for (pipe, _), answer in zip(workers, answers, strict=True):
            pipe.send(True)
            answer.append(pipe.recv())
    for pipe, process in workers:
        pipe.send(False)
        process.join()
    return rows_of(case, answers)


@contextlib.contextmanager
def _environment(**values: str) -> Any:
    """Set variables for the processes started within."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def rows_of(case: Case, answers: Sequence[Sequence[tuple[float, float]]]) -> list[Row]:
    """Return the rows for each variant's (seconds, peak MB) per round, the first one a warm-up."""
    times = {v: [s for s, _ in a[1:]] for v, a in zip(case.variants, answers, strict=True)}
    medians = {variant: statistics.median(t) for variant, t in times.items()}
    oracle, floor = medians.get(ORACLE, float("nan")), medians.get(FLOOR, float("nan"))
    rows = []
    for variant, answer in zip(case.variants, answers, strict=True):
        median, single = medians[variant], len(times[variant]) == 1
        low, _, high = (median,) * 3 if single else statistics.quantiles(times[variant], n=4)
        peak = max(memory for _, memory in answer)
        rows.append(
            Row(
                *(case.workload, case.threads, case.inner_steps, *variant, median),
                *((high - low) / median, peak, oracle / median, median / floor),
            )
        )
    return rows


def plan(asked: argparse.Namespace) -> list[Case]:
    """Return the cases that the arguments ask for."""
    if asked.run:
        from workloads import task_of_run

        names, sources = [task_of_run(asked.run, asked.data)[0]], (asked.data, asked.run)
    else:
        names, sources = asked.workloads, (asked.data, None)
    installed = () if asked.run else tuple(name for name in OTHERS if find_spec(name))
    everything = (*VARIANTS, *((name, "double_backward") for name in installed))
    cases = []
    for name, threads in product(names, asked.threads):
        steps = [
            (n, everything, ROUNDS.get(name, ROUNDS["small"])) for n in asked.inner_steps or [1]
        ]
        if name == "small" and not asked.inner_steps:
            steps += [(n, (ORACLE, FLOOR, *STRATEGIES), MORE_ROUNDS) for n in MORE_STEPS]
        cases += [
            Case(name, threads, n, variants, asked.rounds or rounds, *sources)
            for n, variants, rounds in steps
        ]
    return cases


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--workloads", nargs="+", default=list(ROUNDS), choices=list(ROUNDS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--inner-steps", type=int, nargs="+")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--run", type=Path)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None, processes: Any = None) -> None:
    """Measure what the arguments ask for; print the table as it grows, and write the rows."""
    asked = arguments(words)
    cases, rows, start = plan(asked), [], time.perf_counter()
    first = replace(cases[0], threads=1, inner_steps=1, variants=(("auto", "split"),), rounds=1)
    measure(first, lambda _: None, processes)  # compiles, which no measured process shall do
    print("| " + " | ".join(HEADER) + " |\n" + "|" + " --- |" * len(HEADER))
    for number, case in enumerate(cases, 1):
        about = (
            f"[{number}/{len(cases)}] {case.workload}, {case.threads} threads, "
            f"{case.inner_steps} inner steps, {len(case.variants)} variants"
        )

        def say(what: str, about: str = about) -> None:
            seconds = time.perf_counter() - start
            print(f"{seconds:4.0f} s {about}: {what}", file=sys.stderr, flush=True)

        for row in measure(case, say, processes):
            rows.append(row)
            print(
                f"| {row.workload} | {row.threads} | {row.inner_steps} | {row.engine} | "
                f"{row.strategy} | {row.median_s:.4f} | {row.spread:.2f} | {row.peak_mb:.0f} | "
                f"{row.ratio_to_oracle:.2f} | {row.ratio_to_floor:.2f} |",
                flush=True,
            )
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
