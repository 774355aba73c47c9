"""Reset and threshold over time as one `autograd.Function` with an exact double backward.

`spikes(drive, neuron)` runs `U_t = V_t + R_t`, `S_t = H(U_t - threshold)`,
`R_{t+1} = decay R_t - jump m(U_t)` (see `neuron.py`) over rows `[T, N]`. With s', s'' the
surrogate's derivatives and m', m'' those of m, the four passes are, for cotangent g of S:

    forward    as above
    backward   l_t = s'_t g_t - jump m'_t r_{t+1},    r_t = l_t + decay r_{t+1}          -> dV = l
    tangent    dU_t = w_t + dR_t,  dR_{t+1} = decay dR_t - jump m'_t dU_t                -> s' dU
    curvature  c_t = dU_t (s''_t g_t - jump m''_t r_{t+1}), then the backward pass with s' g := c

The double backward is tangent (for g) and curvature (for V). Nothing needs a third derivative: the
meta-gradient differentiates each inner gradient once. The passes exist twice, as fused kernels
(`spike_numba.py`) and in torch operations (`spike_torch.py`); `_passes` is the one place that
chooses. The oracle for all of it is `oracle.py`.
"""

from types import ModuleType
from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from spikeshot.snn import spike_torch
from spikeshot.snn.neuron import Neuron


def spikes(drive: Tensor, neuron: Neuron, reset_state: Tensor | None = None) -> Tensor:
    """Return spikes `[T, N]` for the linear membrane drive `V` `[T, N]`.

    `reset_state` `[N]`: R at the first step (zero when None); no gradient flows to it.
    """
    out: Tensor = _Spikes.apply(drive, reset_state, neuron)[0]  # type: ignore[no-untyped-call]
    return out


def run_spikes(
    drive: Tensor, neuron: Neuron, reset_state: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return spikes and membrane `[T, N]`, and R after the last step `[N]`, without a graph."""
    s, u, reset = _passes(drive, neuron).run(drive.detach(), neuron, reset_state)
    return s, u, reset


def _passes(drive: Tensor, neuron: Neuron) -> ModuleType:
    """Return the module whose passes run for this tensor: fused where they apply."""
    from spikeshot.snn import spike_numba  # brings numba: only when a network runs

    return spike_numba if spike_numba.applies(drive, neuron) else spike_torch


class _Spikes(Function):
    """forward, with `_SpikesBackward` as its differentiable backward; keeps the membrane for it."""

    @staticmethod
    def forward(drive: Tensor, reset_state: Tensor | None, neuron: Neuron) -> tuple[Tensor, Tensor]:
        return run_spikes(drive, neuron, reset_state)[:2]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        drive, _, ctx.neuron = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(drive, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        drive, u = ctx.saved_tensors
        out: Tensor = _SpikesBackward.apply(grad, drive, u, ctx.neuron)  # type: ignore[no-untyped-call]
        return out, None, None


class _SpikesBackward(Function):
    """The backward pass as a function of (g, V); its own backward is tangent and curvature.

    V comes in for the graph's sake: the numbers are taken from the membrane U.
    """

    @staticmethod
    def forward(grad: Tensor, drive: Tensor, u: Tensor, neuron: Neuron) -> Tensor:
        out: Tensor = _passes(u, neuron).backward(grad, u, neuron)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        grad, _, u, ctx.neuron = inputs
        ctx.save_for_backward(grad, u)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad, u = ctx.saved_tensors
        neuron: Neuron = ctx.neuron
        for_grad, for_drive = _passes(u, neuron).double_backward(cotangent, grad, u, neuron)
        return for_grad, for_drive, None, None
