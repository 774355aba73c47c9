"""spikeshot: few-shot learning for spiking neural networks.

Names are imported when first used, so that `import spikeshot` is quick.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

_HOME = {
    "AdaptedLearner": "spikeshot.learner",
    "Config": "spikeshot.config",
    "Episode": "spikeshot.data.episodes",
    "Network": "spikeshot.snn.network",
    "Neuron": "spikeshot.snn.neuron",
    "Recordings": "spikeshot.data.recordings",
    "Rule": "spikeshot.learn.rules.rule",
    "SpikeshotError": "spikeshot.errors",
    "TrainedLearner": "spikeshot.learner",
    "adapt": "spikeshot.learn.adapt",
    "evaluate": "spikeshot.jobs",
    "export": "spikeshot.stored",
    "forward": "spikeshot.snn.network",
    "load": "spikeshot.learner",
    "load_config": "spikeshot.config",
    "make_events": "spikeshot.data.events",
    "meta_gradient": "spikeshot.learn.meta_gradient",
    "pretrained_names": "spikeshot.stored",
    "simulate": "spikeshot.data.simulate",
    "train": "spikeshot.jobs",
}

__all__ = ["__version__", *_HOME]

__version__ = version("spikeshot")


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'spikeshot' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
