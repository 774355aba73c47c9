"""The oracle: the neuron's equations as they stand in the paper, step by step, in plain autograd.

Slow and simple on purpose. Tests hold every fast path against it, and `engine: oracle` runs it.
The only thing it shares with the engine is the surrogate's definition.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeshot.snn.gain_control import EPS
from spikeshot.snn.layer import Layer, LayerStyle, PoolWhere
from spikeshot.snn.network import Activity, Network, Params, readout_style
from spikeshot.snn.neuron import Neuron


class _StepSpike(torch.autograd.Function):
    """Threshold one step; the derivative is made of torch operations, so autograd goes on."""

    @staticmethod
    def forward(v: Tensor, neuron: Neuron) -> Tensor:
        return (v > 0).to(v.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.neuron = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        return grad * ctx.neuron.rule.derivative(v, ctx.neuron.sharpness), None


class _Population:
    """State and step of one layer's neurons: input traces Q and P, reset term R."""

    def __init__(
        self,
        layer: Layer,
        style: LayerStyle,
        weight: Tensor,
        bias: Tensor,
        input_alpha: float | None = None,
        *,
        first: bool = False,
    ) -> None:
        self.input_alpha, self.first = input_alpha, first
        self.layer, self.style, self.neuron = layer, style, style.neuron
        self.weight, self.bias = weight, bias
        self.q: Tensor | None = None
        self.p: Tensor | None = None
        self.r: Tensor | None = None
        self.unit = 0.0  # membrane trace of the constant input 1, which the bias weighs

    def trace(self, x: Tensor) -> Tensor:
        """Advance Q and P by one input `[B, ...]`; return P."""
        n = self.neuron
        before = torch.zeros_like(x) if self.q is None else self.q
        p = torch.zeros_like(x) if self.p is None else self.p
        if self.input_alpha is not None:
            self.p = self.input_alpha * p + (1 - self.input_alpha) * x
            return self.p
        self.q = n.beta * before + (1 - n.beta) * x
        self.p = n.alpha * p + (1 - n.alpha) * (before if n.delay else self.q)
        return self.p

    def step(self, x: Tensor) -> Tensor:
        """Advance by one input `[B, C, H, W]` or `[B, F]`; return spikes, pooled."""
        n = self.neuron
        v = self._controlled(x) if self.style.gain_control else self._weigh(self.trace(x))
        if self._pools("before") and self.style.pool_kind == "max":
            v = self._pool(v)
        self.unit = n.alpha * self.unit + (1 - n.alpha)
        bias = self.bias_trace * self.bias
        u = v + (bias[:, None, None] if self.layer.kernel else bias)
        u = u if self.r is None else u + self.r
        v = u - n.threshold
        s = n.rule.primitive(v, n.sharpness) if n.soft else _StepSpike.apply(v, n)  # type: ignore[no-untyped-call]
        self._reset(u, s)
        return self._pool(s) if self._pools("after") else s

    def _controlled(self, x: Tensor) -> Tensor:
        """Return the drive under gain control: of W P in the first layer, else of W S, filtered."""
        y = self._weigh(self.trace(x) if self.first else x)
        y = y / (y.square().flatten(1).mean(1) + EPS).sqrt().view(-1, *[1] * (y.dim() - 1))
        return y if self.first else self.trace(y)

    @property
    def bias_trace(self) -> float:
        """What the bias is multiplied with at this step."""
        return 1.0 if self.neuron.reset == "refractory" else self.unit

    def detach(self) -> None:
        """Cut the graph behind the state (the end of the burn-in)."""
        self.q, self.p, self.r = (
            None if z is None else z.detach() for z in (self.q, self.p, self.r)
        )

    def _reset(self, u: Tensor, s: Tensor) -> None:
        n = self.neuron
        r = torch.zeros_like(u) if self.r is None else self.r
        if n.reset == "refractory":
            self.r = n.reset_decay * r - (1 - n.reset_decay) * s
        elif n.reset == "subtract":
            self.r = n.alpha * (r - n.threshold * s)
        else:
            self.r = n.alpha * (r - u * s)

    def _weigh(self, x: Tensor) -> Tensor:
        """Apply the weights; averages before the spike, which are linear, are part of them."""
        if self.layer.kernel:
            y = F.conv2d(x, self.weight, padding=self.layer.kernel // 2)
            linear = self._pools("before") and self.style.pool_kind == "average"
            return self._pool(y) if linear else y
        return F.linear(x.flatten(1) if x.dim() == 2 else _features(x), self.weight)

    def _pools(self, where: PoolWhere) -> bool:
        pooled = self.layer.kernel > 0 and self.layer.pool > 1
        return pooled and self.style.pool_where == where

    def _pool(self, x: Tensor) -> Tensor:
        pool = F.avg_pool2d if self.style.pool_kind == "average" else F.max_pool2d
        out: Tensor = pool(x, self.layer.pool)
        return out


def record_stepwise(network: Network, params: Params, frames: Tensor) -> Activity:
    """Return logits and activity for frames `[T, B, C, H, W]`, one time step after another."""
    style, count = network.style, network.readout == "count"
    populations = [
        _Population(
            *(layer, style, params[f"layer{i}.weight"], params[f"layer{i}.bias"]),
            input_alpha=None if i else network.input_alpha,
            first=i == 0,
        )
        for i, layer in enumerate(network.layers)
    ]
    weight, bias = params["readout.weight"], params["readout.bias"]
    readout = _Population(Layer(weight.shape[0]), readout_style(style), weight, bias)
    record: list[list[Tensor]] = [[] for _ in populations]
    outputs: list[Tensor] = []
    traces: list[Tensor] = []
    units: list[Tensor] = []
    for t, frame in enumerate(frames):
        x = frame * network.input_gain
        with torch.set_grad_enabled(torch.is_grad_enabled() and t >= network.burn_in):
            for population, kept in zip(populations, record, strict=True):
                x = population.step(x)
                kept.append(x.permute(0, 2, 3, 1) if x.dim() == 4 else x)
            if count:
                outputs.append(readout.step(_features(x)))
                traces.append(cast(Tensor, readout.p))
            else:
                traces.append(readout.trace(_features(x)))
                outputs.append(F.linear(traces[-1], weight, bias))
            units.append(x.new_tensor(readout.bias_trace if count else 1.0))
        if t + 1 == network.burn_in:
            for population in [*populations, readout]:
                population.detach()
            for kept in [*record, outputs, traces, units]:
                kept.clear()
    over_time = _OVER_TIME[network.readout]
    logits, trace, unit = (over_time(torch.stack(x)) for x in (outputs, traces, units))
    return Activity(logits, [torch.stack(kept) for kept in record], trace, unit)


_OVER_TIME: dict[str, Callable[[Tensor], Tensor]] = {
    "last": lambda x: x[-1],
    "mean": lambda x: x.mean(0),
    "count": lambda x: x.sum(0),
}


def _features(x: Tensor) -> Tensor:
    """Flatten `[B, C, H, W]` in the engine's order (H, W, C); leave `[B, F]` alone."""
    return x.permute(0, 2, 3, 1).flatten(1) if x.dim() == 4 else x
