"""`spikeshot sweep` and `spikeshot study`: trainings and evaluations over processes."""

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

# Options of both commands.
Data = Annotated[Path | None, typer.Option(metavar="PATH", help="Recordings: folder or zip.")]
Processes = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Points at once [one per core].")
]
Episodes = Annotated[int | None, typer.Option(min=2, help="Episodes of each evaluation.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Keep finished points, continue interrupted ones.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the points and do nothing.")]


def sweep(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="A sweep that ships, or a YAML file.")
    ],
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the sweep [sweeps/<name>].")
    ] = None,
    start: Annotated[
        str, typer.Option(metavar="RUN", help="Trained runs as the base, as 'runs/s{seed}'.")
    ] = "",
    seeds: Annotated[str | None, typer.Option(metavar="0,1,2", help="Seeds.")] = None,
    processes: Processes = None,
    episodes: Episodes = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change an axis, the sweep, or a key."),
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Points to do, as 'meta-trained/*'.")
    ] = None,
    resume: Resume = False,
    dry_run: DryRun = False,
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
    _end(place.out, len(results["points"]), len(points), results["failed"], f"Tables: {place.out}")


def study(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A study that ships, or a YAML file.")
    ],
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the study [studies/<name>].")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N", help="So many seeds, or a list as 0,1,2.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="2000|30m", help="Training of each arm: tasks, or time.")
    ] = None,
    processes: Processes = None,
    episodes: Episodes = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the study, or a key of all arms."),
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Points to do, as 'spiking/*'.")
    ] = None,
    resume: Resume = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Write the report of what is finished.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Compare spiking with conventional networks; ends with tables and one HTML report."""
    from spikeshot.config import Config
    from spikeshot.studies import REPORT, points_of_study, run_study, write_study
    from spikeshot.study.evaluate import available_cores
    from spikeshot.study.plan import chosen
    from spikeshot.study.study_file import adjusted_study, load_study
    from spikeshot.sweeps import Place

    asked = load_study(name, overrides or [], list(Config.model_fields))
    asked = adjusted_study(asked, _many_seeds(seeds), episodes, budget)
    points = points_of_study(asked)
    todo = chosen(points, only) if only else points
    if dry_run:
        _show(todo)
        return
    place = Place(out or Path("studies") / asked.name, data)
    again = _again(
        name,
        {"--data": data, "--seeds": seeds, "--budget": budget, "--episodes": episodes},
        overrides or [],
    )
    if report_only:
        results = write_study(asked, points, place, {}, again)
    else:
        shown = _Shown(processes or available_cores())
        results = run_study(
            *(asked, points, place, again),
            todo=todo,
            processes=shown.processes,
            resume=resume,
            on_status=shown.on_status,
            on_end=shown.on_end,
            stop=StopSignal(),
        )
    done = len(points) - len(results["unfinished"])
    _end(place.out, done, len(points), results["failed"], f"Report: {place.out / REPORT}")


def _again(name: str, options: Mapping[str, object], sets: Sequence[str]) -> list[str]:
    """Return the words of the command that was given."""
    given = [word for key, v in options.items() if v is not None for word in (key, str(v))]
    return ["spikeshot", "study", name, *given, *(w for text in sets for w in ("--set", text))]


def _end(out: Path, done: int, total: int, failed: Mapping[str, str], more: str) -> None:
    """Print the table and where `more` is; raises `SweepError` where points failed."""
    table = out / "table.md"
    if table.exists():
        print(table.read_text(encoding="utf-8"), end="")
    print(f"{done} of {total} points are done. {more}")
    if failed:
        lines = "".join(f"\n  {name}: {why}" for name, why in failed.items())
        raise SweepError(f"{len(failed)} points failed:{lines}")


def _many_seeds(text: str | None) -> list[int] | None:
    """Return so many seeds from 0 on, or those of a list."""
    if text is None or "," in text:
        return _seeds(text.rstrip(",") if text else text)
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise ConfigError(
            f"--seeds is {text!r}; expected a number of seeds, as 3, or a list, as 0,1,2."
        )
    return list(range(int(text)))


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
