"""Apply: updates are written into the parameters."""

from spikeshot.learn.rules.rule import Moment, Params


def add(params: Params, updates: Params, moment: Moment) -> Params:
    """Return `params + updates`."""
    return {name: value + updates[name] for name, value in params.items()}
