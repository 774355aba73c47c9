"""`spikeshot sweep`: a grid of trainings and evaluations over processes, with tables."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikeshot.errors import ConfigError, SweepError
from spikeshot.stopping import StopSignal

if TYPE_CHECKING:
    from spikeshot.study.plan import Point
    from spikeshot.study.runner import Status

STATUS_SECONDS = 60.0  # between lines of progress where there is no terminal


def sweep(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="A sweep that ships, or a YAML file.")
    ],
    data: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Recordings: folder or zip.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the sweep [sweeps/<name>].")
    ] = None,
    start: Annotated[
        str, typer.Option(metavar="RUN", help="Trained runs as the base, as 'runs/s{seed}'.")
    ] = "",
    seeds: Annotated[str | None, typer.Option(metavar="0,1,2", help="Seeds.")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Points at once [one per core].")
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(min=2, help="Episodes of each evaluation.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change an axis, the sweep, or a key."),
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Points to do, as 'meta-trained/*'.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep finished points, continue interrupted ones.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the points and do nothing.")
    ] = False,
) -> None:
    """Train and evaluate a grid of learners; ends with a table, intervals and figures."""
    from spikeshot.config import Config
    from spikeshot.study.grid import adjusted, points_of
    from spikeshot.study.grid_file import load_grid
    from spikeshot.study.plan import chosen

    grid = load_grid(study, overrides or [], list(Config.model_fields), start=start)
    grid = adjusted(grid, _seeds(seeds), episodes)
    points = points_of(grid)
    todo = chosen(points, only) if only else points
    for arm in grid.left_out:
        sys.stderr.write(f"arm {arm} needs a run and is left out: --set arms.{arm}.run=RUN\n")
    if dry_run:
        _show(todo)
        return
    from spikeshot.study.evaluate import available_cores
    from spikeshot.sweeps import Place, sweep

    place = Place(out or Path("sweeps") / grid.name, data)
    shown = _Shown(processes or available_cores())
    results = sweep(
        grid,
        points,
        place,
        todo=todo,
        processes=shown.processes,
        resume=resume,
        on_status=shown.on_status,
        on_end=shown.on_end,
        stop=StopSignal(),
    )
    table = place.out / "table.md"
    if table.exists():
        print(table.read_text(encoding="utf-8"), end="")
    print(f"{len(results['points'])} of {len(points)} points are done. Tables: {place.out}")
    if failed := results["failed"]:
        lines = "".join(f"\n  {name}: {why}" for name, why in failed.items())
        raise SweepError(f"{len(failed)} points failed:{lines}")


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ConfigError(f"--seeds is {text!r}; expected whole numbers, as 0,1,2.") from None


def _show(points: "Sequence[Point]") -> None:
    """Print the points as lines."""
    trained = sum(p.train for p in points)
    for point in points:
        origin = f"from {point.after or point.start}" if point.after or point.start else "fresh"
        sets = " ".join(point.overrides if point.train else point.measure.overrides)
        print(f"{point.name}: {'train' if point.train else 'evaluate'} {origin}  {sets}".rstrip())
    print(f"{len(points)} points, {trained} of them trained.")


class _Shown:
    """Shows a sweep's progress on standard error: each end, and how far it is."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self.logged = time.monotonic()
        self.status: Status | None = None
        self.line = ""  # the last line on a terminal, to be written over

    def on_status(self, status: "Status") -> None:
        """Say how far it is, now and then."""
        self.status = status
        if sys.stderr.isatty():
            text = f"{_far(status)}  {', '.join(status.running)}"[:100]
            if text != self.line:
                self._write(f"\r{text.ljust(len(self.line))}\r")
                self.line = text
        elif time.monotonic() - self.logged >= STATUS_SECONDS:
            self.logged = time.monotonic()
            self._write(_far(status) + "\n")

    def on_end(self, point: "Point", problem: str, result: Mapping[str, Any]) -> None:
        """Say how a point ended."""
        if self.line:
            self._write("\r" + " " * len(self.line) + "\r")
            self.line = ""
        if problem:
            self._write(f"{point.name} failed: {problem}\n")
            return
        accuracy, half = 100 * result["accuracy"], 100 * (result["ci95"] or 0.0)
        self._write(f"{point.name}: {accuracy:.2f} ± {half:.2f} %\n")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _far(status: "Status") -> str:
    left = "" if status.left_s is None else f", {status.left_s / 60:.1f} min left"
    failed = f", {status.failed} failed" if status.failed else ""
    return f"{status.done}/{status.total} points{failed}{left}"
