"""The neuron: a current-based leaky integrate-and-fire unit in discrete time, and its filter.

Per time step t, with decays beta (synapse), alpha (membrane) and d (reset):

    Q_t = beta  Q_{t-1} + (1 - beta)  X_t                (X: input spikes or event counts)
    P_t = alpha P_{t-1} + (1 - alpha) Q_{t-delay}
    U_t = W P_t + b + R_t,     S_t = H(U_t - threshold)

    refractory:  R_{t+1} = d R_t - (1 - d) S_t           (Stewart & Neftci 2022)
    subtract:    R_{t+1} = alpha (R_t - threshold S_t)
    zero:        R_{t+1} = alpha (R_t - U_t S_t)

Written so, all three resets are one recurrence: `R_{t+1} = decay R_t - jump m(U_t)` with m = S or
U S. For `zero` it is the hard reset: U_{t+1} = alpha U_t (1 - S_t) + the current, as NIR and Loihi
mean it; there, and for `subtract`, the bias is a current through the membrane's leak from rest at
zero, whereas the paper adds it to the membrane. `delay` is 1 in the paper; 0 lets a spike act on
the next layer within its own time bin, which matters when bins are long.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from spikeshot.snn.surrogate import Surrogate, get_surrogate

Reset = Literal["refractory", "subtract", "zero"]


@dataclass(frozen=True)
class Neuron:
    """Constants of one population of neurons (decays per time bin, in 0..1)."""

    alpha: float = 0.95
    beta: float = 0.9
    reset_decay: float = 0.65
    threshold: float = 0.0
    reset: Reset = "refractory"
    delay: int = 1
    surrogate: str = "fast_sigmoid"
    sharpness: float = 10.0
    soft: bool = False  # the soft twin: the surrogate's primitive instead of the spike

    @property
    def decay(self) -> float:
        """Decay of the reset term R."""
        return self.reset_decay if self.reset == "refractory" else self.alpha

    @property
    def jump(self) -> float:
        """Factor of m(U) in the reset term's recurrence."""
        if self.reset == "refractory":
            return 1 - self.reset_decay
        return self.alpha * self.threshold if self.reset == "subtract" else self.alpha

    @property
    def gated(self) -> bool:
        """True when the reset takes the membrane away (m = U S), False for a fixed amount."""
        return self.reset == "zero"

    @property
    def rule(self) -> Surrogate:
        """The surrogate by its name."""
        return get_surrogate(self.surrogate)

    def spike(self, u: Tensor) -> Tensor:
        """S of the membrane `u` (any shape): 0 or 1, or the primitive for the soft twin."""
        v = u - self.threshold
        return self.rule.primitive(v, self.sharpness) if self.soft else (v > 0).to(u.dtype)


@dataclass(frozen=True)
class FilterMatrix:
    """The two leaky filters over a window of T steps as one matrix.

    Input rows are X_1..X_T, then Q and P before the window. `trace` `[T, T + 2]` gives P_1..P_T,
    `state` `[2, T + 2]` gives Q_T and P_T, the state to go on with.
    """

    trace: Tensor
    state: Tensor


def filter_matrix(neuron: Neuron, steps: int, like: Tensor) -> FilterMatrix:
    """Return the filter over `steps` time steps, in the dtype and on the device of `like`."""
    return _filter_matrix(
        neuron.alpha, neuron.beta, neuron.delay, steps, like.dtype, str(like.device)
    )


@lru_cache(maxsize=64)
def _filter_matrix(
    alpha: float, beta: float, delay: int, steps: int, dtype: torch.dtype, device: str
) -> FilterMatrix:
    unit = np.eye(steps + 2)  # response to each input row, then to the state before the window
    q, p = unit[steps], unit[steps + 1]
    trace = np.empty((steps, steps + 2))
    for t in range(steps):
        before = q
        q = beta * q + (1 - beta) * unit[t]
        p = alpha * p + (1 - alpha) * (before if delay else q)
        trace[t] = p
    state = np.stack([q, p])
    return FilterMatrix(
        torch.tensor(trace, dtype=dtype, device=device),
        torch.tensor(state, dtype=dtype, device=device),
    )


def bias_response(neuron: Neuron, steps: int, elapsed: int, like: Tensor) -> Tensor:
    """Return what a bias of 1 adds to the membrane at each of `steps` steps, `[steps]`.

    1 for the paper's reset; else a current's response, 1 - alpha^t, `elapsed` steps after rest.
    """
    if neuron.reset == "refractory":
        return torch.ones(steps, dtype=like.dtype, device=like.device)
    t = torch.arange(elapsed + 1, elapsed + steps + 1, dtype=like.dtype, device=like.device)
    return 1 - neuron.alpha**t
