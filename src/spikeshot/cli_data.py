"""`spikeshot data`: what corpora there are, how to get them, and what is in a user's files."""

import json
import re
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer

from spikeshot.errors import ConfigError, DataError

app = typer.Typer(
    help="List, fetch, check, pack and look at recordings.",
    no_args_is_help=True,
    add_completion=False,
)

BARS = 40  # characters of the longest bar of a histogram
SHOW_SECONDS = 0.2  # between lines of progress on a terminal

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A corpus of `data list`.")]
TargetArgument = Annotated[
    str, typer.Argument(metavar="PATH|NAME", help="Folder, archive or pack; or a corpus.")
]
CorpusOption = Annotated[
    str | None, typer.Option(help="The layout of PATH, as nmnist [the first that fits].")
]
SensorOption = Annotated[
    str | None,
    typer.Option(metavar="WIDTHxHEIGHT", help="The sensor, where no file says it."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
def list_corpora(as_json: JsonOption = False) -> None:
    """List the corpora: what, classes, size, licence, how to get it, whom to cite."""
    from dataclasses import asdict

    from spikeshot.data.corpora import CORPORA, get_corpus

    corpora = [*CORPORA.values(), get_corpus("tonic:NAME")]
    if as_json:
        keys = ("name", "about", "needs_path")
        print(json.dumps([{k: getattr(c, k) for k in keys} | asdict(c.facts) for c in corpora]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("corpus", "", show_lines=True)
    for c in corpora:
        f = c.facts
        command = f"spikeshot data get {c.name}. " if f.files else ""
        rows = {
            "what": c.about,
            "classes": f.classes,
            "size": f.size,
            "licence": f.licence,
            "get it": f"{command}{f.obtain}",
            "cite": f.citation,
        }
        lines = Table.grid(padding=(0, 2))
        for row in rows.items():
            lines.add_row(*row)
        table.add_row(c.name, lines)
    Console(markup=False, highlight=False).print(table)


@app.command()
def get(
    name: NameArgument,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to put the files [the cache].")
    ] = None,
    url: Annotated[
        list[str] | None, typer.Option(help="One more mirror, tried first; may be repeated.")
    ] = None,
) -> None:
    """Fetch a corpus, going on where an earlier call stopped, or say how to get it by hand."""
    from spikeshot.data.corpora.obtain import obtain

    with _Progress() as progress:
        fetched = obtain(name, out, url or (), progress.bytes)
    for one in fetched:
        print(one.path)
        if one.warning:
            print(f"warning: {one.warning}", file=sys.stderr)


@app.command()
def check(
    target: TargetArgument,
    corpus: CorpusOption = None,
    sensor_size: SensorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read every recording, drawing or photograph and report each bad one; exit code 1 if any."""
    from dataclasses import asdict

    from spikeshot.data.checking import Report, check_originals, check_samples
    from spikeshot.data.corpora.places import is_pack, samples_at
    from spikeshot.data.packs import verify_pack
    from spikeshot.data.samples import Originals

    if is_pack(target):
        recordings = verify_pack(Path(target))
        report = Report(len(recordings), len(recordings.events), ())
    else:
        with _Progress() as progress:
            found = samples_at(target, corpus, _size(sensor_size))
            if isinstance(found, Originals):
                report = check_originals(found, progress.samples)
            else:
                report = check_samples(found, progress.samples)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        for problem in report.problems:
            print(problem)
        print(f"{target}: {_count(report.samples, report.what)} read, {len(report.problems)} bad")
    raise typer.Exit(1 if report.problems else 0)


@app.command()
def pack(
    target: TargetArgument, corpus: CorpusOption = None, sensor_size: SensorOption = None
) -> None:
    """Pack recordings into the cache now, rather than when they are first used."""
    from spikeshot.data.corpora.places import recordings_at
    from spikeshot.data.packs import folder_of
    from spikeshot.data.store import cache_folder

    with _Progress() as progress:
        recordings = recordings_at(target, corpus, progress.samples, _size(sensor_size))
    folder = folder_of(recordings)
    if folder is None:
        raise DataError(
            f"{target}: cannot be packed into {cache_folder()}. Free some space, or set "
            "SPIKESHOT_CACHE to a folder that can be written."
        )
    print(f"{folder}: {_count(len(recordings), 'recording')}, digest {recordings.digest}")


@app.command()
def show(
    target: TargetArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .png, or .gif that moves.")],
    index: Annotated[int, typer.Option(min=0, help="Number of the recording, from 0.")] = 0,
    corpus: CorpusOption = None,
    sensor_size: SensorOption = None,
) -> None:
    """Draw one recording: event frames over time, ON and OFF in colour, and in space-time."""
    from spikeshot.data.corpora.places import recordings_at
    from spikeshot.data.plots import write_picture

    with _Progress() as progress:
        recordings = recordings_at(target, corpus, progress.samples, _size(sensor_size))
    if index >= len(recordings):
        raise DataError(
            f"--index is {index}; {target} has {_count(len(recordings), 'recording')}, "
            f"0 to {len(recordings) - 1}."
        )
    label = recordings.classes[recordings.labels[index]]
    title = f"recording {index} ({recordings.origins[index]}), class {label}"
    write_picture(recordings[index], recordings.sensor_size, title, out)
    print(out)


@app.command()
def stats(
    target: TargetArgument,
    corpus: CorpusOption = None,
    sensor_size: SensorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show events, durations, rates, counts of each class, and a histogram."""
    from spikeshot.data.corpora.places import recordings_at
    from spikeshot.data.statistics import summarise

    with _Progress() as progress:
        recordings = recordings_at(target, corpus, progress.samples, _size(sensor_size))
    summary = summarise(recordings)
    if as_json:
        print(json.dumps(summary))
    else:
        _print_summary(target, summary)


def _size(text: str | None) -> tuple[int, int] | None:
    """Return (width, height) of `346x260`; raises `ConfigError` for other text."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if match is None:
        raise ConfigError(f"--sensor-size is {text!r}; expected WIDTHxHEIGHT, as 346x260.")
    return int(match[1]), int(match[2])


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _print_summary(target: str, summary: dict[str, Any]) -> None:
    width, height = summary["sensor_size"]
    print(f"{target}: {_count(summary['recordings'], 'recording')}, sensor {width} x {height}")
    print(f"{summary['events_in_all']:,} events, {summary['on_share']:.1%} of them ON")
    print(f"digest {summary['digest']}\n")
    print(f"{'per recording':22}{'min':>12}{'median':>12}{'mean':>12}{'max':>12}")
    for key, name in (
        ("events", "events"),
        ("duration_ms", "duration (ms)"),
        ("events_per_second", "events per second"),
    ):
        row = summary[key]
        print(f"{name:22}" + "".join(f"{row[k]:12,.0f}" for k in ("min", "median", "mean", "max")))
    counts, edges = summary["histogram"]["counts"], summary["histogram"]["edges"]
    print("\nevents per recording")
    for n, low, high in zip(counts, edges, edges[1:], strict=False):
        bar = "#" * -(-n * BARS // max(counts))
        print(f"{f'{low:,.0f} to {high:,.0f}':>22} {n:>8,} {bar}".rstrip())
    print("\nrecordings of each class")
    for name, n in summary["per_class"].items():
        print(f"{name:>22} {n:>8,}")


class _Progress:
    """Shows how far a command is, on standard error and only on a terminal."""

    def __init__(self) -> None:
        self._shown, self._width = 0.0, 0
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)

    def samples(self, done: int, total: int) -> None:
        """Show how many of the recordings are done."""
        self._show(f"{done:,} of {_count(total, 'recording')}", done == total)

    def bytes(self, name: str, done: int, total: int | None) -> None:
        """Show how many megabytes of a file are here."""
        of = f" of {total / 1e6:,.1f}" if total else ""
        self._show(f"{name}: {done / 1e6:,.1f}{of} MB", done == total)

    def _show(self, text: str, last: bool) -> None:
        now = time.monotonic()
        if self._terminal and (last or now - self._shown > SHOW_SECONDS):
            self._shown, self._width = now, max(self._width, len(text))
            print(f"\r{text:{self._width}}", end="", file=sys.stderr, flush=True)
