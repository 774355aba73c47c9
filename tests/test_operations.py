"""Firing rates, operations and memory, against numbers counted by hand."""

from dataclasses import replace

import pytest
import torch

from networks import WAYS, random_frames, small_network, start
from spikeshot.snn.layer import Layer, LayerStyle
from spikeshot.snn.network import Network, forward_recorded
from spikeshot.snn.neuron import Neuron
from spikeshot.study.activity import firing_rates
from spikeshot.study.baselines.frame_network import FrameNetwork
from spikeshot.study.baselines.networks import leaky_twin
from spikeshot.study.operations import Memory, memory, multiply_accumulates, synaptic_operations

LAYERS = (Layer(4, 3, 2), Layer(5))  # on 2 x 4 x 4: 4 x 2 x 2 after pooling, then 5
CONV, DENSE, READOUT = 2 * 4 * 100, 16 * 5, 5 * 3
"""Connections: of 4 x 4 pixels the 3 x 3 kernel covers 4 at 4 corners, 6 at 8 sides, 9 inside."""


def network(pool_where="before", pool_kind="average"):
    neuron = Neuron(alpha=0.0, beta=0.0, reset_decay=0.0, delay=0, threshold=0.5)
    return Network((2, 4, 4), LAYERS, LayerStyle(neuron, pool_kind, pool_where))


def silent(value=0.0):
    """Return parameters of zero weights and of biases `value`."""
    return {
        "layer0.weight": torch.zeros(4, 2, 3, 3),
        "layer0.bias": torch.full((4,), value),
        "layer1.weight": torch.zeros(5, 16),
        "layer1.bias": torch.full((5,), value),
        "readout.weight": torch.zeros(3, 5),
        "readout.bias": torch.zeros(3),
    }


def test_connections_of_a_small_network_by_hand():
    assert CONV == 2 * 4 * (4 * 4 + 8 * 6 + 4 * 9)
    once = CONV + DENSE + READOUT
    assert multiply_accumulates(network(), 3, 7) == 7 * once
    frames = FrameNetwork("frames", (2, 4, 4), 7, LAYERS)
    assert multiply_accumulates(frames, 3, 7) == once
    bins = FrameNetwork("relu", (2, 4, 4), 7, LAYERS)
    assert multiply_accumulates(bins, 3, 7) == 7 * CONV + DENSE + READOUT
    pixels = FrameNetwork("pixels", (2, 4, 4), 7, LAYERS)
    assert multiply_accumulates(pixels, 3, 7) == 32 * 3


@pytest.mark.parametrize("pool_where", ["before", "after"])
def test_neurons_that_always_fire_have_rate_one_and_all_operations(pool_where):
    """A spike takes 1 from the next membrane: U = 2, 1, 1, ... for bias 2, and 1, 0, 1 for 1."""
    net, frames = network(pool_where), torch.ones(6, 2, 2, 4, 4)
    always = firing_rates(net, silent(2.0), frames)
    assert always.layers == (1.0, 1.0)
    assert always.overall == 1.0
    found = synaptic_operations(net, silent(2.0), frames)
    spikes = 1 if pool_where == "before" else 4  # of the neurons behind one pooled value
    assert found.layers == (6 * CONV, 6 * DENSE * spikes, 6 * READOUT)
    assert found.dense == 6 * (CONV + DENSE + READOUT)
    half = firing_rates(net, silent(1.0), frames)
    assert half.layers == (0.5, 0.5)


def test_silent_neurons_cost_nothing_but_the_events():
    frames = torch.zeros(6, 2, 2, 4, 4)
    frames[3, 0, 1, 0, 0] = 3  # three events in a corner of one of two samples: 4 taps, 4 channels
    found = synaptic_operations(network(), silent(), frames)
    assert found.layers == (3 * 4 * 4 / 2, 0, 0)
    assert found.total == 24
    assert firing_rates(network(), silent(), frames).overall == 0


def test_overall_rate_weighs_layers_by_their_neurons():
    params = silent()
    params["layer1.bias"] += 2  # 5 neurons of 16 + 5 fire always
    assert firing_rates(network(), params, torch.zeros(3, 1, 2, 4, 4)).overall == 5 / 21
    after = firing_rates(network("after"), params, torch.zeros(3, 1, 2, 4, 4))
    assert after.overall == pytest.approx(5 / 69)  # 64 neurons before the pooling


def test_operations_are_spikes_times_connections_where_it_is_counted_otherwise():
    """Each spike of layer 1 reaches layer 2's 6 units (8 x 7 frames, all after burn-in)."""
    net = replace(small_network(), burn_in=0)
    params, frames = start(net), random_frames(3)
    record = forward_recorded(net, params, frames)[1]
    found = synaptic_operations(net, params, frames)
    assert found.layers[2] == pytest.approx(float(record[1].sum()) / 4 * 6)
    assert found.layers[3] == pytest.approx(float(record[2].sum()) / 4 * WAYS)
    assert 0 < found.total < found.dense
    with_burn_in = synaptic_operations(replace(net, burn_in=3), params, frames)
    assert with_burn_in == found


def test_memory_by_hand():
    weights = 4 * 18 + 4 + 5 * 16 + 5 + 3 * 5 + 3
    assert memory(network(), 3) == Memory(weights, (16 + 5) * 3 + 3 * 2)
    assert memory(leaky_twin(network("after")), 3) == Memory(weights, (64 + 5) * 3 + 3 * 2)
    largest = network(pool_kind="max")  # 64 drives are filtered, of which 16 neurons see one each
    assert memory(largest, 3) == Memory(weights, 64 * 2 + 16 + 5 * 3 + 3 * 2)
    gains = 4 + 5
    frames = FrameNetwork("frames", (2, 4, 4), 7, LAYERS)
    assert memory(frames, 3) == Memory(weights + gains, 32 + 64)  # the convolution's in and out
    assert memory(FrameNetwork("pixels", (2, 4, 4), 7, LAYERS), 3) == Memory(3 * 33, 32 + 3)
