"""What torchrun says in the environment becomes the team of this process."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from spikeshot.errors import ConfigError, DivergenceError, Interrupted, TeamError

if TYPE_CHECKING:
    from spikeshot.learn.parallel import Team

TIMEOUT = "SPIKESHOT_TIMEOUT"  # seconds within which every process must answer
TIMEOUT_S = 300.0


def place(environment: Mapping[str, str]) -> tuple[int, int]:
    """Return (rank, world) of this process: (0, 1) where torchrun has not started it."""
    if "MASTER_ADDR" not in environment:
        return 0, 1
    return int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1))


@contextmanager
def joined(environment: Mapping[str, str]) -> Iterator["Team"]:
    """Join the team that the environment names, for the body of this context.

    What all processes raise alike, the first one tells: the others then end after it, for torchrun
    ends all processes as soon as one has failed.
    """
    from spikeshot.learn.parallel import connect, disconnect

    team = connect(*place(environment), timeout_s=_timeout(environment))
    try:
        yield team
    except (DivergenceError, Interrupted):
        if team.rank:
            with suppress(TeamError):
                team.wait()  # until the first process has ended
        raise
    disconnect(team)


def _timeout(environment: Mapping[str, str]) -> float:
    text = environment.get(TIMEOUT, str(TIMEOUT_S))
    with suppress(ValueError):
        if 0 < float(text) < 1e6:
            return float(text)
    raise ConfigError(f"{TIMEOUT} is {text!r}; expected seconds, above 0.")
