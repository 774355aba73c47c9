"""Reset and threshold over time as one `autograd.Function` with an exact double backward, in torch.

The path for every device and for the soft twin; on the CPU `fused.py` does the same and more in one
sweep. `spikes(drive, neuron)` runs `U_t = V_t + R_t`, `S_t = H(U_t - threshold)`,
`R_{t+1} = decay R_t - jump m(U_t)` (see `neuron.py`) over rows `[T, N]`. With s', s'' the
surrogate's derivatives and m', m'' those of m, the four passes are, for cotangent g of S:

    forward    as above
    backward   l_t = s'_t g_t - jump m'_t r_{t+1},    r_t = l_t + decay r_{t+1}          -> dV = l
    tangent    dU_t = w_t + dR_t,  dR_{t+1} = decay dR_t - jump m'_t dU_t                -> s' dU
    curvature  c_t = dU_t (s''_t g_t - jump m''_t r_{t+1}), then the backward pass with s' g := c

The double backward is tangent (for g) and curvature (for V). Nothing needs a third derivative: the
meta-gradient differentiates each inner gradient once. The passes stand in `spike_torch.py`; the
oracle is `oracle.py`.
"""

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from spikeshot.snn import spike_torch
from spikeshot.snn.neuron import Neuron


def spikes(
    drive: Tensor, neuron: Neuron, reset_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return spikes `[T, N]` for the linear membrane drive `V` `[T, N]`, and R after the last step.

    `reset_state` `[N]`: R at the first step (zero when None); no gradient flows to or from R.
    """
    s, _, after = _Spikes.apply(drive, reset_state, neuron)  # type: ignore[no-untyped-call]
    return s, after


class _Spikes(Function):
    """forward, with `_SpikesBackward` as its differentiable backward; keeps the membrane for it."""

    @staticmethod
    def forward(
        drive: Tensor, reset_state: Tensor | None, neuron: Neuron
    ) -> tuple[Tensor, Tensor, Tensor]:
        return spike_torch.run(drive.detach(), neuron, reset_state)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        drive, _, ctx.neuron = inputs
        ctx.mark_non_differentiable(output[1], output[2])
        ctx.save_for_backward(drive, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        drive, u = ctx.saved_tensors
        out: Tensor = _SpikesBackward.apply(grad, drive, u, ctx.neuron)  # type: ignore[no-untyped-call]
        return out, None, None


class _SpikesBackward(Function):
    """The backward pass as a function of (g, V); its own backward is tangent and curvature.

    V comes in for the graph's sake: the numbers are taken from the membrane U.
    """

    @staticmethod
    def forward(grad: Tensor, drive: Tensor, u: Tensor, neuron: Neuron) -> Tensor:
        out: Tensor = spike_torch.backward(grad, u, neuron)
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
        for_grad, for_drive = spike_torch.double_backward(cotangent, grad, u, neuron)
        return for_grad, for_drive, None, None
