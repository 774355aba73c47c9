"""Gain control: the engine against the oracle, and what it makes of weights and of events."""

from dataclasses import replace

import pytest
import torch

from networks import random_frames, require_oracle, small_network, start
from spikeshot.snn.gain_control import EPS, control_gain
from spikeshot.snn.init import init_params
from spikeshot.snn.layer import PoolKind, PoolWhere
from spikeshot.snn.network import Network, Readout, forward, forward_with_rates, prepare
from spikeshot.study.baselines.networks import leaky_twin


def controlled(network: Network) -> Network:
    return replace(network, style=replace(network.style, gain_control=True))


def test_gain_control_by_its_formula() -> None:
    y = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(1)).double()
    y[1, 2] = 0
    found = control_gain(y, 2)
    for t in range(2):
        for b in range(3):
            size = (y[t, b].square().sum() / y[t, b].numel() + EPS).sqrt()
            torch.testing.assert_close(found[t, b], y[t, b] / size)
    assert not found[1, 2].any()


@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("burn_in", [0, 3])
@pytest.mark.parametrize(
    ("kind", "where", "readout"),
    [
        ("average", "before", "last"),
        ("average", "after", "last"),
        ("max", "before", "last"),
        ("max", "after", "mean"),
        ("average", "before", "count"),
    ],
)
def test_gain_control_equals_the_oracle_to_second_order(
    kind: PoolKind, where: PoolWhere, readout: Readout, burn_in: int, delay: int
) -> None:
    network = small_network(
        pool_kind=kind, pool_where=where, readout=readout, delay=delay, burn_in=burn_in
    )
    require_oracle(controlled(network))


def test_an_integrator_steps_without_events_and_the_twin_equal_the_oracle() -> None:
    network = replace(controlled(small_network(delay=0)), input_alpha=0.9, hold=3)
    require_oracle(network)
    require_oracle(leaky_twin(network))


def test_the_size_of_weights_and_of_events_goes_for_each_sample_alone() -> None:
    network, frames = controlled(small_network()).soft_twin(), 10 * random_frames(6)
    params = start(network)
    expected = forward(network, params, frames)
    louder = params | {"layer0.weight": 3 * params["layer0.weight"]}
    uneven = frames * torch.arange(1, 1 + frames.shape[1]).view(1, -1, 1, 1, 1)
    torch.testing.assert_close(forward(network, louder, frames), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(forward(network, params, uneven), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(forward(network, params, frames[:, 2:3]), expected[2:3])
    plain = replace(network, style=replace(network.style, gain_control=False))
    louder_alone = forward(plain, params, uneven)
    assert not torch.allclose(louder_alone, forward(plain, params, frames), rtol=0, atol=1e-4)


def test_it_starts_at_the_activity_asked_for() -> None:
    network, frames = controlled(small_network(delay=0)), random_frames(6, batch=16)
    generator = torch.Generator().manual_seed(0)
    params = init_params(network, 3, frames, generator=generator, activity=0.2)
    rates = forward_with_rates(network, params, prepare(network, frames))[1].mean(0)
    torch.testing.assert_close(rates, torch.full_like(rates, 0.2), rtol=0, atol=0.05)
