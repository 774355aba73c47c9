"""A surrogate of your own: name it, give its primitive and two derivatives, and train with it.

The engine differentiates it twice, exactly. Run: python examples/own_surrogate.py
"""

import torch

import spikeshot
from spikeshot.learn.adapt import adapt
from spikeshot.learn.rules.presets import get_rule
from spikeshot.learn.rules.rule import Batch
from spikeshot.snn.init import init_params
from spikeshot.snn.layer import Layer, LayerStyle
from spikeshot.snn.surrogate import SURROGATES, Surrogate

# p = tanh(k u) / k, p' = 1 - tanh^2, p'' = -2 k tanh (1 - tanh^2)
MINE = Surrogate(
    "tanh",
    lambda u, k: torch.tanh(k * u) / k,
    lambda u, k: 1 - torch.tanh(k * u) ** 2,
    lambda u, k: -2 * k * torch.tanh(k * u) * (1 - torch.tanh(k * u) ** 2),
)


def main(steps: int = 60) -> tuple[float, float]:
    """Fit a network of such neurons to six random samples; return the loss before and after."""
    SURROGATES[MINE.name] = MINE
    neuron = spikeshot.Neuron(0.7, 0.3, 0.65, delay=0, surrogate=MINE.name, sharpness=4.0)
    layers = (Layer(8, 3, 2), Layer(16))
    network = spikeshot.Network((2, 8, 8), layers, LayerStyle(neuron))

    generator = torch.Generator().manual_seed(0)
    frames = torch.poisson(torch.full((10, 6, 2, 8, 8), 0.3), generator)  # [T, B, 2, H, W]
    support = Batch(frames, torch.tensor([0, 0, 1, 1, 2, 2]))
    params = init_params(network, 3, frames, generator=generator)

    def forward(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return spikeshot.forward(network, weights, x)

    loss = torch.nn.functional.cross_entropy
    rule = get_rule("sgd", 1.0, "fixed")
    adapted = adapt(forward, loss, params, {}, rule, support, steps)
    before, after = (
        float(loss(forward(weights, frames), support.labels)) for weights in (params, adapted)
    )
    print(f"loss on the support: {before:.3f}, after {steps} steps {after:.3f}")
    return before, after


if __name__ == "__main__":
    main()
