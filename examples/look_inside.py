"""Look inside: the spikes of a support sample in every layer, before and after adaptation.

Writes spikes.png. Run: python examples/look_inside.py [FILE.png]        (needs spikeshot[sample])
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import spikeshot
from pretrained_digits import CLASSES, unseen_recordings


def main(picture: Path = Path("spikes.png")) -> list[tuple[float, float]]:
    """Draw the rasters; return the mean activity of every layer before and after (0 to 1)."""
    digits = unseen_recordings(per_digit=2)
    support = [(digits[name[0]][0], digits[name[1]][1]) for name in CLASSES]
    learner = spikeshot.load("pretrained:double-nmnist-simulated")
    spikes = {
        moment: learner.adapt(support, CLASSES, steps=steps).spikes(support)
        for moment, steps in (("before", 0), ("after", None))
    }
    layers = range(len(spikes["before"]))
    figure, axes = plt.subplots(2, len(layers), figsize=(10, 6), sharex=True, squeeze=False)
    rates = []
    for layer in layers:
        for row, (moment, record) in enumerate(spikes.items()):
            raster = record[layer][:, 0].flatten(1)  # [T, neurons] of the first sample
            times, neurons = raster.nonzero(as_tuple=True)
            axes[row, layer].scatter(times, neurons, s=1, marker="|", color="black")
            axes[row, layer].set_title(f"layer {layer}, {moment}: {raster.mean():.1%}")
        rates.append(tuple(float(record[layer].mean()) for record in spikes.values()))
        print(f"layer {layer}: active {rates[-1][0]:.2%} before, {rates[-1][1]:.2%} after")
    figure.supxlabel(f"time bin of {learner.config.data.dt_us / 1000:g} ms")
    figure.supylabel("neuron")
    figure.tight_layout()
    figure.savefig(picture, dpi=80)
    plt.close(figure)
    return rates


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
