"""A team: the processes that share the tasks of a run, as one object that adds up what they found.

A process takes tasks by their global number (`numbers`), so that who does what depends on nothing
else. Sums run in float64: one process or many, the result is the same but for the order of a few
additions far below float32's rounding. `ALONE` is the team of one; `connect` makes the others.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from spikeshot.errors import Interrupted, TeamError

PATIENCE = timedelta(hours=24)  # for what one process does alone, as reading recordings


class Team(Protocol):
    """The processes of one run: this one is number `rank` of `world`, counted from 0."""

    @property
    def rank(self) -> int:
        """Number of this process."""
        ...

    @property
    def world(self) -> int:
        """How many processes there are."""
        ...

    def sum(self, tree: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sum over all processes, by name; raises `TeamError` when one is gone.

        Names, their order and shapes are the same in every process; the sum is float64.
        """
        ...

    def wait(self) -> None:
        """Return when every process has come here; raises `TeamError` when one is gone."""
        ...


@dataclass(frozen=True)
class Alone:
    """The team of one process."""

    rank: int = 0
    world: int = 1

    def sum(self, tree: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tree in float64."""
        return {name: value.double() for name, value in tree.items()}

    def wait(self) -> None:
        """Return at once."""


ALONE = Alone()


@dataclass(frozen=True)
class Connected:
    """A team over `torch.distributed`: one all-reduce of one flat tensor per sum."""

    rank: int
    world: int
    timeout_s: float
    patient: Any  # the process group in which a process may be kept waiting

    def sum(self, tree: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sum over all processes, by name, in float64."""
        flat = torch.cat([value.detach().reshape(-1).double() for value in tree.values()])
        with self._answers():
            dist.all_reduce(flat)
        parts = torch.split(flat, [value.numel() for value in tree.values()])
        return {n: p.view(v.shape) for (n, v), p in zip(tree.items(), parts, strict=True)}

    def wait(self) -> None:
        """Return when every process has come here."""
        with self._answers():
            dist.barrier(group=self.patient)

    @contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # a closed connection, or none that answers in time
            raise TeamError(
                f"process {self.rank} of {self.world} lost another one, or had no answer for "
                f"{self.timeout_s:g} s ({_reason(error)}). The last checkpoint is kept: "
                "start the same command with --resume."
            ) from error


def connect(rank: int, world: int, *, timeout_s: float) -> Team:
    """Return the team of `world` processes that torchrun has started; `ALONE` for one.

    `timeout_s`: seconds within which every process must answer. Sums run over gloo, for tensors on
    CUDA over nccl. Raises `TeamError` when the others cannot be reached.
    """
    if world == 1:
        return ALONE
    patience = timedelta(seconds=timeout_s)
    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if nccl else "gloo"
    try:
        dist.init_process_group(backend, rank=rank, world_size=world, timeout=patience)
        patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TeamError(
            f"process {rank} of {world} cannot reach the others ({_reason(error)}). "
            "Start them with `torchrun --nproc-per-node N -m spikeshot ...`."
        ) from error
    return Connected(rank, world, timeout_s, patient)


def disconnect(team: Team) -> None:
    """Take leave of the other processes."""
    if team.world > 1:
        dist.destroy_process_group()


def numbers(team: Team, count: int) -> range:
    """Return which of `count` tasks are this process's: those with number % world == rank."""
    return range(team.rank, count, team.world)


def any_of(team: Team, flag: bool) -> bool:
    """True in every process where it is so in one."""
    return bool(team.sum({"flag": torch.tensor([float(flag)])})["flag"].item())


@contextmanager
def first_alone(team: Team) -> Iterator[None]:
    """Run the body in the first process, then in the others: what it leaves on disk is there.

    Where the first process fails and ends, saying why, the others raise `Interrupted`.
    """
    if team.rank:
        try:
            team.wait()
        except TeamError as error:
            raise Interrupted("the first process has ended.") from error
    yield
    if not team.rank:
        team.wait()


def _reason(error: Exception) -> str:
    """Return the first sentence of an error of torch's, without the place in its source."""
    text = re.sub(r"^\[[^]]*\]\s*", "", str(error).strip())
    return re.split(r"\.\s|\n", text)[0].rstrip(".")
