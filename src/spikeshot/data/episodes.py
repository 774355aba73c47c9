"""Episodes: N-way K-shot tasks, each a pure function of (seed, split, index).

A `TaskSpace` says what can be drawn (the classes and recordings of one meta-split); `plan_episode`
draws recordings; `TaskSpace.episode` turns the plan into frames. A class is composed of one or
more parts (a double digit: left and right), drawn independently and put side by side.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from spikeshot.data.augment import Augmentation, turn
from spikeshot.data.frames import FrameSpec, bin_recordings, side_by_side
from spikeshot.data.recordings import Recordings
from spikeshot.data.splits import SPLITS
from spikeshot.data.turns import family
from spikeshot.errors import DataError

_PLAN, _AUGMENT, _SYMMETRY, _KEY = 0, 1, 2, 3  # independent random streams of one episode


@dataclass(frozen=True)
class Task:
    """The size of an episode: `ways` classes, `shots` support and `queries` query samples each."""

    ways: int = 5
    shots: int = 1
    queries: int = 10


@dataclass(frozen=True)
class EpisodePlan:
    """Which recordings make an episode.

    `classes`: the `ways` class names, in label order. `support` `[ways, shots, parts]` and `query`
    `[ways, queries, parts]`: recording indices. No recording of the support is in the query.
    """

    classes: tuple[str, ...]
    support: NDArray[np.int64]
    query: NDArray[np.int64]


@dataclass(frozen=True)
class Episode:
    """Frames and labels of one task.

    `support` `[T, ways * shots, 2, H, W]` and `query` `[T, ways * queries, 2, H, W]`, float32
    event counts; labels int64, class by class. `key`: a random number of the episode's own, for
    whoever learns it by chance.
    """

    support: torch.Tensor
    support_labels: torch.Tensor
    query: torch.Tensor
    query_labels: torch.Tensor
    classes: tuple[str, ...]
    key: int = 0


def plan_episode(
    classes: Mapping[str, Sequence[str]],
    members: Mapping[str, Sequence[int]],
    task: Task,
    rng: np.random.Generator,
    overlap: float = 0.0,
    drawers: Sequence[str] = (),
) -> EpisodePlan:
    """Draw classes, then recordings for every part of every class.

    With probability `overlap` the classes are drawn so that they share parts (`related_classes`).

    `classes` maps a class to its parts, `members` a part to its recordings. Each part's recordings
    are shared out between support and query before anything is drawn, so the two are disjoint over
    the whole episode. Within a class, a part's query recordings are all different. `drawers`, the
    one of each recording, are then shared out between support and query too. Raises `DataError`
    where the drawers do not suffice.
    """
    names = sorted(classes)
    shuffled = [names[i] for i in rng.permutation(len(names))]
    if overlap and rng.random() < overlap:
        shuffled = related_classes(classes, shuffled, task.ways)
    chosen = tuple(shuffled[: task.ways])
    slots = [(w, j, part) for w, c in enumerate(chosen) for j, part in enumerate(classes[c])]
    depth = len(classes[chosen[0]])
    support = np.empty((task.ways, task.shots, depth), np.int64)
    query = np.empty((task.ways, task.queries, depth), np.int64)
    parts = sorted({part for _, _, part in slots})
    first = _support_drawers({p: members[p] for p in parts}, task, drawers, rng)
    for part in parts:
        mine = [(w, j) for w, j, p in slots if p == part]
        order = rng.permutation(np.asarray(members[part], np.int64))
        wanted = task.shots * len(mine)
        share = min(wanted, len(order) - task.queries)
        queries = order[share:]
        if drawers:
            theirs = np.array([drawers[i] in first for i in order])
            order, queries = order[theirs], order[~theirs]
            share = min(wanted, len(order))
        for n, (w, j) in enumerate(mine):
            support[w, :, j] = order[(np.arange(task.shots) + n * task.shots) % share]
            query[w, :, j] = rng.permutation(queries)[: task.queries]
    return EpisodePlan(chosen, support, query)


def _support_drawers(
    members: Mapping[str, Sequence[int]],
    task: Task,
    drawers: Sequence[str],
    rng: np.random.Generator,
) -> set[str]:
    """Return the drawers of the support: as few, drawn at random, as give every part its shots."""
    if not drawers:
        return set()
    theirs = {part: Counter(drawers[i] for i in mine) for part, mine in members.items()}
    names = sorted({name for counts in theirs.values() for name in counts})
    order, first = [names[i] for i in rng.permutation(len(names))], 0
    while any(sum(c[name] for name in order[:first]) < task.shots for c in theirs.values()):
        first += 1
    for part, counts in theirs.items():
        if sum(counts[name] for name in order[first:]) < task.queries:
            raise DataError(
                f"class {part!r} has recordings by {len(counts)} drawers, too few for shots="
                f"{task.shots} and queries={task.queries} by different ones. Lower them, or set "
                "data.by_drawer=false."
            )
    return set(order[:first])


def related_classes(
    classes: Mapping[str, Sequence[str]], order: Sequence[str], ways: int
) -> list[str]:
    """Return `ways` classes of `order`: its first, then the earliest ones that share a part.

    Two classes share a part when they have the same one at the same place (46 and 47, 46 and 86);
    plain classes are related when they are of one folder, turned alike (two characters of one
    alphabet). Where no class is left that is related to those chosen, the earliest is taken.
    """
    chosen, rest = [order[0]], list(order[1:])
    while len(chosen) < ways:
        related = (c for c in rest if any(_related(classes[c], classes[d]) for d in chosen))
        following = next(related, rest[0])
        chosen.append(following)
        rest.remove(following)
    return chosen


def _related(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two classes of these parts share one, or are plain ones of one family."""
    if len(one) == 1:
        return family(one[0]) is not None and family(one[0]) == family(other[0])
    return any(a == b for a, b in zip(one, other, strict=True))


class TaskSpace:
    """All episodes of one meta-split of one corpus.

    `classes` maps each class of the split to its parts (classes of `recordings`); `members` maps
    each part to the recordings of the split; `overlap` is the share of episodes whose classes share
    parts, which makes them harder; `drawers`, where given, is who made each recording, and no
    drawer then stands in support and query of one episode. Raises `DataError` where `task` cannot
    be drawn.
    """

    def __init__(
        self,
        recordings: Recordings,
        classes: Mapping[str, tuple[str, ...]],
        members: Mapping[str, Sequence[int]],
        *,
        split: str,
        seed: int,
        task: Task,
        spec: FrameSpec,
        augmentation: Augmentation | None = None,
        overlap: float = 0.0,
        drawers: Sequence[str] = (),
    ) -> None:
        reach_us = augmentation.reach_us if augmentation else 0
        if not spec.stretch:
            recordings = recordings.before(spec.end_us + reach_us)  # later events cannot matter
        self.recordings = recordings
        self.classes = dict(classes)
        self.members = {name: list(indices) for name, indices in members.items()}
        self.split = split
        self.seed = seed
        self.task = task
        self.spec = spec
        self.augmentation = augmentation
        self.overlap = overlap
        self.drawers = drawers
        self._check()

    def _check(self) -> None:
        task = self.task
        if len(self.classes) < task.ways:
            raise DataError(
                f"split {self.split} has {len(self.classes)} classes, fewer than ways="
                f"{task.ways}. Lower task.ways (of training tasks train.ways), add classes, or "
                "give the split another share of them (data.split, data.class_fractions)."
            )
        need = task.shots + task.queries
        for part in sorted({p for parts in self.classes.values() for p in parts}):
            have = len(self.members.get(part, ()))
            if have < need:
                raise DataError(
                    f"class {part!r} has {have} recordings in split {self.split}; shots="
                    f"{task.shots} and queries={task.queries} need {need}. Lower shots or queries, "
                    "or add recordings."
                )

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(2, H, W) of an episode's frames."""
        width, height = self.spec.frame_size(self.recordings.sensor_size)
        parts = len(next(iter(self.classes.values())))
        return 2, height, width * parts

    def plan(self, index: int) -> EpisodePlan:
        """Return the plan of episode `index`."""
        rng = self._rng(index, _PLAN)
        return plan_episode(self.classes, self.members, self.task, rng, self.overlap, self.drawers)

    def episode(self, index: int) -> Episode:
        """Return episode `index`: the same on any machine, whatever was drawn before."""
        plan = self.plan(index)
        rng = self._rng(index, _AUGMENT)
        symmetries = self._symmetries(index, plan)
        support, query = (
            self._frames(part, symmetries, rng) for part in (plan.support, plan.query)
        )
        labels = torch.arange(self.task.ways)
        return Episode(
            support,
            labels.repeat_interleave(self.task.shots),
            query,
            labels.repeat_interleave(self.task.queries),
            plan.classes,
            int(self._rng(index, _KEY).integers(2**63)),
        )

    def _rng(self, index: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, SPLITS.index(self.split), index, stream])

    def _symmetries(self, index: int, plan: EpisodePlan) -> NDArray[np.int64]:
        """Return the symmetry under which each part of each class is shown, `[ways, parts]`."""
        shape = (self.task.ways, plan.support.shape[-1])
        if self.augmentation is None:
            return np.zeros(shape, np.int64)
        return self.augmentation.draw_symmetries(shape, self._rng(index, _SYMMETRY))

    def _frames(
        self, indices: NDArray[np.int64], symmetries: NDArray[np.int64], rng: np.random.Generator
    ) -> torch.Tensor:
        """Return the frames `[T, n, 2, H, W]` of samples `[ways, per_class, parts]`."""
        flat = indices.reshape(-1)  # sample by sample, the parts of one sample together
        counts = bin_recordings(self.recordings, flat, self.spec, self.augmentation, rng)
        bins, _, polarity, height, width = counts.shape
        parts = indices.shape[-1]
        frames = counts.reshape(bins, -1, parts, polarity, height, width)
        for (way, part), symmetry in np.ndenumerate(symmetries):
            if symmetry:
                mine = slice(way * indices.shape[1], (way + 1) * indices.shape[1])
                frames[:, mine, part] = turn(frames[:, mine, part], int(symmetry))
        beside = side_by_side(frames.reshape(counts.shape), parts)
        return torch.from_numpy(beside.astype(np.float32))
