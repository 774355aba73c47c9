"""One typed configuration for everything: a preset or YAML file, plus `key=value` overrides.

Immutable; its dump is complete and re-runnable. Unknown keys and values out of range are
`ConfigError`s that name the key, the value, what was expected and the nearest known name.
"""

import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from spikeshot.config_data import DataConfig
from spikeshot.config_errors import first_problem
from spikeshot.config_learn import LearnConfig
from spikeshot.config_learn import Section as _Section
from spikeshot.errors import ConfigError, nearest_hint
from spikeshot.yaml_tree import complete, override, parse_yaml

Decay = float


class NeuronConfig(_Section):
    """The neuron (`snn/neuron.py`): decays per time bin, or time constants in milliseconds.

    A time constant, when given, replaces its decay by exp(-dt / tau).
    """

    alpha: float = Field(0.95, ge=0, lt=1)
    beta: float = Field(0.9, ge=0, lt=1)
    reset_decay: float = Field(0.65, ge=0, lt=1)
    tau_membrane_ms: float | None = Field(None, gt=0)
    tau_synapse_ms: float | None = Field(None, gt=0)
    tau_reset_ms: float | None = Field(None, gt=0)
    threshold: float = Field(0.0, ge=-100, le=100)
    reset: Literal["refractory", "subtract", "zero"] = "refractory"
    delay: Literal[0, 1] = 1
    surrogate: str = "fast_sigmoid"
    sharpness: float = Field(10.0, gt=0, le=1000)

    @model_validator(mode="after")
    def _subtract(self) -> Self:
        if self.reset == "subtract" and self.threshold <= 0:
            raise ValueError(
                f"reset 'subtract' takes the threshold away at a spike, but threshold is "
                f"{self.threshold}; expected above 0"
            )
        return self

    def decays(self, dt_us: int) -> tuple[Decay, Decay, Decay]:
        """Return (alpha, beta, reset_decay) for time bins of `dt_us` microseconds."""

        def pick(decay: Decay, tau_ms: float | None) -> Decay:
            return decay if tau_ms is None else math.exp(-dt_us / 1000 / tau_ms)

        return (
            pick(self.alpha, self.tau_membrane_ms),
            pick(self.beta, self.tau_synapse_ms),
            pick(self.reset_decay, self.tau_reset_ms),
        )


class LayerConfig(_Section):
    """One layer (`snn/layer.py`): convolutional, or fully connected with `kernel` 0."""

    units: int = Field(ge=1, le=4096)
    kernel: int = Field(0, ge=0, le=31)
    pool: int = Field(1, ge=1, le=16)

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.kernel and self.kernel % 2 == 0:
            raise ValueError(f"kernel is {self.kernel}; expected an odd number, or 0")
        if not self.kernel and self.pool > 1:
            raise ValueError(f"pool is {self.pool} in a fully connected layer; expected 1")
        return self


class InitConfig(_Section):
    """Initialisation (`snn/init.py`)."""

    activity: float = Field(0.288, gt=0, lt=1)
    drive_std: float = Field(1.0, gt=0)
    readout_std: float = Field(0.1, ge=0)


class NetworkConfig(_Section):
    """The network (`snn/network.py`); `burn_in` and `hold` in bins, `input_alpha` per bin.

    `kind`: spiking, or a network to compare with, of the same layers (`study/baselines/`): the
    `leaky` twin without spikes, `relu` on time bins as channels, `frames`, the usual CNN on summed
    events (`norm`: its normalisation), and `pixels`, the summed events themselves. `gain_control`,
    of all but the last two, which do without: `snn/gain_control.py`.
    """

    kind: Literal["spiking", "leaky", "relu", "frames", "pixels"] = "spiking"
    norm: Literal["batch", "layer"] = "batch"
    layers: tuple[LayerConfig, ...] = (
        LayerConfig(units=16, kernel=5, pool=2),
        LayerConfig(units=32, kernel=5, pool=2),
        LayerConfig(units=32, kernel=5, pool=2),
    )
    pool_kind: Literal["average", "max"] = "average"
    pool_where: Literal["before", "after"] = "before"
    readout: Literal["last", "mean", "count"] = "last"
    burn_in: int = Field(0, ge=0)
    input_gain: float = Field(1.0, gt=0)
    input_alpha: float | None = Field(None, ge=0, lt=1)
    hold: int = Field(0, ge=0, le=10_000)
    gain_control: bool = False
    neuron: NeuronConfig = NeuronConfig()
    init: InitConfig = InitConfig()


class TaskConfig(_Section):
    """Size of a task (`data/episodes.py`)."""

    ways: int = Field(5, ge=2, le=1000)
    shots: int = Field(1, ge=1, le=1000)
    queries: int = Field(10, ge=1, le=1000)


class TrainConfig(_Section):
    """The outer loop (`learn/meta_train.py`), validation and checkpoints, in iterations.

    `start`: a run (or a `.safetensors` learner) whose best weights and learned rates training
    starts from (`starting.py`); "": from fresh ones. `minutes`: a budget of time in place of
    iterations (`learn/clock.py`; 0: none). `ways` and `queries` of its tasks, where they are others
    than those of validation and test (0: the same): tasks of more ways than are asked for later
    make better prototypes (Snell et al. 2017). `validation_ways` likewise: where tasks of few ways
    are all solved, more of them still tell which weights are best. `rate_penalty` weighs the
    squared excess of the query's firing rates over `rate_target`: `rate_over` layers, each on its
    own, or all neurons, so that a layer of few may fire more often than others.
    """

    start: str = ""
    ways: int = Field(0, ge=0, le=1000)
    queries: int = Field(0, ge=0, le=1000)
    iterations: int = Field(1000, ge=1)
    minutes: float = Field(0.0, ge=0, le=100_000)
    meta_batch: int = Field(1, ge=1, le=1024)
    meta_lr: float = Field(2e-3, gt=0)
    rates_lr: float = Field(1e-2, gt=0)
    warmup: int = Field(100, ge=0)
    clip_norm: float = Field(10.0, ge=0)
    average: float = Field(0.0, ge=0, lt=1)
    rate_penalty: float = Field(0.0, ge=0)
    rate_target: float = Field(0.1, ge=0, le=1)
    rate_over: Literal["layers", "neurons"] = "layers"
    validate_every: int = Field(250, ge=1)
    validation_episodes: int = Field(100, ge=2)
    validation_ways: int = Field(0, ge=0, le=1000)
    checkpoint_every: int = Field(100, ge=1)
    test_episodes: int = Field(600, ge=2)


class Config(_Section):
    """All of a run.

    `threads`: torch's threads (0: as torch chooses), and how many episodes are scored at once.
    """

    name: str = "unnamed"
    about: str = ""
    seed: int = Field(0, ge=0, lt=2**63)
    threads: int = Field(0, ge=0, le=1024)
    engine: Literal["auto", "oracle"] = "auto"
    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    task: TaskConfig = TaskConfig()
    learn: LearnConfig = LearnConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.network.burn_in >= self.data.bins:
            raise ValueError(
                f"network.burn_in is {self.network.burn_in}; expected below data.bins="
                f"{self.data.bins}"
            )
        if self.network.kind == "leaky" and self.network.neuron.reset == "zero":
            raise ValueError(
                "network.neuron.reset is 'zero', which makes a leaky unit without spikes grow "
                "without bound; expected refractory or subtract with network.kind=leaky"
            )
        summed = self.network.kind == "frames" and self.network.norm == "batch"
        if summed and self.learn.micro_batch:
            raise ValueError(
                f"learn.micro_batch is {self.learn.micro_batch}, but network.norm=batch normalises "
                "over the whole query; expected learn.micro_batch=0, or network.norm=layer"
            )
        for name in ("ways", "validation_ways"):
            ways = getattr(self.train, name)
            if ways == 1:
                raise ValueError(f"train.{name} is 1; expected 2 or more, or 0 for task.ways")
            if ways not in (0, self.task.ways) and self.learn.rates == "parameter":
                raise ValueError(
                    f"train.{name} is {ways} and task.ways {self.task.ways}, but learn.rates is "
                    "'parameter', which learns a rate for each of the readout's weights; expected "
                    f"train.{name}=0, or learn.rates=tensor"
                )
        if self.train.rate_penalty and self.network.kind != "spiking":
            raise ValueError(
                f"train.rate_penalty is {self.train.rate_penalty}, but network.kind="
                f"{self.network.kind} does not fire; expected train.rate_penalty=0"
            )
        if self.train.rate_penalty and self.learn.meta_gradient == "reptile":
            raise ValueError(
                f"train.rate_penalty is {self.train.rate_penalty}, but learn.meta_gradient=reptile "
                "sees no query; expected train.rate_penalty=0"
            )
        if self.learn.method == "centroid" and (self.train.iterations > 1 or self.train.minutes):
            raise ValueError(
                f"train.iterations is {self.train.iterations} and train.minutes "
                f"{self.train.minutes}, but learn.method=centroid trains nothing; expected "
                "train.iterations=1 and train.minutes=0"
            )
        return self

    def to_yaml(self) -> str:
        """Return the complete configuration as YAML text."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def preset_names() -> list[str]:
    """Return the names of the presets that ship."""
    folder = resources.files("spikeshot") / "presets"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name[-5:] == ".yaml")


def load_config(source: str, overrides: Sequence[str] = ()) -> Config:
    """Return the configuration of a preset's name or a YAML file, with `key=value` overrides.

    Raises `ConfigError` for an unknown preset or key, a value out of range or unreadable YAML.
    """
    defaults = Config().model_dump(mode="json")
    del defaults["learn"]["rates"]  # which follows from learn.rule
    raw = complete(parse_yaml(_source_text(source), source), defaults)
    for text in overrides:
        override(raw, text)
    return config_from_dict(raw, source)


def config_from_dict(raw: Mapping[str, Any], source: str) -> Config:
    """Return the checked configuration; `source` stands in the message of a `ConfigError`."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{source}: {first_problem(error, Config)}") from None


def config_from_yaml(text: str, source: str) -> Config:
    """Return the checked configuration in YAML text, as `to_yaml` writes it."""
    return config_from_dict(parse_yaml(text, source), source)


def _source_text(source: str) -> str:
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{source}: cannot be read ({error}); expected a YAML file."
            ) from None
    if source not in preset_names():
        raise ConfigError(
            f"preset {source!r} is unknown{nearest_hint(source, preset_names())}; expected one of "
            f"{', '.join(preset_names())}, or a YAML file."
        )
    preset = resources.files("spikeshot") / "presets" / f"{source}.yaml"
    return preset.read_text(encoding="utf-8")
