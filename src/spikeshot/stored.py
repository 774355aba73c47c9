"""A trained learner at rest: in a run folder, in a file of its own, or among those that ship.

    RUN                        a folder that `spikeshot train` wrote
    NAME.safetensors           a file that `export` wrote, or a run's best.safetensors
    pretrained:NAME            a learner that ships (`pretrained/NAME/`, with its card)

A learner file carries its recipe: the configuration (seed and all), the digest of the recordings,
the class split, the names of the recordings it has seen, the version and the results.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from spikeshot.config import Config, config_from_yaml
from spikeshot.data.splits import SPLITS, MetaSplit
from spikeshot.errors import RunError, nearest_hint
from spikeshot.run_folder import (
    BEST,
    DataRecord,
    RunFolder,
    damaged,
    read_learner,
    tensor_bytes,
)
from spikeshot.snn.network import resize_readout

PREFIX = "pretrained:"
LEARNER, CARD = "learner.safetensors", "card.md"
MAX_NAMES = 256 << 20  # bytes of names of recordings that a file may unfold to


@dataclass(frozen=True)
class StoredLearner:
    """What a trained learner needs to be used again.

    `init`: the meta-trained parameters; `learned`: the rule's meta-parameters, as step sizes;
    `about`: the file's own words (`iteration`, `frame_shape`, `version`, ...); `record`: what it
    was trained on, None in a run's bare best.safetensors; `card`: of a learner that ships.
    """

    source: str
    config: Config
    init: dict[str, Tensor]
    learned: dict[str, Tensor]
    about: Mapping[str, Any]
    record: DataRecord | None
    card: str = ""

    def data(self) -> DataRecord:
        """Return what it was trained on; raises `RunError` where the file does not say it."""
        if self.record is None:
            raise RunError(
                f"{self.source} does not say which recordings it was trained on, so that none of "
                "them could be kept out. Give its run folder, or a learner file written by "
                "spikeshot.export."
            )
        return self.record


def pretrained_names() -> list[str]:
    """Return the names of the learners that ship."""
    folder = resources.files("spikeshot") / "pretrained"
    return sorted(f.name for f in folder.iterdir() if (f / LEARNER).is_file())


def is_run(source: str | Path) -> bool:
    """Return whether `source` names a run folder, rather than a learner file or one that ships."""
    path = Path(source)
    file = path.is_file() or path.suffix == ".safetensors"
    return not (file or str(source).startswith(PREFIX))


def open_learner(source: str | Path) -> StoredLearner:
    """Return the learner of a run folder, a learner file or `pretrained:NAME`.

    Raises `RunError` for an unknown name, a missing or damaged file, and a folder that is no run.
    """
    text = str(source)
    if text.startswith(PREFIX):
        return _shipped(text)
    path = Path(source)
    if not is_run(source):
        if not path.is_file():
            raise RunError(f"{path}: no such file; expected a run folder or a learner file.")
        return _from_file(path, text)
    run = RunFolder.open(path)
    config = run.config()
    tensors, about = run.read_tensors(BEST, config)
    return StoredLearner(text, config, *_parted(tensors), about, run.data())


def export(run: Path, file: Path, sensor_size: tuple[int, int] | None = None) -> int:
    """Write the learner of a finished run into one file, with its recipe; return its bytes.

    The file says which recordings the learner has seen by their names, so that it can be evaluated
    on any others. Its readout is for `task.ways`, though it may have been trained on more: what an
    evaluation makes of it anyway. `sensor_size` (width, height) is for runs of earlier versions,
    which did not note it. Raises `RunError` where the run has no result yet.
    """
    folder = RunFolder.open(run)
    record, results = folder.data(), folder.results()
    if results is None:
        raise RunError(f"{run} has no results yet; expected a finished run. Resume it first.")
    config = folder.config()
    tensors, about = folder.read_tensors(BEST, config)
    fitting = resize_readout(_parted(tensors)[0], config.task.ways)
    tensors = tensors | {f"init/{name}": value for name, value in fitting.items()}
    validations = (m for m in folder.metrics() if m["kind"] == "validation")
    best = next((m for m in validations if m["iteration"] == about["iteration"]), None)
    if sensor_size is not None:
        about = {"sensor_size": list(sensor_size)} | about
    about = about | {
        "data": {
            "corpus": record.corpus,
            "digest": record.digest,
            "recordings": record.recordings,
            "classes": {split: list(record.split.classes[split]) for split in SPLITS},
            "seen": {split: _fold(record.split.origins[split]) for split in ("train", "val")},
        },
        "best_validation": best,
        "results": results,
    }
    raw = tensor_bytes(tensors, about)
    part = file.with_name(f".{file.name}.part")  # another process may be reading the old file
    try:
        part.write_bytes(raw)
        part.replace(file)
    except OSError as error:
        raise RunError(f"{file} cannot be written ({error.strerror}); choose another.") from error
    return len(raw)


def _shipped(text: str) -> StoredLearner:
    name, names = text.removeprefix(PREFIX), pretrained_names()
    if name not in names:
        raise RunError(
            f"pretrained learner {name!r} is unknown{nearest_hint(name, names)}; expected one of "
            f"{', '.join(PREFIX + known for known in names)}."
        )
    folder = resources.files("spikeshot") / "pretrained" / name
    with resources.as_file(folder / LEARNER) as file:
        return _from_file(file, text, (folder / CARD).read_text("utf-8"))


def _from_file(file: Path, source: str, card: str = "") -> StoredLearner:
    tensors, about = read_learner(file)
    config = config_from_yaml(about["config_yaml"], str(file))
    record = None
    if "data" in about:
        try:
            d = about["data"]
            seen = {split: _unfold(d["seen"][split]) for split in ("train", "val")}
            classes = {split: tuple(d["classes"][split]) for split in SPLITS}
            split = MetaSplit(classes, {**seen, "test": frozenset()})
            record = DataRecord(d["corpus"], None, d["digest"], d["recordings"], split)
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise damaged(file, error) from error
    return StoredLearner(source, config, *_parted(tensors), about, record, card)


def _parted(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the parameters and the rule's meta-parameters."""
    init, learned = (
        {k.removeprefix(kind): v for k, v in tensors.items() if k.startswith(kind)}
        for kind in ("init/", "learned/")
    )
    return init, learned


def _fold(names: Iterable[str]) -> str:
    """Return many names, which are much alike, as a short text."""
    return base64.b85encode(zlib.compress(json.dumps(sorted(names)).encode(), 9)).decode()


def _unfold(text: str) -> frozenset[str]:
    """Return the names of `_fold`'s text."""
    folded = zlib.decompressobj()
    raw = folded.decompress(base64.b85decode(text), MAX_NAMES)
    return frozenset(json.loads(raw))
