"""Meta-splits: classes and recordings disjoint, seeded, stored, and closed to training."""

from dataclasses import replace

import numpy as np
import pytest

from fakes import PER_DIGIT
from spikeshot.data.class_splits import seeded_classes, shipped_classes
from spikeshot.data.splits import (
    SPLITS,
    MetaSplit,
    indices_by_class,
    origins_by_class,
    split_origins,
)
from spikeshot.errors import DataError

FRACTIONS = (0.64, 0.16, 0.2)


def meta_split(recordings, seed=0, fractions=FRACTIONS):
    return MetaSplit(shipped_classes("double_nmnist"), split_origins(recordings, fractions, seed))


# --- recordings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_origins_are_shared_out_once_each_within_every_class(fake_recordings, seed):
    origins = split_origins(fake_recordings, FRACTIONS, seed)
    everything = [o for s in SPLITS for o in origins[s]]
    assert sorted(everything) == sorted(fake_recordings.origins)
    split = meta_split(fake_recordings, seed)
    split.require_disjoint()
    members = {s: indices_by_class(fake_recordings, split, s) for s in SPLITS}
    for digit in "0123456789":
        sizes = [len(members[s][digit]) for s in SPLITS]
        assert sizes == [9, 2, 3]  # of 14: 0.16 and 0.2 rounded, the rest for training
        assert sum(sizes) == PER_DIGIT
        for s in SPLITS:
            for i in members[s][digit]:
                assert fake_recordings.classes[fake_recordings.labels[i]] == digit
                assert fake_recordings.origins[i] in origins[s]


def test_the_same_seed_splits_the_same_whatever_the_order(fake_recordings):
    backwards = fake_recordings.subset(np.arange(len(fake_recordings))[::-1])
    first = split_origins(fake_recordings, FRACTIONS, 7)
    assert split_origins(backwards, FRACTIONS, 7) == first
    others = [split_origins(fake_recordings, FRACTIONS, seed)["test"] for seed in range(5)]
    assert len(set(others)) == 5


def test_a_class_is_split_alike_whatever_other_classes_there_are(fake_recordings):
    only = fake_recordings.subset(np.flatnonzero(fake_recordings.labels == 4))
    whole, alone = (split_origins(r, FRACTIONS, 1) for r in (fake_recordings, only))
    for s in SPLITS:
        assert alone[s] == whole[s] & frozenset(only.origins)


def test_every_class_is_shuffled_on_its_own(fake_recordings):
    test = split_origins(fake_recordings, FRACTIONS, 0)["test"]
    places = set()
    for digit in range(10):
        members = np.flatnonzero(fake_recordings.labels == digit)
        origins = sorted(fake_recordings.origins[i] for i in members)
        places.add(tuple(i for i, origin in enumerate(origins) if origin in test))
    assert len(places) > 5


@pytest.mark.parametrize("seed", range(3))
def test_recordings_of_plain_classes_go_where_their_class_goes(fake_recordings, seed):
    classes = seeded_classes(fake_recordings.classes, FRACTIONS, seed)
    split = MetaSplit(classes, origins_by_class(fake_recordings, classes))
    split.require_disjoint()
    for s in SPLITS:
        members = indices_by_class(fake_recordings, split, s)
        for digit in "0123456789":  # all 14 or none
            assert len(members[digit]) == (PER_DIGIT if digit in classes[s] else 0)


def test_recordings_of_classes_in_no_split_are_in_none(fake_recordings):
    origins = origins_by_class(fake_recordings, {"train": ["0"], "val": ["1"], "test": ["2"]})
    assert [len(origins[s]) for s in SPLITS] == [PER_DIGIT] * 3


def test_one_thing_recorded_under_two_classes_is_refused_when_they_part(fake_recordings):
    origins = list(fake_recordings.origins)
    for label in (0, 1):
        origins[int(np.argmax(fake_recordings.labels == label))] = "train/99999"
    copied = replace(fake_recordings, origins=tuple(origins))
    classes = {"train": ("0", "1"), "val": ("2",), "test": ("3",)}
    MetaSplit(classes, origins_by_class(copied, classes)).require_disjoint()
    apart = {"train": ("0",), "val": ("1",), "test": ("2",)}
    with pytest.raises(DataError, match="recording of 'train/99999' stands in two splits"):
        MetaSplit(apart, origins_by_class(copied, apart)).require_disjoint()


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.0), (0.5, 0.4, 0.2), (1.2, -0.1, -0.1)])
def test_fractions_that_share_out_more_or_less_than_all_are_refused(fake_recordings, fractions):
    with pytest.raises(DataError, match="expected three positive, summing to 1"):
        split_origins(fake_recordings, fractions, 0)


# --- the split as a whole ------------------------------------------------------------------------


def test_an_origin_never_seen_is_for_test(fake_recordings):
    split = meta_split(fake_recordings)
    for s in SPLITS:
        for origin in split.origins[s]:
            assert split.of_origin(origin) == s
    assert split.of_origin("train/59999") == "test"


def test_training_grows_only_by_origins_that_are_held_out_nowhere(fake_recordings):
    split = meta_split(fake_recordings)
    new = [f"train/{50_000 + i}" for i in range(20)]
    grown = split.with_training([*new, *fake_recordings.origins])
    assert grown.origins["train"] == split.origins["train"] | frozenset(new)
    assert grown.origins["val"] == split.origins["val"]
    assert grown.origins["test"] == split.origins["test"]
    grown.require_disjoint()


def test_a_split_survives_its_json(fake_recordings):
    split = meta_split(fake_recordings)
    assert MetaSplit.from_json(split.to_json()) == split


@pytest.mark.parametrize(
    ("classes", "origins", "message"),
    [
        ([["a"], ["b"], ["c", "a"]], [["1"], ["2"], ["3"]], "class 'a' stands in two splits"),
        ([["a"], ["b"], ["c"]], [["1"], ["2", "1"], ["3"]], "recording of '1' stands in two"),
    ],
)
def test_a_split_that_overlaps_is_refused(classes, origins, message):
    split = MetaSplit(
        {s: tuple(c) for s, c in zip(SPLITS, classes, strict=True)},
        {s: frozenset(o) for s, o in zip(SPLITS, origins, strict=True)},
    )
    with pytest.raises(DataError, match=message):
        split.require_disjoint()
