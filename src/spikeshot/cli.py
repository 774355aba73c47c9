"""The command line: the only place that prints or reads arguments.

Torch is imported by the commands that need it, so that `--help` is quick.
"""

import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

import spikeshot
from spikeshot import cli_data, cli_study
from spikeshot.errors import DivergenceError, Interrupted, SpikeshotError
from spikeshot.stopping import StopSignal
from spikeshot.torchrun import joined, place

if TYPE_CHECKING:
    from spikeshot.config import Config

app = typer.Typer(
    help="Few-shot learning for spiking neural networks on event-camera data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(cli_data.app, name="data")
app.command("sweep")(cli_study.sweep)
app.command("study")(cli_study.study)

_INTERRUPTED = 130
_RANK, _ = place(os.environ)

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of a run, learner file or pretrained:NAME.")
]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="PATH", help="Recordings: folder or zip.")
]


def main() -> NoReturn:
    """Run the command line; errors of ours become one message and their exit code."""
    # torch's idle threads spin, and so keep the cores from ours: a tenth of a millisecond is enough
    os.environ.setdefault(
        "GOMP_SPINCOUNT", "10000"
    )  # heard when torch is imported, later than here
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="spikeshot", standalone_mode=False)  # some versions: 130 at Ctrl-C
        sys.stdout.flush()
    except (DivergenceError, Interrupted) as error:
        if _RANK:  # the first process says it
            sys.exit(error.exit_code)
        _fail(str(error), error.exit_code)
    except SpikeshotError as error:
        _fail(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    except BrokenPipeError:  # the reader has gone; what is left to flush goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # as a disk that is full where nothing better is said of it
        _fail(f"{error}.", 2)
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's usage errors have it
            raise
        message = str(error.format_message()).strip().rstrip(".")
        if not message:  # no command was given: the help is on the screen
            sys.exit(2)
        _fail(f"{message}. See `spikeshot --help`.", 2)
    if code == _INTERRUPTED and not _RANK:
        _fail("interrupted.", _INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    process = f"process {_RANK}: " if _RANK else ""
    print(f"spikeshot: {process}{message}", file=sys.stderr)
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"spikeshot {spikeshot.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Few-shot learning for spiking neural networks on event-camera data."""


@app.command()
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A preset's name or YAML file.")],
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", help="Run folder [runs/<name>].")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the configuration."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run from its checkpoint.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Say at the end where the time of the steps went.")
    ] = False,
) -> None:
    """Meta-train a spiking network; ends with its accuracy on held-out classes."""
    from spikeshot.config import load_config

    settings = load_config(config, overrides or [])
    folder = out or _default_folder(config, settings, resume)
    from spikeshot import jobs
    from spikeshot.progress import RichListener, print_result

    stop = StopSignal()
    with joined(os.environ) as team, RichListener(hidden=team.rank > 0) as listener:
        result = jobs.train(
            settings,
            folder,
            data=data,
            resume=resume,
            profile=profile,
            listener=listener,
            stop=stop,
            team=team,
        )
    if not team.rank:
        print_result(result, folder)


def _default_folder(source: str, settings: "Config", resume: bool) -> Path:
    """Return runs/<name>; for `--resume` of a run's own config.yaml, that run."""
    if resume and Path(source).name == "config.yaml":
        return Path(source).parent
    return Path("runs") / settings.name


@app.command()
def evaluate(
    run: RunArgument,
    split: Annotated[str, typer.Option(help="train, val or test classes.")] = "test",
    episodes: Annotated[int, typer.Option(min=2, help="Episodes to average over.")] = 1000,
    ways: Annotated[int | None, typer.Option(min=2, help="Classes per task.")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Support samples per class.")] = None,
    queries: Annotated[int | None, typer.Option(min=1, help="Query samples per class.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Inner steps.")] = None,
    data: DataOption = None,
    corpus: Annotated[
        str | None, typer.Option(help="Another corpus than the run's, as nmnist.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Evaluate under another learn.* or task.*"),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Write each episode's accuracies: .csv or JSON lines."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that score episodes [one per core].")
    ] = None,
    writes: Annotated[
        bool, typer.Option("--writes", help="Count the weights that inner steps write.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Evaluate a run's best weights on many episodes, with a 95 % interval."""
    from spikeshot import jobs
    from spikeshot.progress import RichListener, print_result

    stop = StopSignal()
    with joined(os.environ) as team, RichListener(hidden=team.rank > 0) as listener:
        result = jobs.evaluate(
            run,
            split=split,
            episodes=episodes,
            ways=ways,
            shots=shots,
            queries=queries,
            steps=steps,
            data=data,
            corpus=corpus,
            overrides=overrides or [],
            scores=scores,
            workers=workers,
            writes=writes,
            listener=listener,
            stop=stop,
            team=team,
        )
    if team.rank:
        return
    if as_json:
        print(json.dumps(result))
    else:
        print_result(result, run)


@app.command()
def configs() -> None:
    """List the presets that ship."""
    from spikeshot.config import load_config, preset_names

    for name in preset_names():
        print(f"{name:24} {load_config(name).about}")


@app.command()
def pretrained() -> None:
    """List the trained learners that ship."""
    from spikeshot.stored import PREFIX, open_learner, pretrained_names

    for name in pretrained_names():
        learner = open_learner(PREFIX + name)
        print(f"{PREFIX + name:36} {learner.card.splitlines()[2]}")


@app.command()
def show(run: RunArgument) -> None:
    """Show what a run or learner is: configuration, seed, data, best validation, result."""
    from spikeshot.describing import describe
    from spikeshot.progress import print_run

    print_run(describe(run))
