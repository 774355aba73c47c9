"""The hand-written passes of reset and threshold against plain autograd through a time loop."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from networks import RESETS
from spikeshot.snn.neuron import Neuron, Reset
from spikeshot.snn.spike import spikes
from spikeshot.snn.spike_torch import run

STEPS, WIDTH = 9, 5


def loop(drive: Tensor, neuron: Neuron, reset_state: Tensor) -> Tensor:
    """The neuron's equations, with the spike written so that autograd sees the surrogate.

    `hard + (p - p.detach())` has the value of the spike and every derivative of the primitive p.
    """
    reset, out = reset_state, []
    for v in drive:
        u = v + reset
        soft = neuron.rule.primitive(u - neuron.threshold, neuron.sharpness)
        hard = (u > neuron.threshold).to(u)
        s = soft if neuron.soft else hard + (soft - soft.detach())
        if neuron.reset == "refractory":
            reset = neuron.reset_decay * reset - (1 - neuron.reset_decay) * s
        elif neuron.reset == "subtract":
            reset = neuron.alpha * (reset - neuron.threshold * s)
        else:
            reset = neuron.alpha * (reset - u * s)
        out.append(s)
    return torch.stack(out)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("surrogate", ["fast_sigmoid", "arctan", "sigmoid", "gaussian"])
@pytest.mark.parametrize("reset", RESETS)
def test_forward_backward_and_double_backward(reset: Reset, surrogate: str, soft: bool) -> None:
    neuron = Neuron(0.8, 0.6, 0.5, 0.3, reset, 1, surrogate, 4.0, soft)
    g = torch.Generator().manual_seed(1)
    drive = torch.randn(STEPS, WIDTH, generator=g, dtype=torch.float64).requires_grad_()
    cotangent = torch.randn(STEPS, WIDTH, generator=g, dtype=torch.float64).requires_grad_()
    second = torch.randn(STEPS, WIDTH, generator=g, dtype=torch.float64)
    state = torch.randn(WIDTH, generator=g, dtype=torch.float64)

    def passes(run: Callable[..., Tensor]) -> list[Tensor]:
        s = run(drive, neuron, state)
        (grad,) = torch.autograd.grad((s * cotangent).sum(), drive, create_graph=True)
        return [s, grad, *torch.autograd.grad((grad * second).sum(), [drive, cotangent])]

    for found, expected in zip(passes(lambda *a: spikes(*a)[0]), passes(loop), strict=True):
        assert expected.abs().max() > 0.01  # nothing is compared with zeros
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("reset", RESETS)
def test_gradgradcheck_of_the_soft_twin(reset: Reset) -> None:
    """Finite differences know nothing of our formulas."""
    neuron = Neuron(0.8, 0.6, 0.5, 0.3, reset, 1, "arctan", 2.0, soft=True)
    drive = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    drive.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: spikes(v, neuron)[0], drive)
    assert torch.autograd.gradgradcheck(lambda v: spikes(v, neuron)[0], drive)


def test_hard_reset_is_alpha_times_zero_after_a_spike() -> None:
    """`zero` means U_{t+1} = alpha U_t (1 - S_t) + input: NIR's and Loihi's definition."""
    neuron = Neuron(alpha=0.7, threshold=0.4, reset="zero")
    current = torch.rand(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    current = current * 0.4
    drive, linear = [], torch.zeros(6, dtype=torch.float64)
    for i in current:
        linear = 0.7 * linear + i
        drive.append(linear)
    _, membrane, _ = run(torch.stack(drive), neuron, None)
    u = torch.zeros(6, dtype=torch.float64)
    for step, i in enumerate(current):
        spiked = (u > 0.4) if step else torch.zeros(6, dtype=torch.bool)
        u = 0.7 * u * (~spiked) + i
        torch.testing.assert_close(membrane[step], u, rtol=1e-12, atol=1e-12)
    assert 0.1 < (membrane > 0.4).double().mean() < 0.9


def test_refractory_trace_has_its_closed_form() -> None:
    """After one spike at t = 0 the refractory term is -(1 - d) d^(t - 1), t >= 1."""
    neuron = Neuron(reset_decay=0.65)
    drive = torch.full((8, 1), -5.0, dtype=torch.float64)
    drive[0] = 1.0
    _, membrane, _ = run(drive, neuron, None)
    t = torch.arange(1, 8, dtype=torch.float64)
    expected = -(1 - 0.65) * 0.65 ** (t - 1)
    torch.testing.assert_close((membrane - drive)[1:, 0], expected, rtol=1e-12, atol=1e-12)
