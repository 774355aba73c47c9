"""A run on disk: configuration, split, metrics, checkpoint, best weights and results.

    config.yaml                complete and re-runnable
    data.json                  corpus, path, digest and the meta-split of classes and recordings
    metrics.jsonl              one line per iteration and per validation
    checkpoint/state.safetensors   everything that --resume needs
    best.safetensors           weights and learned rates of the best validation
    start.safetensors          what training started from, where that was another run
    results.json, learning_curve.png

Every file is written whole or not at all.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spikeshot.config import Config, config_from_yaml, load_config
from spikeshot.data.splits import MetaSplit
from spikeshot.errors import RunError

CONFIG, DATA, METRICS = "config.yaml", "data.json", "metrics.jsonl"
STATE, BEST = "checkpoint/state.safetensors", "best.safetensors"
START = "start.safetensors"
RESULTS, CURVE = "results.json", "learning_curve.png"


@dataclass(frozen=True)
class DataRecord:
    """What a run was trained on.

    `start_digest`: of the weights it started from ("": fresh); `simulated_digest`: of the simulated
    recordings ("": none, or a run that did not note them).
    """

    corpus: str
    path: str | None
    digest: str
    recordings: int
    split: MetaSplit
    start_digest: str = ""
    simulated_digest: str = ""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; where `silent`, another process of the run writes in it."""

    path: Path
    silent: bool = False

    @staticmethod
    def require_new(path: Path) -> None:
        """Raise `RunError` unless `path` can become the folder of a new run; write nothing."""
        try:
            there = {file.name for file in path.iterdir()} if path.is_dir() else set()
            parent = next(p for p in (path, *path.absolute().parents) if p.exists())
        except OSError as error:
            raise _unwritable(path, error.strerror) from error
        if CONFIG in there:
            raise RunError(
                f"run {path} already exists. Continue it with --resume, or choose another --out."
            )
        if there - {DATA, START, "checkpoint"}:  # those: a run killed before its first iteration
            raise RunError(f"{path} is a folder that holds other things; choose another --out.")
        if not parent.is_dir():
            raise _unwritable(path, f"{parent} is a file")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise _unwritable(path, f"no permission to write in {parent}")

    @staticmethod
    def create(path: Path) -> "RunFolder":
        """Make the folder of a new run; raises `RunError` if one is there or it cannot be made."""
        RunFolder.require_new(path)
        try:
            (path / "checkpoint").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error.strerror) from error
        return RunFolder(path)

    @staticmethod
    def open(path: Path) -> "RunFolder":
        """Open an existing run; raises `RunError` if `path` is none."""
        if not (path / CONFIG).is_file():
            raise RunError(
                f"{path} is no run: it has no {CONFIG}. Give a folder that `spikeshot train` wrote."
            )
        return RunFolder(path)

    def write(self, name: str, content: str | bytes) -> None:
        """Write one file atomically; raises `RunError` when the disk refuses."""
        if self.silent:
            return
        target = self.path / name
        part = target.with_name(f".{target.name}.part")
        raw = content.encode() if isinstance(content, str) else content
        try:
            with part.open("wb") as stream:
                stream.write(raw)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(target)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise _full(target, error) from error

    def config(self) -> Config:
        """Return the run's configuration."""
        return load_config(str(self.path / CONFIG))

    def write_data(self, record: DataRecord) -> None:
        """Write data.json."""
        raw = {
            "corpus": record.corpus,
            "path": record.path,
            "digest": record.digest,
            "recordings": record.recordings,
            "split": json.loads(record.split.to_json()),
            "start_digest": record.start_digest,
            "simulated_digest": record.simulated_digest,
        }
        self.write(DATA, json.dumps(raw))

    def data(self) -> DataRecord:
        """Return what the run was trained on."""
        raw = self._json(DATA)
        try:
            split = MetaSplit.from_json(json.dumps(raw["split"]))
            return DataRecord(
                *(raw["corpus"], raw["path"], raw["digest"], raw["recordings"], split),
                raw.get("start_digest", ""),
                raw.get("simulated_digest", ""),
            )
        except (KeyError, TypeError) as error:
            raise damaged(self.path / DATA, error) from error

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        if self.silent:
            return
        try:
            with (self.path / METRICS).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(json_ready(line)) + "\n")
        except OSError as error:
            raise _full(self.path / METRICS, error) from error

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of metrics.jsonl, up to the first damaged or half-written one."""
        file = self.path / METRICS
        if file.exists():
            for line in file.read_bytes().splitlines():
                try:
                    metrics = json.loads(line)
                    metrics["kind"], metrics["iteration"], metrics["accuracy"]
                except (ValueError, TypeError, KeyError):
                    return
                yield metrics

    def cut_metrics(self, iterations: int) -> None:
        """Drop the lines that a resumed run will write again (after `iterations`)."""
        kept = [m for m in self.metrics() if m["iteration"] <= iterations]
        self.write(METRICS, "".join(json.dumps(m) + "\n" for m in kept))

    def write_tensors(
        self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]
    ) -> None:
        """Write tensors with `about` as JSON in the metadata."""
        self.write(name, tensor_bytes(tensors, about))

    def read_tensors(self, name: str, config: Config) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and what `write_tensors` said about them.

        Raises `RunError` when they are damaged or were written with another configuration.
        """
        file = self.path / name
        if not file.exists():
            raise RunError(f"{self.path} has no {name}: the run wrote none yet. Train it first.")
        tensors, about = read_learner(file)
        key = first_difference(config_from_yaml(about["config_yaml"], str(file)), config)
        if key:
            raise RunError(
                f"{file} was written by another configuration: {key}. Restore the run's "
                "config.yaml, or start a new run with another --out."
            )
        return tensors, about

    def results(self) -> dict[str, Any] | None:
        """Return results.json, or None before the run ended."""
        if not (self.path / RESULTS).exists():
            return None
        results: dict[str, Any] = self._json(RESULTS)
        try:
            results["accuracy"], results["ci95"], results["episodes"], results["training_minutes"]
        except (KeyError, TypeError) as error:
            raise damaged(self.path / RESULTS, error) from error
        return results

    def _json(self, name: str) -> Any:
        file = self.path / name
        try:
            return json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise damaged(file, error) from error


def tensor_bytes(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """Return the file of `tensors` with `about` as JSON in the metadata."""
    whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    return save(whole, metadata={"spikeshot": json.dumps(about), "digest": digest_of(whole)})


def read_learner(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors in a file of `tensor_bytes`, and what it was told about them.

    Raises `RunError` when the file is damaged or none of ours.
    """
    try:
        with safe_open(file, "pt") as stored:
            metadata = stored.metadata()
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        about = json.loads(metadata["spikeshot"])
        about["config_yaml"], about["iteration"]
        digest = digest_of(tensors)
        if metadata.get("digest", digest) != digest:
            raise ValueError("the numbers are not those that were written")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise damaged(file, error) from error
    return tensors, about


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return a hex digest of names and contents."""
    h = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        h.update(name.encode())
        h.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()


def json_ready(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with None for each NaN and infinity, which JSON does not have."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


def first_difference(old: Config, new: Config) -> str:
    """Return the first key that differs as `key is <new>, was <old>`, or `""`."""
    return _first_difference(old.model_dump(mode="json"), new.model_dump(mode="json"), "")


def _first_difference(old: Any, new: Any, at: str) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        inner = (_first_difference(old[k], new[k], f"{at}.{k}" if at else k) for k in old)
        return next(filter(None, inner), "")
    return "" if old == new else f"{at} is {new!r}, was {old!r}"


def _unwritable(path: Path, why: str | None) -> RunError:
    return RunError(f"{path} cannot be written ({why}); choose another --out.")


def _full(file: Path, error: OSError) -> RunError:
    return RunError(
        f"{file} cannot be written ({error.strerror}); the files before it are whole. Make room, "
        "then continue with --resume."
    )


def damaged(file: Path, error: Exception) -> RunError:
    """Return the error that says of `file` that it cannot be used."""
    return RunError(
        f"{file} is damaged ({type(error).__name__}: {error}). Restore it from a copy, or train "
        "again with another --out."
    )
