"""Parts: which parameters inner steps change; the gradient of the others is never computed.

Names are those of the parameter tree: `layer<i>.weight`, `layer<i>.bias`, `readout.weight`,
`readout.bias`. What an inner step leaves alone is still meta-learned.
"""

from spikeshot.learn.rules.rule import Part


def last_layer(name: str) -> bool:
    """The readout alone: ANIL's inner loop (Raghu et al. 2020, "Rapid learning or reuse?")."""
    return name.startswith("readout.")


def body(name: str) -> bool:
    """All but the readout: BOIL's inner loop (Oh et al. 2021)."""
    return not last_layer(name)


def above(layers: int) -> Part:
    """Return the part without the first `layers` layers; the readout always belongs to it."""

    def chosen(name: str) -> bool:
        return last_layer(name) or int(name.removeprefix("layer").split(".")[0]) >= layers

    return chosen
