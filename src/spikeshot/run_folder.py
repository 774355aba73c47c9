"""A run on disk: configuration, split, metrics, checkpoint, best weights and results.

    config.yaml                complete and re-runnable
    data.json                  corpus, path, digest and the meta-split of classes and recordings
    metrics.jsonl              one line per iteration and per validation
    checkpoint/state.safetensors   everything that --resume needs
    best.safetensors           weights and learned rates of the best validation
    results.json, learning_curve.png

Every file is written whole or not at all.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spikeshot.config import Config, config_from_dict
from spikeshot.data.splits import MetaSplit
from spikeshot.errors import RunError

CONFIG, DATA, METRICS = "config.yaml", "data.json", "metrics.jsonl"
STATE, BEST = "checkpoint/state.safetensors", "best.safetensors"
RESULTS, CURVE = "results.json", "learning_curve.png"


@dataclass(frozen=True)
class DataRecord:
    """What a run was trained on."""

    corpus: str
    path: str | None
    digest: str
    recordings: int
    split: MetaSplit


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @staticmethod
    def create(path: Path) -> "RunFolder":
        """Make the folder of a new run; raises `RunError` if one is there or it cannot be made."""
        if (path / CONFIG).exists():
            raise RunError(
                f"run {path} already exists. Continue it with --resume, or choose another --out."
            )
        if path.is_dir() and any(path.iterdir()):
            raise RunError(f"{path} is a folder that holds other things; choose another --out.")
        try:
            (path / "checkpoint").mkdir(parents=True, exist_ok=True)
            (path / "checkpoint" / ".writable").touch()
            (path / "checkpoint" / ".writable").unlink()
        except OSError as error:
            raise RunError(
                f"{path} cannot be written ({error.strerror}); choose another --out."
            ) from error
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
        target = self.path / name
        raw = content.encode() if isinstance(content, str) else content
        try:
            with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as stream:
                stream.write(raw)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(stream.name, 0o644)
            os.replace(stream.name, target)
        except OSError as error:
            raise RunError(f"{target} cannot be written ({error.strerror}).") from error

    def config(self) -> Config:
        """Return the run's configuration."""
        file = self.path / CONFIG
        try:
            raw = yaml.safe_load(file.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise RunError(f"{file} cannot be read ({error}).") from error
        return config_from_dict(raw, str(file))

    def write_data(self, record: DataRecord) -> None:
        """Write data.json."""
        raw = {
            "corpus": record.corpus,
            "path": record.path,
            "digest": record.digest,
            "recordings": record.recordings,
            "split": json.loads(record.split.to_json()),
        }
        self.write(DATA, json.dumps(raw))

    def data(self) -> DataRecord:
        """Return what the run was trained on."""
        raw = self._json(DATA)
        try:
            split = MetaSplit.from_json(json.dumps(raw["split"]))
            return DataRecord(raw["corpus"], raw["path"], raw["digest"], raw["recordings"], split)
        except (KeyError, TypeError) as error:
            raise RunError(f"{self.path / DATA} is damaged ({error!r} is missing).") from error

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        with (self.path / METRICS).open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of metrics.jsonl; a half-written last line is left out."""
        file = self.path / METRICS
        if file.exists():
            for line in file.read_text().splitlines():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    return

    def cut_metrics(self, iterations: int) -> None:
        """Drop the lines that a resumed run will write again (after `iterations`)."""
        kept = [m for m in self.metrics() if m["iteration"] <= iterations]
        self.write(METRICS, "".join(json.dumps(m) + "\n" for m in kept))

    def write_tensors(
        self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]
    ) -> None:
        """Write tensors with `about` as JSON in the metadata."""
        whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        self.write(name, save(whole, metadata={"spikeshot": json.dumps(about)}))

    def read_tensors(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and what `write_tensors` said about them."""
        file = self.path / name
        if not file.exists():
            raise RunError(f"{self.path} has no {name}: the run wrote none yet. Train it first.")
        try:
            with safe_open(file, "pt") as stored:
                about = json.loads(stored.metadata()["spikeshot"])
                return {key: stored.get_tensor(key) for key in stored.keys()}, about  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{file} is damaged ({error}).") from error

    def results(self) -> dict[str, Any] | None:
        """Return results.json, or None before the run ended."""
        return self._json(RESULTS) if (self.path / RESULTS).exists() else None

    def _json(self, name: str) -> Any:
        file = self.path / name
        try:
            return json.loads(file.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise RunError(f"{file} cannot be read ({error}).") from error
