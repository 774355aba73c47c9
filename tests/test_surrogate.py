"""Each surrogate's derivatives against autograd of its smooth primitive, in float64."""

import pytest
import torch

from spikeshot.errors import ConfigError
from spikeshot.snn.surrogate import SURROGATES, get_surrogate

SHARPNESS = [1.0, 3.0, 10.0]


def membrane(sharpness: float) -> torch.Tensor:
    """Values on both sides of every kink (0 and 1/k), never on one."""
    u = torch.linspace(-3, 3, 302, dtype=torch.float64) / sharpness
    assert u.abs().min() > 1e-4
    return u.requires_grad_()


def test_registry_holds_the_field_s_surrogates() -> None:
    assert set(SURROGATES) >= {
        "fast_sigmoid",
        "arctan",
        "sigmoid",
        "gaussian",
        "piecewise_linear",
    }


@pytest.mark.parametrize("sharpness", SHARPNESS)
@pytest.mark.parametrize("name", SURROGATES)
def test_derivative_is_autograd_of_the_primitive(name: str, sharpness: float) -> None:
    u, s = membrane(sharpness), SURROGATES[name]
    (expected,) = torch.autograd.grad(s.primitive(u, sharpness).sum(), u)
    torch.testing.assert_close(s.derivative(u, sharpness), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sharpness", SHARPNESS)
@pytest.mark.parametrize("name", SURROGATES)
def test_second_is_autograd_of_the_derivative(name: str, sharpness: float) -> None:
    u, s = membrane(sharpness), SURROGATES[name]
    (expected,) = torch.autograd.grad(s.derivative(u, sharpness).sum(), u)
    torch.testing.assert_close(s.second(u, sharpness), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SURROGATES)
def test_derivative_is_one_at_threshold_and_even(name: str) -> None:
    s = SURROGATES[name]
    zero = torch.zeros(1, dtype=torch.float64)
    torch.testing.assert_close(s.derivative(zero, 5.0), torch.ones_like(zero))
    u = torch.linspace(0.01, 2, 50, dtype=torch.float64)
    torch.testing.assert_close(s.derivative(u, 5.0), s.derivative(-u, 5.0))


def test_only_the_piecewise_linear_is_not_twice_differentiable() -> None:
    assert [n for n, s in SURROGATES.items() if not s.twice_differentiable] == ["piecewise_linear"]


def test_fast_sigmoid_is_the_papers() -> None:
    """1 / (10|u| + 1)^2: the constant of Stewart & Neftci's configuration."""
    u = torch.tensor([-0.2, 0.05], dtype=torch.float64)
    expected = torch.tensor([1 / 3.0**2, 1 / 1.5**2], dtype=torch.float64)
    torch.testing.assert_close(SURROGATES["fast_sigmoid"].derivative(u, 10.0), expected)


def test_unknown_name_is_an_error_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fast_sigmoid'"):
        get_surrogate("fast_sigmoyd")
