"""The same meta-step by other libraries' neurons and plain autograd: norse, and SpikingJelly.

Neither does second-order meta-learning itself; what is timed is how one does it with them: inner
gradients with `create_graph=True`, one graph through everything, functional weights. Layer sizes,
weights, frames, burn-in and readout are those of the task.

Both libraries' current-based neurons with a hard reset are this project's neuron with reset `zero`
and `delay` 0, and the surrogates taken here are made of differentiable operations and are its
`fast_sigmoid`. So their meta-gradients must be the oracle's, to second order, and
`tests/test_benchmarks.py` holds them to that in float64. (SpikingJelly's `LIFNode` is a fused
operator without synapse; its `CUBALIFNode`, in torch operations, is the right neuron.) After a
burn-in the forward pass is still the same, the gradient is not quite: the libraries keep currents
and voltages, which the burn-in cuts off from the weights, this project traces of the input, on
which its weights act at every step. The work is the same.

With C_t the weighted input plus bias, both libraries integrate a current c and a voltage v,

    c_t = beta c_{t-1} + C_t,     v_t = alpha v_{t-1} (1 - S_{t-1}) + c_t,

up to factors that `_Scale` carries. A bias is there a current through the synapse, here one through
the membrane: that of the first step is larger so that they agree.

Install them with the extra `[bench]`. norse is LGPL-3, SpikingJelly Apache-2.0; only the benchmarks
import them.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeshot.learn.meta_gradient import MetaGradient
from spikeshot.snn.neuron import Neuron
from workloads import Task

Params = Mapping[str, Tensor]
Forward = Callable[[Params, Tensor], Tensor]


def neuron_of(name: str) -> Neuron:
    """Return this project's neuron that equals the library's, with the paper's decays."""
    sharpness = {"norse": 1.0, "spikingjelly": 2.0}[name]
    return Neuron(0.95, 0.9, threshold=0.1, reset="zero", delay=0, sharpness=sharpness)


def other_step(name: str, task: Task, inner_steps: int) -> Callable[[], MetaGradient]:
    """Return the meta-step of library `name`; the task has the neuron `neuron_of(name)`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both use what newer torch deprecates
        forward = {"norse": _norse, "spikingjelly": _spikingjelly}[name](task)
    rate = task.rule.transform.rate

    def step() -> MetaGradient:
        init = {n: value.detach().requires_grad_() for n, value in task.init.items()}
        params = init
        for _ in range(inner_steps):
            loss = F.cross_entropy(forward(params, task.support.frames), task.support.labels)
            grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            params = {n: p - rate * g for (n, p), g in zip(params.items(), grads, strict=True)}
        logits = forward(params, task.query.frames)
        loss = F.cross_entropy(logits, task.query.labels)
        found = torch.autograd.grad(loss, list(init.values()))
        hits = (logits.detach().argmax(-1) == task.query.labels).double().mean()
        return MetaGradient(dict(zip(init, found, strict=True)), {}, loss.detach(), hits)

    return step


@dataclass(frozen=True)
class _Scale:
    """Factors that turn the engine's weights and biases into a library's."""

    weight: float
    bias: float
    beta: float

    def current(self, weighted: Tensor, bias: Tensor, *, first: bool) -> Tensor:
        """Return the library's input for the weighted input of one step."""
        share = self.bias if first else self.bias * (1 - self.beta)
        return self.weight * weighted + share * bias


def _weighted(task: Task, layer: int, params: Params, x: Tensor) -> Tensor:
    """Return what layer `layer` makes of `x` `[B, C, H, W]`: convolved, then pooled on average."""
    shape = task.network.layers[layer]
    y = F.conv2d(x, params[f"layer{layer}.weight"], padding=shape.kernel // 2)
    return F.avg_pool2d(y, shape.pool)


def _features(x: Tensor) -> Tensor:
    """Flatten `[B, C, H, W]` in the order of the project's readout."""
    return x.permute(0, 2, 3, 1).flatten(1)


def _norse(task: Task) -> Forward:
    """Return norse's forward pass: its functional cells, one time step after another."""
    from norse.torch.functional.leaky_integrator import LIParameters, LIState, li_feed_forward_step
    from norse.torch.functional.lif import (
        LIFFeedForwardState,
        LIFParameters,
        lif_feed_forward_step,
    )

    neuron, layers = task.network.style.neuron, range(len(task.network.layers))
    scale = _Scale(1 - neuron.beta, 1.0, neuron.beta)
    number = next(iter(task.init.values())).new_tensor
    decays = {"tau_syn_inv": number(1 - neuron.beta), "tau_mem_inv": number(1 - neuron.alpha)}
    cell = LIFParameters(**decays, v_th=number(neuron.threshold), method="super")
    leak = LIParameters(**decays)

    def forward(params: Params, frames: Tensor) -> Tensor:
        states: list[Any] = [None for _ in layers]
        readout: Any = None
        v = frames.new_zeros(())
        for t, frame in enumerate(frames):
            if t == task.network.burn_in:
                states, readout = _detached(states), _detached(readout)
            with torch.set_grad_enabled(t >= task.network.burn_in):
                x = frame * task.network.input_gain
                for i in layers:
                    y = _weighted(task, i, params, x)
                    y = scale.current(y, params[f"layer{i}.bias"][:, None, None], first=t == 0)
                    zero = torch.zeros_like(y)
                    state = states[i] or LIFFeedForwardState(v=zero, i=zero)
                    x, states[i] = lif_feed_forward_step(y, state, cell, dt=1.0)
                features = (1 - neuron.beta) * _features(x)
                zero = torch.zeros_like(features)
                v, readout = li_feed_forward_step(
                    features, readout or LIState(zero, zero), leak, dt=1.0
                )
        return F.linear(v, params["readout.weight"], params["readout.bias"])

    return forward


def _detached(tree: Any) -> Any:
    return torch.utils._pytree.tree_map_only(Tensor, Tensor.detach, tree)


def _spikingjelly(task: Task) -> Forward:
    """Return SpikingJelly's forward pass: a multi-step module called with functional weights."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    n = task.network.style.neuron
    scale = _Scale((1 - n.alpha) * (1 - n.beta), 1 - n.alpha, n.beta)

    class Net(nn.Module):
        """Convolutions over all steps at once, neurons over time, a leaky readout."""

        def __init__(self) -> None:
            super().__init__()
            for name, value in task.init.items():
                self.register_parameter(name.replace(".", "_"), nn.Parameter(value.detach()))
            self.neurons = nn.ModuleList(
                neuron.CUBALIFNode(n.beta, n.alpha, n.threshold, 0.0, surrogate.SoftSign(2.0))
                for _ in task.network.layers
            )
            functional.set_step_mode(self, "m")

        def forward(self, x: Tensor) -> Tensor:
            """Return logits for frames `[T, B, C, H, W]`."""
            functional.reset_net(self)
            burn_in = task.network.burn_in
            leaky = None
            if burn_in:
                with torch.no_grad():
                    leaky = self.window(x[:burn_in], None)
                functional.detach_net(self)
            return self.read_out(self.window(x[burn_in:], leaky)[0])

        def window(self, x: Tensor, leaky: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
            """Run `x` `[T, B, ...]` from the present state; return the readout's trace (P, Q)."""
            params = {name.replace("_", ".", 1): value for name, value in self.named_parameters()}
            x, start = x * task.network.input_gain, leaky is None
            for i, node in enumerate(self.neurons):
                y = _weighted(task, i, params, x.flatten(0, 1)).unflatten(0, x.shape[:2])
                bias = params[f"layer{i}.bias"][:, None, None]
                later = scale.current(y[1:], bias, first=False)
                x = node(torch.cat([scale.current(y[:1], bias, first=start), later]))
            zero = torch.zeros_like(_features(x[0]))
            p, q = leaky or (zero, zero)
            for step in x:
                q = n.beta * q + (1 - n.beta) * _features(step)
                p = n.alpha * p + (1 - n.alpha) * q
            return p, q

        def read_out(self, trace: Tensor) -> Tensor:
            """Return logits."""
            return F.linear(trace, self.readout_weight, self.readout_bias)

    net = Net()

    def forward(params: Params, frames: Tensor) -> Tensor:
        renamed = {name.replace(".", "_"): value for name, value in params.items()}
        logits: Tensor = torch.func.functional_call(net, renamed, (frames,))
        return logits

    return forward
