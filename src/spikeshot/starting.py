"""Training may start from another learner: its weights and learned rates, copied into the new run.

The copy is what a resumed run starts from, so that it does not matter what becomes of the other
run. Warm-up, Adam's moments and the running mean start anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from spikeshot.data.splits import MetaSplit
from spikeshot.errors import ConfigError, RunError
from spikeshot.learn.meta_train import TrainState
from spikeshot.learn.rules.rule import Params
from spikeshot.run_folder import BEST, CONFIG, DATA, START, RunFolder, digest_of, read_learner
from spikeshot.snn.network import resize_readout
from spikeshot.stored import PREFIX, StoredLearner, open_learner

READOUT = {"readout.weight", "readout.bias"}


@dataclass(frozen=True)
class Start:
    """A learner that training starts from: tensors `init/NAME` and `learned/NAME`, and its story.

    `split`: the meta-split of classes and recordings it was trained with, where that is known.
    """

    source: str
    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]
    split: MetaSplit | None = None

    @property
    def digest(self) -> str:
        """Digest of names and numbers."""
        return digest_of(self.tensors)


def find_start(source: str, existing: RunFolder | None) -> Start | None:
    """Return the learner at `train.start`, or the copy of it that run `existing` has kept.

    `source`: a run's folder, a learner's file or `pretrained:NAME`; "" gives None.
    Raises `ConfigError` where there is none, `RunError` where it is damaged or unknown.
    """
    if not source:
        return None
    if existing and (existing.path / START).exists():
        return _kept(source, existing)
    if source.startswith(PREFIX):
        return _start(source, open_learner(source))
    path = Path(source)
    file = path / BEST if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        what = "wrote no best weights yet" if (path / CONFIG).is_file() else "is no run"
        raise ConfigError(
            f"train.start is {source!r}, which {what}: it has no {BEST}. Give a folder that "
            "`spikeshot train` wrote, or a learner's file."
        )
    if not file.is_file():
        raise ConfigError(
            f"train.start is {source!r}, which is not there; expected a run's folder or a "
            "learner's file."
        )
    start = _start(source, open_learner(file))
    if start.split is None and (file.parent / DATA).is_file():
        return replace(start, split=RunFolder(file.parent).data().split)
    return start


def _start(source: str, stored: StoredLearner) -> Start:
    tensors = {f"init/{name}": value for name, value in stored.init.items()}
    tensors |= {f"learned/{name}": value for name, value in stored.learned.items()}
    return Start(source, tensors, stored.about, stored.record.split if stored.record else None)


def _kept(source: str, run: RunFolder) -> Start:
    tensors, about = read_learner(run.path / START)
    digest = run.data().start_digest
    if digest_of(tensors) != digest:
        raise RunError(
            f"{run.path / START} is not what the run started from (digest {digest_of(tensors)}, "
            f"was {digest}). Restore it from a copy, or train again with another --out."
        )
    return Start(source, tensors, about)


def held_out(start: Start, split: MetaSplit) -> MetaSplit:
    """Return `split` with what the start was trained on counted as training too.

    Raises `ConfigError` where the start was trained on what `split` holds out.
    """
    if start.split is None:
        return split
    for what, theirs, ours in (
        ("class", start.split.classes, split.classes),
        ("recording of", start.split.origins, split.origins),
    ):
        seen = set(theirs["train"]) & (set(ours["val"]) | set(ours["test"]))
        if seen:
            raise ConfigError(
                f"train.start is {start.source!r}, which was trained on {what} "
                f"{min(seen)!r} that this run holds out. Train with the seed and the split of "
                "that run (its config.yaml has them)."
            )
    return split.with_training(start.split.origins["train"])


def started(state: TrainState, start: Start) -> TrainState:
    """Return the first state with the weights and learned rates of `start` where names match.

    A readout of another number of ways, as of transfer learning, has the mean row for each new one.
    Raises `ConfigError` where no weight has the same name, or one of the same name another shape.
    """
    init, taken = _taken(state.init, start, "init")
    learned, _ = _taken(state.learned, start, "learned")
    if not taken:
        raise ConfigError(
            f"train.start is {start.source!r}, which has no weight of this network; expected one "
            f"of {', '.join(state.init)}. Use the same network as that run."
        )
    return replace(state, init=init, learned=learned)


def _taken(fresh: Params, start: Start, group: str) -> tuple[Params, int]:
    """Return the tree with what `start` has of it, and how much that is."""
    there = {
        name: start.tensors[f"{group}/{name}"]
        for name in fresh
        if f"{group}/{name}" in start.tensors
    }
    fitted: Params = there
    if there.keys() >= READOUT and there["readout.bias"].dim():
        fitted = resize_readout(there, len(fresh["readout.bias"]))
    for name, value in there.items():
        if fitted[name].shape != fresh[name].shape:
            raise ConfigError(
                f"train.start is {start.source!r}, whose {group}.{name} has shape "
                f"{tuple(value.shape)}; expected {tuple(fresh[name].shape)}. Use the network, "
                "learn.rates and, with a rate for every weight, task.ways of that run."
            )
    taken = {name: value.to(fresh[name]) for name, value in fitted.items()}
    return fresh | taken, len(taken)
