"""Ships a finished run's learner: `src/spikeshot/pretrained/NAME/learner.safetensors` and card.md.

    python scripts/ship_learner.py RUN NAME [--note TEXT ...] [--result FILE ...]

The card says what the run's folder knows: data, licence, split, protocol, accuracy, limits and use.
`--result`: further evaluations, as `spikeshot evaluate --json` prints them; `--note`: further
limits, a sentence each; `--sensor-size`: WIDTHxHEIGHT, where the run does not say it.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikeshot import export
from spikeshot.config import Config
from spikeshot.data.corpora import get_corpus
from spikeshot.data.splits import MetaSplit
from spikeshot.stored import CARD, LEARNER, PREFIX, open_learner

HOME = Path(__file__).parents[1] / "src" / "spikeshot" / "pretrained"
MAX_BYTES = 1_500_000


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, default=HOME, help="folder of the learners")
    parser.add_argument("--note", action="append", default=[])
    parser.add_argument("--result", type=Path, action="append", default=[])
    parser.add_argument("--sensor-size", type=_size)
    given = parser.parse_args(arguments)
    folder = given.out / given.name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / LEARNER
    size = export(given.run, file, given.sensor_size)
    if size >= MAX_BYTES:
        file.unlink()
        parser.error(f"{file} would have {size} bytes; expected fewer than {MAX_BYTES}.")
    results = [json.loads(path.read_text()) for path in given.result]
    (folder / CARD).write_text(card(given.name, file, results, given.note), encoding="utf-8")
    print(f"{file}: {size / 1e3:.0f} kB")


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def card(name: str, file: Path, results: Sequence[dict[str, Any]], notes: Sequence[str]) -> str:
    """Return the model card of the learner in `file`; `results`: beside the run's own."""
    stored = open_learner(file)
    config, about, record = stored.config, stored.about, stored.data()
    facts = get_corpus(record.corpus).facts
    own = about["results"]
    seen = {name: len(record.split.origins[name]) for name in ("train", "val")}
    trained = f"{record.recordings} recordings of corpus `{record.corpus}`"
    if config.data.simulated.share:
        simulated = config.data.simulated
        others = (
            "simulated from MNIST images"
            if simulated.corpus == "digits"
            else (f"of corpus `{simulated.corpus}`")
        )
        trained += f", after {100 * simulated.share:.0f} % of the iterations on recordings {others}"
    rows = "\n".join(_row(result) for result in (own, *results))
    data = "" if get_corpus(record.corpus).needs_path is False else " --data PATH"
    return f"""# {name}

{_summary(config, own)}

## Data

- {trained[0].upper()}{trained[1:]} (digest `{record.digest}`).
- {seen["train"]} originals (pictures or recordings) were for meta-training, {seen["val"]} for
  meta-validation; all others count as test recordings.
- Licence of the data: {facts.licence}. Citation: {facts.citation}
- {_split(config, record.split)}

## Protocol and accuracy

Held-out classes and held-out recordings, mean and 95 % interval over episodes; chance is 1 / ways.
{_made(config, about, own)}

| recordings | tasks | inner steps | episodes | before adaptation | after |
| --- | --- | --- | --- | --- | --- |
{rows}

## Use

    spikeshot evaluate {PREFIX}{name}{data}

    import spikeshot
    learner = spikeshot.load("{PREFIX}{name}")
    adapted = learner.adapt(recordings, labels)
    labels, probabilities = adapted.predict(others)

{_inputs(config, about)}

## Limits

{"".join(f"- {note}" + chr(10) for note in (*notes, *_limits(config)))}"""


def _summary(config: Config, own: dict[str, Any]) -> str:
    return (
        f"{own['ways']}-way {own['shots']}-shot on `{own['dataset']}` ({config.data.classes} "
        f"classes): {_percent(own['accuracy'], own['ci95'])} on held-out classes and recordings."
    )


def _made(config: Config, about: Any, own: dict[str, Any]) -> str:
    return (
        f"Seed {config.seed}; weights of the best validation (iteration {about['iteration']} of "
        f"{own['iterations']}); {own['training_minutes']:.0f} minutes of training; "
        f"{config.learn.meta_gradient} meta-gradient; spikeshot {about['version']}."
    )


def _row(r: dict[str, Any]) -> str:
    return (
        f"| `{r['dataset']}` ({r['recordings']}) | {r['ways']}-way {r['shots']}-shot, "
        f"{r['queries']} queries | {r['inner_steps']} | {r['episodes']} | "
        f"{_percent(r['accuracy_before'], r['ci95_before'])} | "
        f"**{_percent(r['accuracy'], r['ci95'])}** |"
    )


def _percent(share: float, half: float) -> str:
    return f"{100 * share:.1f} ± {100 * half:.1f} %"


def _split(config: Config, split: MetaSplit) -> str:
    counts = ", ".join(f"{len(split.classes[s])} for {s}" for s in ("train", "val", "test"))
    shares = "/".join(f"{100 * f:.0f}" for f in config.data.recording_fractions)
    recordings = (
        f"recordings of the parts are split {shares}, and no recording stands in two splits"
        if config.data.classes == "double"
        else "the recordings of a class are in its split alone"
    )
    return f"Classes: {counts} (`data.split={config.data.split}`); {recordings}."


def _inputs(config: Config, about: Any) -> str:
    d, (_, height, width) = config.data, about["frame_shape"]
    size = about.get("sensor_size")
    sensor = f"of a {size[0]} x {size[1]} sensor" if size else "of the sensor it was trained on"
    kind = "pairs (left, right) of recordings" if d.classes == "double" else "recordings"
    bins = "stretched over the recording" if d.stretch else f"of {d.dt_us / 1000:g} ms"
    return (
        f"It takes {kind} {sensor}: events `x`, `y`, `t` (microseconds), `p`; or frames "
        f"`[{d.bins}, n, 2, {height}, {width}]` ({d.bins} time bins {bins})."
    )


def _limits(config: Config) -> list[str]:
    reach = config.data.start_us + config.data.bins * config.data.dt_us
    looks = [] if config.data.stretch else [f"It sees the first {reach / 1000:g} ms alone."]
    return [
        *looks,
        "One seed. Other sensors, speeds of motion and kinds of picture are outside of what it was "
        "trained on; expect less there, and measure.",
    ]


if __name__ == "__main__":
    main()
