"""What the command line shows: progress while a job runs, and tables of results."""

import time
from collections import deque
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from spikeshot.config import Config
from spikeshot.learn.meta_train import StepReport
from spikeshot.learn.scoring import Score
from spikeshot.learn.stopwatch import Profile
from spikeshot.study.evaluate import Evaluation

LOG_SECONDS = 30.0  # between lines where there is no terminal


class RichListener:
    """Shows a job's progress on standard error: a bar on a terminal, else a line now and then.

    `hidden`: shows nothing (another process of the run does).
    """

    def __init__(self, *, hidden: bool = False) -> None:
        self.console = Console(stderr=True, quiet=hidden)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=hidden or not self.console.is_terminal,
        )
        self.task: TaskID | None = None
        self.recent: deque[StepReport] = deque(maxlen=50)
        self.scores: list[Score] = []
        self.meta_batch, self.total, self.done = 1, 0, 0
        self.minutes = 0.0  # the budget, where training has one in minutes
        self.started = self.logged = self.step_at = time.monotonic()

    def __enter__(self) -> "RichListener":
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def on_packing(self, done: int, total: int) -> None:
        """Recordings are packed."""
        if done == 1:
            self.total = total
            self._begin("packing recordings", total, 0)
        self.done += 1
        self._advance("")

    def on_start(self, config: Config, iteration: int, recordings: int) -> None:
        """Training begins."""
        self.meta_batch, self.total = config.train.meta_batch, config.train.iterations
        self.minutes = config.train.minutes
        self._begin("meta-training", self.total, iteration)
        verb = "resumes at iteration" if iteration else "starts at iteration"
        line = f"{config.name}: {recordings} recordings, {verb} {iteration}"
        self.console.print(line, highlight=False, markup=False)

    def on_step(self, report: StepReport) -> None:
        """One meta-iteration is done."""
        self.recent.append(report)
        self.done += 1
        speed = self.done * self.meta_batch / max(time.monotonic() - self.started, 1e-9)
        note = (
            f"loss {fmean(r.loss for r in self.recent):.3f}  "
            f"query {100 * fmean(r.accuracy for r in self.recent):.1f} %  {speed:.1f} tasks/s"
        )
        self._advance(note)

    def on_validation(self, iteration: int, result: Evaluation, best: bool) -> None:
        """A validation is done."""
        mark = "  best so far" if best else ""
        self.console.print(
            f"  iteration {iteration}: validation {100 * result.accuracy:.1f} ± "
            f"{100 * result.ci95:.1f} %{mark}",
            highlight=False,
        )

    def on_profile(self, profile: Profile) -> None:
        """Training has ended: one line."""
        shares = ", ".join(
            f"{name} {profile.percent[name]:.1f} % ({ms:.2f} ms)" for name, ms in profile.ms.items()
        )
        line = f"profile of {profile.steps} steps, {profile.ms_per_step:.2f} ms each: {shares}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def on_evaluation_start(self, split: str, episodes: int) -> None:
        """An evaluation begins."""
        self.scores, self.minutes = [], 0.0
        self.total = episodes
        self._begin(f"evaluating {split}", episodes, 0)

    def on_episode(self, score: Score) -> None:
        """One evaluation episode is done."""
        self.scores.append(score)
        self.done += 1
        speed = self.done / max(time.monotonic() - self.started, 1e-9)
        mean = 100 * fmean(s.after for s in self.scores)
        self._advance(f"query {mean:.1f} %  {speed:.1f} episodes/s")

    def _begin(self, what: str, total: int, done: int) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
        whole = None if self.minutes else total
        self.task = self.progress.add_task(what, total=whole, completed=done, note="")
        self.what, self.offset, self.done = what, done, 0
        self.started = self.logged = time.monotonic()

    def _advance(self, note: str) -> None:
        if self.task is not None:
            self.progress.update(self.task, advance=1, note=note)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.logged >= LOG_SECONDS:
            self.logged = now
            at = self.offset + self.done
            if self.minutes:
                line = f"{self.what} {at}  {note}  for {self.minutes:g} minutes"
                self.console.print(line, highlight=False, markup=False)
                return
            left = (now - self.started) / self.done * (self.total - at)
            line = f"{self.what} {at}/{self.total}  {note}  {left / 60:.1f} min left"
            self.console.print(line, highlight=False, markup=False)


def print_result(result: dict[str, Any], run: Path) -> None:
    """Print the table of one evaluation on standard output."""
    title = (
        f"{result['config']}: {result['ways']}-way {result['shots']}-shot, held-out "
        f"{result['split']} classes of {result['dataset']}"
    )
    table = Table()
    for column in ("query accuracy", "mean %", "95 % interval"):
        table.add_column(column, justify="left" if column == "query accuracy" else "right")
    for label, key, ci in (
        ("before adaptation", "accuracy_before", "ci95_before"),
        (f"after {result['inner_steps']} inner steps", "accuracy", "ci95"),
    ):
        table.add_row(label, f"{100 * result[key]:.2f}", f"± {100 * result[ci]:.2f}")
    console = Console()
    console.print(title, highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    if "touched" in result:
        console.print(
            f"{100 * result['touched']:.2f} % of the weights touched, "
            f"{result['writes_per_weight']:.4f} writes per weight",
            highlight=False,
        )
    chance = 100 / result["ways"]
    minutes = f", {result['training_minutes']} min" if "training_minutes" in result else ""
    console.print(
        f"{result['episodes']} episodes, chance {chance:.1f} %, {result['meta_gradient']} "
        f"meta-gradient, seed {result['seed']}{minutes}. Run: {run}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def print_run(described: dict[str, Any]) -> None:
    """Print what a run is."""
    console = Console()
    config: Config = described["config"]
    data, best, results = described["data"], described["best_validation"], described["results"]
    table = Table(show_header=False, title=escape(f"run {config.name}"), title_justify="left")
    table.add_row("about", escape(config.about))
    table.add_row("seed", str(config.seed))
    table.add_row("corpus", f"{data.corpus} ({data.recordings} recordings)")
    if not described["card"]:
        table.add_row("data", escape(data.path or "simulated"))
    table.add_row("data digest", data.digest)
    table.add_row("iterations", f"{described['iterations_done']} {_budget(config)}")
    if best:
        accuracy, ci = 100 * best["accuracy"], 100 * best["ci95"]
        table.add_row(
            "best validation", f"{accuracy:.2f} ± {ci:.2f} % at iteration {best['iteration']}"
        )
    if results:
        accuracy, ci = 100 * results["accuracy"], 100 * results["ci95"]
        table.add_row("result", f"{accuracy:.2f} ± {ci:.2f} % on {results['episodes']} episodes")
        table.add_row("training", f"{results['training_minutes']} minutes")
    else:
        table.add_row("result", "none yet")
    console.print(table)
    if described["card"]:
        console.print(described["card"], highlight=False, markup=False, soft_wrap=True)
    console.print(config.to_yaml(), highlight=False, markup=False, soft_wrap=True)


def _budget(config: Config) -> str:
    t = config.train
    return f"in {t.minutes:g} minutes" if t.minutes else f"of {t.iterations}"
