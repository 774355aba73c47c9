"""The filter against its closed form."""

import pytest
import torch

from spikeshot.snn.layer import over_time
from spikeshot.snn.neuron import Neuron, bias_response, filter_matrix


@pytest.mark.parametrize("delay", [0, 1])
def test_trace_of_one_event_is_the_double_exponential(delay: int) -> None:
    """P after one input at t = 0 is (1-a)(1-b)(a^n - b^n)/(a - b), n = t + 1 - delay.

    The convolution of two geometric series; with `delay` it comes one step later.
    """
    a, b, steps = 0.95, 0.9, 40
    x = torch.zeros(steps, 1, dtype=torch.float64)
    x[0] = 1
    trace = filter_matrix(Neuron(alpha=a, beta=b, delay=delay), steps, x).trace[:, :steps]
    n = torch.arange(steps, dtype=torch.float64) + 1 - delay
    expected = (1 - a) * (1 - b) * (a**n - b**n) / (a - b)
    torch.testing.assert_close(over_time(trace, x)[:, 0], expected, rtol=1e-12, atol=1e-14)


def test_a_constant_input_comes_through_with_gain_one() -> None:
    x = torch.ones(2000, 1, dtype=torch.float64)
    trace = filter_matrix(Neuron(alpha=0.97, beta=0.92), 2000, x).trace[:, :2000]
    assert abs(float(over_time(trace, x)[-1, 0]) - 1) < 1e-12


@pytest.mark.parametrize("delay", [0, 1])
def test_two_windows_with_the_state_between_are_one_window(delay: int) -> None:
    neuron = Neuron(alpha=0.9, beta=0.7, delay=delay)
    x = torch.rand(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = over_time(filter_matrix(neuron, 12, x).trace[:, :12], x)
    first = filter_matrix(neuron, 5, x)
    state = over_time(first.state[:, :5], x[:5])
    second = filter_matrix(neuron, 7, x)
    rest = over_time(second.trace, torch.cat([x[5:], state]))
    torch.testing.assert_close(rest, whole[5:], rtol=1e-12, atol=1e-14)


def test_bias_is_constant_or_a_current_from_rest() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    assert bias_response(Neuron(), 4, 0, like).tolist() == [1, 1, 1, 1]
    current = bias_response(Neuron(alpha=0.5, threshold=1, reset="zero"), 3, 2, like)
    assert current.tolist() == [1 - 0.5**3, 1 - 0.5**4, 1 - 0.5**5]
