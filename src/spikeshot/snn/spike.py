"""Reset and threshold over time as one `autograd.Function` with an exact double backward.

`spikes(drive, neuron)` runs `U_t = V_t + R_t`, `S_t = H(U_t - threshold)`,
`R_{t+1} = decay R_t - jump m(U_t)` (see `neuron.py`) over rows `[T, N]`. With s', s'' the
surrogate's derivatives and m', m'' those of m, the four passes are, for cotangent g of S:

    forward    as above
    backward   l_t = s'_t g_t - jump m'_t r_{t+1},    r_t = l_t + decay r_{t+1}          -> dV = l
    tangent    dU_t = w_t + dR_t,  dR_{t+1} = decay dR_t - jump m'_t dU_t                -> s' dU
    curvature  c_t = dU_t (s''_t g_t - jump m''_t r_{t+1}), then the backward pass with s' g := c

The double backward is tangent (for g) and curvature (for V). Nothing needs a third derivative: the
meta-gradient differentiates each inner gradient once. The oracle for all of it is `oracle.py`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikeshot.snn.neuron import Neuron


def spikes(drive: Tensor, neuron: Neuron, reset_state: Tensor | None = None) -> Tensor:
    """Return spikes `[T, N]` for the linear membrane drive `V` `[T, N]`.

    `reset_state` `[N]`: R at the first step (zero when None); no gradient flows to it.
    """
    out: Tensor = _Spikes.apply(drive, reset_state, neuron)[0]  # type: ignore[no-untyped-call]
    return out


def run_membrane(
    drive: Tensor, neuron: Neuron, reset_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the membrane U `[T, N]` and R after the last step `[N]`, without a graph."""
    membrane = torch.empty_like(drive)
    reset = torch.zeros_like(drive[0]) if reset_state is None else reset_state.clone()
    with torch.no_grad():
        for v, u in zip(drive, membrane, strict=True):
            torch.add(v, reset, out=u)
            s = neuron.spike(u)
            if neuron.gated:
                s = s * u
            reset.mul_(neuron.decay).sub_(s, alpha=neuron.jump)
    return membrane, reset


class _Spikes(torch.autograd.Function):
    """forward, with `_SpikesBackward` as its differentiable backward; keeps the membrane for it."""

    @staticmethod
    def forward(drive: Tensor, reset_state: Tensor | None, neuron: Neuron) -> tuple[Tensor, Tensor]:
        u = run_membrane(drive, neuron, reset_state)[0]
        return neuron.spike(u), u

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        drive, _, ctx.neuron = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(drive, output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        drive, u = ctx.saved_tensors
        return _SpikesBackward.apply(grad, drive, u, ctx.neuron), None, None  # type: ignore[no-untyped-call]


class _SpikesBackward(torch.autograd.Function):
    """The backward pass as a function of (g, V); its own backward is tangent and curvature."""

    @staticmethod
    def forward(grad: Tensor, drive: Tensor, u: Tensor, neuron: Neuron) -> Tensor:
        ds, dm = _slopes(u, neuron)
        return _adjoint(ds * grad, dm, neuron)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        grad, _, u, ctx.neuron = inputs
        ctx.save_for_backward(grad, u)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad, u = ctx.saved_tensors
        neuron: Neuron = ctx.neuron
        ds, dm = _slopes(u, neuron)
        du = _tangent(cotangent, dm, neuron)
        later = _adjoint(ds * grad, dm, neuron)[1]  # r_{t+1}
        d2s = neuron.rule.second(u - neuron.threshold, neuron.sharpness)
        d2m = d2s * u + 2 * ds if neuron.gated else d2s
        curvature = du * (d2s * grad - neuron.jump * d2m * later)
        return ds * du, _adjoint(curvature, dm, neuron)[0], None, None


def _slopes(u: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """Return s' and m' at every step `[T, N]`."""
    ds = neuron.rule.derivative(u - neuron.threshold, neuron.sharpness)
    return ds, ds * u + neuron.spike(u) if neuron.gated else ds


def _adjoint(source: Tensor, dm: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """Run `l_t = source_t - jump m'_t r_{t+1}` back in time; return l and r_{t+1}, `[T, N]`."""
    adjoint, later = torch.empty_like(source), torch.empty_like(source)
    later[-1] = 0
    for t in range(len(source) - 1, -1, -1):
        torch.addcmul(source[t], dm[t], later[t], value=-neuron.jump, out=adjoint[t])
        if t:
            torch.add(adjoint[t], later[t], alpha=neuron.decay, out=later[t - 1])
    return adjoint, later


def _tangent(w: Tensor, dm: Tensor, neuron: Neuron) -> Tensor:
    """Run the linearised forward pass for a change `w` of V; return dU, `[T, N]`."""
    du = torch.empty_like(w)
    dr = torch.zeros_like(w[0])
    for t in range(len(w)):
        torch.add(w[t], dr, out=du[t])
        dr = torch.addcmul(dr * neuron.decay, dm[t], du[t], value=-neuron.jump)
    return du
