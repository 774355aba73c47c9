"""Configuration becomes the rule of an inner step: its credit, start, updates, grid and device."""

from dataclasses import replace
from pathlib import Path

from spikeshot.config import Config
from spikeshot.errors import ConfigError
from spikeshot.learn.rules.compose import UpdateSpec, equip
from spikeshot.learn.rules.device_table import read_table
from spikeshot.learn.rules.devices import DeviceSpec
from spikeshot.learn.rules.presets import CreditOptions, get_rule
from spikeshot.learn.rules.quantise import WeightSpec
from spikeshot.learn.rules.rule import Rule, whole
from spikeshot.learn.rules.start import Prototypes
from spikeshot.snn.network import Network
from spikeshot.study.baselines.networks import AnyNetwork

TIMED = ("truncated", "decolle")  # rules that a network without time cannot have


def build_rule(config: Config, network: AnyNetwork) -> Rule:
    """Return the rule; raises `ConfigError` where it does not fit the network or the outer loop."""
    learn = config.learn
    options = CreditOptions(**learn.credit.model_dump())
    rule = get_rule(learn.rule, learn.rate, learn.rates, options, steps=learn.inner_steps)
    if learn.rule in TIMED and not isinstance(network, Network):
        raise ConfigError(
            f"learn.rule is {learn.rule!r}, which needs activity in time, but network.kind="
            f"{config.network.kind} has none. Choose another rule, or network.kind=spiking."
        )
    if learn.readout_start == "prototypes":
        if isinstance(network, Network) and network.readout == "count":
            raise ConfigError(
                "learn.readout_start is 'prototypes', which need a linear readout, but "
                "network.readout is 'count'. Choose last or mean."
            )
        rule = replace(rule, start=Prototypes(learn.prototype_gain))
    if learn.rule == "frozen" and options.freeze > len(network.layers):
        raise ConfigError(
            f"learn.credit.freeze is {options.freeze}, but the network has {len(network.layers)} "
            "layers below its readout; expected at most as many."
        )
    if learn.meta_gradient == "reptile" and rule.part is not whole:
        raise ConfigError(
            f"learn.meta_gradient is 'reptile', which learns what inner steps change, but rule "
            f"{learn.rule!r} leaves a part alone, which would stay as it was drawn. Choose "
            "learn.meta_gradient=first_order."
        )
    return equip(
        rule,
        weights=WeightSpec(**learn.weights.model_dump()),
        updates=UpdateSpec(**learn.updates.model_dump()),
        device=_device(config),
    )


def _device(config: Config) -> DeviceSpec:
    """Return the device, its table read from the file."""
    given = config.learn.device.model_dump()
    table = given.pop("table")
    return DeviceSpec(**given, table=read_table(Path(table)) if table else None)
