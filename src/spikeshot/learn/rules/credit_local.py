"""Local credit: what a synapse can know by itself, its trace, its neuron and an error close by.

`ErrorTriggered` changes the last layer by three factors; `LocalReadouts` gives each layer a loss of
its own. Both need a forward pass that records activity (`forward.py`).
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from spikeshot.learn.rules.credit import gradient
from spikeshot.learn.rules.rule import Batch, Forward, Loss, Moment, Params

GATE_WIDTH = 0.02  # of the gate's surrogate, in units of the error


@dataclass(frozen=True)
class ErrorTriggered:
    """SOEL: dW = mean over the batch of gate(|e| > threshold) e P, e = softmax(logits) - target.

    Three factors, for the readout alone (the rule's part must be `last_layer`): the error e of the
    output neuron, the gate, and the presynaptic trace P; no surrogate derivative, and no other loss
    than cross-entropy (Stewart et al. 2020, "Online few-shot gesture learning on a neuromorphic
    processor"). With threshold 0 and a readout of membranes it is the gradient of cross-entropy.

    The gate is a step; its gradient is that of sigmoid((|e| - threshold) / `GATE_WIDTH`), its
    surrogate, for e and for a learned threshold (straight through). With `soft` the gate is that
    sigmoid itself, and the meta-gradient is exact. A learned threshold is learned as its logarithm.
    """

    threshold: float | Tensor = 0.05
    learn_threshold: bool = False
    soft: bool = False

    def __call__(
        self,
        forward: Forward,
        loss: Loss,
        params: Params,
        batch: Batch,
        create_graph: bool,
        moment: Moment,
    ) -> Params:
        """Return the gated outer product of error and trace; nothing is back-propagated."""
        with torch.set_grad_enabled(create_graph):
            activity = forward.recorded(params, batch.frames)
            target = one_hot(batch.labels, activity.logits.shape[1])
            error = activity.logits.softmax(1) - target
            error = error * self._gate(error.abs()) / len(error)
            found = {
                "readout.weight": error.T @ activity.trace,
                "readout.bias": error.sum(0) * activity.unit,
            }
        return {name: found[name] for name in params}

    def soft_twin(self) -> "ErrorTriggered":
        """Return the same with the gate's smooth surrogate in its place."""
        return replace(self, soft=True)

    def learned(self, params: Params) -> Params:
        """Return the logarithm of the threshold, `[]`, where it is learned."""
        if not self.learn_threshold:
            return {}
        some = next(iter(params.values()))
        start = math.log(float(self.threshold))
        return {"log_threshold": torch.tensor(start, dtype=some.dtype, device=some.device)}

    def using(self, learned: Params) -> "ErrorTriggered":
        """Return the rule with the learned threshold."""
        if not self.learn_threshold:
            return self
        return replace(self, threshold=learned["log_threshold"].exp())

    def _gate(self, size: Tensor) -> Tensor:
        soft = torch.sigmoid((size - self.threshold) / GATE_WIDTH)
        if self.soft:
            return soft
        return (size > self.threshold).to(size.dtype) + (soft - soft.detach())


@dataclass(frozen=True)
class LocalReadouts:
    """DECOLLE: each layer learns by its own loss, through a fixed random readout of its spikes.

    Per layer, `loss` of the spikes times a readout `[neurons, ways]`, at every time step, and its
    mean over them; the gradient stays within the layer, its reset over time included (Kaiser,
    Mostafa & Neftci 2020, "Synaptic plasticity dynamics for deep continuous local learning"). The
    network's own readout learns by the loss of the logits, and hands nothing down.

    The fixed readouts are normal with standard deviation 1 / sqrt(neurons), drawn from `seed` and
    the layer's number: they are not learned, and each way's weights depend on no other way.
    """

    seed: int = 0

    def __call__(
        self,
        forward: Forward,
        loss: Loss,
        params: Params,
        batch: Batch,
        create_graph: bool,
        moment: Moment,
    ) -> Params:
        """Return each layer's gradient of its own loss."""
        activity = forward.recorded(params, batch.frames)
        ways, grads = activity.logits.shape[1], dict[str, Tensor]()
        for i, spikes in enumerate(activity.spikes):
            mine = {name: value for name, value in params.items() if name.startswith(f"layer{i}.")}
            if mine:
                x = spikes.flatten(2)  # (T, B, neurons)
                logits = x @ local_readout(self.seed, i, x.shape[2], ways, x.dtype, str(x.device))
                value = loss(logits.flatten(0, 1), batch.labels.repeat(len(x)))
                grads |= gradient(value, mine, create_graph)  # it reaches no layer below
        mine = {name: value for name, value in params.items() if name.startswith("readout.")}
        if mine:
            grads |= gradient(loss(activity.logits, batch.labels), mine, create_graph)
        return {name: grads[name] for name in params}


@lru_cache(maxsize=64)
def local_readout(
    seed: int, layer: int, neurons: int, ways: int, dtype: torch.dtype, device: str
) -> Tensor:
    """Return a layer's fixed readout `[neurons, ways]`: the same numbers in every dtype."""
    generator = Moment(seed, layer).generator(0)
    columns = [  # one draw for each way: it does not hang on how many there are
        torch.randn(neurons, generator=generator, dtype=torch.float64) for _ in range(ways)
    ]
    return (torch.stack(columns, 1) / math.sqrt(neurons)).to(dtype=dtype, device=device)
