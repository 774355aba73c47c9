"""The passes of reset and threshold in torch operations, for any device and for the soft twin.

All arrays are `[T, N]`. The formulas stand in `spike.py`.
"""

import torch
from torch import Tensor

from spikeshot.snn.neuron import Neuron


def run(drive: Tensor, neuron: Neuron, reset_state: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Forward: return spikes S, membrane U and R after the last step `[N]`."""
    membrane = torch.empty_like(drive)
    reset = torch.zeros_like(drive[0]) if reset_state is None else reset_state.clone()
    for v, u in zip(drive, membrane, strict=True):
        torch.add(v, reset, out=u)
        s = neuron.spike(u)
        reset.mul_(neuron.decay).sub_(s * u if neuron.gated else s, alpha=neuron.jump)
    return neuron.spike(membrane), membrane, reset


def backward(grad: Tensor, u: Tensor, neuron: Neuron) -> Tensor:
    """Backward: return dV for the cotangent `grad` of S."""
    ds, dm = _slopes(u, neuron)
    return _adjoint(ds * grad, dm, neuron)[0]


def double_backward(
    cotangent: Tensor, grad: Tensor, u: Tensor, neuron: Neuron
) -> tuple[Tensor, Tensor]:
    """Tangent and curvature: return what `cotangent` of dV gives for `grad` and for V."""
    ds, dm = _slopes(u, neuron)
    du = _tangent(cotangent, dm, neuron)
    later = _adjoint(ds * grad, dm, neuron)[1]  # r_{t+1}
    d2s = neuron.rule.second(u - neuron.threshold, neuron.sharpness)
    d2m = d2s * u + 2 * ds if neuron.gated else d2s
    curvature = du * (d2s * grad - neuron.jump * d2m * later)
    return ds * du, _adjoint(curvature, dm, neuron)[0]


def _slopes(u: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """Return s' and m' at every step."""
    ds = neuron.rule.derivative(u - neuron.threshold, neuron.sharpness)
    return ds, ds * u + neuron.spike(u) if neuron.gated else ds


def _adjoint(source: Tensor, dm: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """Run `l_t = source_t - jump m'_t r_{t+1}` back in time; return l and r_{t+1}."""
    adjoint, later = torch.empty_like(source), torch.empty_like(source)
    later[-1] = 0
    for t in range(len(source) - 1, -1, -1):
        torch.addcmul(source[t], dm[t], later[t], value=-neuron.jump, out=adjoint[t])
        if t:
            torch.add(adjoint[t], later[t], alpha=neuron.decay, out=later[t - 1])
    return adjoint, later


def _tangent(w: Tensor, dm: Tensor, neuron: Neuron) -> Tensor:
    """Run the linearised forward pass for a change `w` of V; return dU."""
    du = torch.empty_like(w)
    dr = torch.zeros_like(w[0])
    for t in range(len(w)):
        torch.add(w[t], dr, out=du[t])
        dr = torch.addcmul(dr * neuron.decay, dm[t], du[t], value=-neuron.jump)
    return du
