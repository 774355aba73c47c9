"""Take a learner that ships, show it one example of each of five new classes, and ask it.

The classes are pairs of digits, the recordings simulated from MNIST images that the learner has
never seen. Run: python examples/pretrained_digits.py        (needs spikeshot[sample])
"""

import numpy as np

import spikeshot
from spikeshot.data.corpora import digit_images

CLASSES = ("36", "46", "83", "17", "92")  # none of them was in meta-training
QUERIES = 4  # of each class


def unseen_recordings(per_digit: int) -> dict[str, list[np.ndarray]]:
    """Return simulated recordings of each digit, from the first 1,000 images of MNIST."""
    images, labels, origins = digit_images()
    early = np.array([int(origin.removeprefix("train/")) <= 1000 for origin in origins])
    chosen = np.concatenate(
        [np.flatnonzero(early & (labels == digit))[:per_digit] for digit in range(10)]
    )
    recordings = spikeshot.simulate(
        *(images[chosen], labels[chosen].tolist(), "0123456789", [origins[i] for i in chosen]),
        seed=1,
        duration_us=100_000,
    )
    return {
        str(digit): [recordings[i] for i in np.flatnonzero(recordings.labels == digit)]
        for digit in range(10)
    }


def main() -> float:
    """Adapt and predict; return the share of right answers (0 to 1)."""
    digits = unseen_recordings(per_digit=2 * (1 + QUERIES))
    pairs = {
        name: list(zip(digits[name[0]], digits[name[1]][::-1], strict=True)) for name in CLASSES
    }

    learner = spikeshot.load("pretrained:double-nmnist-simulated")
    adapted = learner.adapt([pairs[name][0] for name in CLASSES], CLASSES)

    asked = [(name, pair) for name in CLASSES for pair in pairs[name][1 : 1 + QUERIES]]
    labels, probabilities = adapted.predict([pair for _, pair in asked])
    for (truth, _), label, row in zip(asked, labels, probabilities, strict=True):
        print(f"{truth}: taken for {label} with probability {row.max():.2f}")
    right = sum(truth == label for (truth, _), label in zip(asked, labels, strict=True))
    print(f"{right} of {len(asked)} right")
    return right / len(asked)


if __name__ == "__main__":
    main()
