"""The leak checks: each takes the recordings and splits of one corpus and fails on a leak."""

import hashlib

import numpy as np

from spikeshot.assemble_data import task_space
from spikeshot.data.splits import SPLITS, indices_by_class

EPISODES = 150


def contents(recordings):
    """Return the digest of the events of each recording."""
    return [hashlib.blake2b(recordings[i].tobytes()).digest() for i in range(len(recordings))]


def members(source, name):
    """Return the set of recordings of split `name`."""
    found = indices_by_class(source.recordings, source.split, name)
    return {i for indices in found.values() for i in indices}


def check_disjoint(groups):
    seen = set()
    for group in groups:
        assert group, "an empty split"
        assert not seen & set(group)
        seen |= set(group)


def check_splits(source):
    """Classes, recordings, origins and contents stand in one split each."""
    content = contents(source.recordings)
    check_disjoint(source.split.classes[s] for s in SPLITS)
    check_disjoint(source.split.origins[s] for s in SPLITS)
    check_disjoint(members(source, s) for s in SPLITS)
    check_disjoint({source.recordings.origins[i] for i in members(source, s)} for s in SPLITS)
    check_disjoint({content[i] for i in members(source, s)} for s in SPLITS)


def check_episodes(config, source, name):
    """Support and query share no recording, origin or content, and stay within their split."""
    space = task_space(config, source.recordings, source.split, name)
    content, allowed = contents(source.recordings), members(source, name)
    for index in range(EPISODES):
        plan = space.plan(index)
        assert set(plan.classes) <= set(source.split.classes[name])
        support, query = set(plan.support.flat), set(plan.query.flat)
        assert support | query <= allowed
        for told in (np.arange(len(content)), source.recordings.origins, content):
            assert not {told[i] for i in support} & {told[i] for i in query}
        for row, (label, parts) in enumerate((c, space.classes[c]) for c in plan.classes):
            for rows in (plan.support[row], plan.query[row]):
                seen = source.recordings.labels[rows]
                assert [source.recordings.classes[k] for k in seen[0]] == list(parts), label


def check_halves(config, source, name):
    """Every part of a class varies, and of a pair both halves, independently of each other."""
    space = task_space(config, source.recordings, source.split, name)
    drawn = {"support": {}, "query": {}}
    for index in range(max(6 * EPISODES, 9 * len(space.classes))):
        plan = space.plan(index)
        for way, label in enumerate(plan.classes):
            for kind, found in drawn.items():
                found.setdefault(label, []).extend(getattr(plan, kind)[way].tolist())
    for found in drawn.values():
        assert set(found) == set(source.split.classes[name])
        statistic = freedom = 0.0
        for label, rows in found.items():
            columns = np.array(rows).T
            for column in columns:
                assert len(set(column.tolist())) > 1
            if len(columns) == 2 and len(set(space.classes[label])) == 2:
                one, other = (
                    [space.members[part].index(i) for i in column]
                    for part, column in zip(space.classes[label], columns, strict=True)
                )
                table = np.zeros([len(space.members[p]) for p in space.classes[label]])
                np.add.at(table, (one, other), 1)
                expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
                statistic += ((table - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
                freedom += (table.shape[0] - 1) * (table.shape[1] - 1)
        # Pearson's statistic of independence: mean `freedom`, variance twice that
        assert statistic <= freedom + 5 * np.sqrt(2 * freedom)
