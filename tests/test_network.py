"""The layer-by-layer engine against the step-by-step oracle: forward, backward, double backward."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from networks import (
    RESETS,
    WAYS,
    random_frames,
    require_oracle,
    small_network,
    start,
)
from spikeshot.errors import ConfigError
from spikeshot.snn.layer import Layer, PoolKind, PoolWhere
from spikeshot.snn.network import (
    Readout,
    forward,
    forward_recorded,
    parameter_shapes,
    prepare,
)
from spikeshot.snn.neuron import Reset

CASES = [
    *product(RESETS, ["average", "max"], ["before", "after"], ["last"], [0, 1], [0, 3]),
    *product(RESETS, ["average"], ["before"], ["mean", "count"], [0, 1], [0, 3]),
]


@pytest.mark.parametrize(("reset", "kind", "where", "readout", "delay", "burn_in"), CASES)
def test_engine_equals_oracle_to_second_order(
    reset: Reset, kind: PoolKind, where: PoolWhere, readout: Readout, delay: int, burn_in: int
) -> None:
    network = small_network(
        reset, pool_kind=kind, pool_where=where, readout=readout, delay=delay, burn_in=burn_in
    )
    require_oracle(network)


@pytest.mark.parametrize(("delay", "burn_in"), [(0, 0), (1, 0), (0, 3)])
def test_an_integrator_in_front_equals_the_oracle_to_second_order(delay: int, burn_in: int) -> None:
    require_oracle(replace(small_network(delay=delay, burn_in=burn_in), input_alpha=0.9))


def test_steps_without_events_equal_the_oracle_and_frames_without_events() -> None:
    network = replace(small_network(burn_in=2), input_alpha=0.9, hold=3)
    require_oracle(network)
    frames, params = random_frames(6), start(network)
    longer = torch.cat([frames, torch.zeros(3, *frames.shape[1:]).double()])
    found, expected = (
        forward(network, params, frames),
        forward(replace(network, hold=0), params, longer),
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not torch.equal(found, forward(replace(network, hold=0), params, frames))


def test_an_integrator_in_front_without_decay_of_its_own_sees_the_sum_of_all_frames() -> None:
    """With a near 1 the trace is (1 - a) times the sum: the order of the frames is forgotten."""
    network = replace(small_network(), input_alpha=1 - 1e-9)
    frames = random_frames(6)
    trace = prepare(network, frames)[-1] / 1e-9
    torch.testing.assert_close(
        trace, 1.5 * frames.sum(0).movedim(1, -1), rtol=1e-6, atol=1e-6, check_stride=False
    )


@pytest.mark.parametrize("reset", RESETS)
def test_burn_in_changes_no_forward_value(reset: Reset) -> None:
    """The last membrane does not depend on where the gradient begins."""
    network, frames = small_network(reset), random_frames(6)
    params = start(network)
    whole = forward(network, params, frames)
    for burn_in in (1, 4, 6):
        torch.testing.assert_close(
            forward(replace(network, burn_in=burn_in), params, frames),
            whole,
            rtol=1e-12,
            atol=1e-12,
        )


def test_burn_in_uses_the_parameters_given() -> None:
    """Changing the weights changes the state after the burn-in, hence the logits."""
    network, frames = small_network(burn_in=6), random_frames(7)
    params = start(network)
    changed = {k: v * 1.5 if k.startswith("layer0") else v for k, v in params.items()}
    assert (forward(network, params, frames) - forward(network, changed, frames)).abs().max() > 1e-3


def test_spikes_are_zero_or_one_and_shapes_as_declared() -> None:
    network, frames = small_network(pool_where="before"), random_frames(8)
    params = start(network)
    logits, record = forward_recorded(network, params, frames)
    assert logits.shape == (4, WAYS)
    assert [tuple(r.shape) for r in record] == [(7, 4, 4, 3, 4), (7, 4, 4, 3, 5), (7, 4, 6)]
    assert all(set(r.unique().tolist()) == {0.0, 1.0} for r in record)
    shapes = parameter_shapes(network, WAYS)
    assert {k: tuple(v.shape) for k, v in params.items()} == shapes


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("activity", [0.1, 0.3])
def test_initialisation_hits_its_target_activity(reset: Reset, activity: float) -> None:
    from spikeshot.snn.init import init_params

    network = small_network(reset, delay=0)
    frames = random_frames(9, steps=20, batch=40)
    params = init_params(
        network, WAYS, frames, generator=torch.Generator().manual_seed(0), activity=activity
    )
    _, record = forward_recorded(network, params, frames)
    rates = [float(r.mean()) for r in record]
    assert rates == pytest.approx([activity] * 3, rel=0.1)


def test_the_reference_network_has_its_published_size() -> None:
    """conv 5x5 2-32-64-128 with 2x2 pools on 16x32, linear to 5: about 263,000 parameters."""
    base = small_network()
    layers = (Layer(32, 5, 2), Layer(64, 5, 2), Layer(128, 5, 2))
    shapes = parameter_shapes(replace(base, input_shape=(2, 16, 32), layers=layers), 5)
    total = sum(torch.Size(s).numel() for s in shapes.values())
    assert total == pytest.approx(263_000, rel=0.01)


def test_layers_that_do_not_fit_are_refused() -> None:
    network = small_network()
    with pytest.raises(ConfigError, match="after a fully connected"):
        parameter_shapes(replace(network, layers=(Layer(4), Layer(4, 3))), WAYS)
    with pytest.raises(ConfigError, match="pools the image away"):
        parameter_shapes(replace(network, layers=(Layer(4, 3, 4), Layer(4, 3, 4))), WAYS)
