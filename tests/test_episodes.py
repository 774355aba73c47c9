"""Episodes: pure functions of (seed, split, index), with support and query disjoint."""

import numpy as np
import pytest
import torch

from spikeshot.data.augment import Augmentation, turn
from spikeshot.data.class_splits import shipped_classes
from spikeshot.data.episodes import Task, TaskSpace, plan_episode, related_classes
from spikeshot.data.frames import FrameSpec, bin_events
from spikeshot.data.splits import (
    SPLITS,
    MetaSplit,
    indices_by_class,
    split_origins,
)
from spikeshot.errors import DataError

SPEC = FrameSpec((1, 1, 32, 32), 4, dt_us=30_000, bins=3)
LIGHT = Augmentation(shift_px=2, drop=0.1, jitter_us=1000)


@pytest.fixture(scope="module")
def space(fake_recordings):
    """Return a maker of task spaces over the small double N-MNIST."""
    split = MetaSplit(
        shipped_classes("double_nmnist"), split_origins(fake_recordings, (0.5, 0.2, 0.3), 0)
    )

    def make(name="train", *, seed=0, ways=5, shots=1, queries=2, augmentation=None, only=None):
        classes = [c for c in split.classes[name] if only is None or c in only]
        return TaskSpace(
            fake_recordings,
            {c: tuple(c) for c in classes},
            indices_by_class(fake_recordings, split, name),
            split=name,
            seed=seed,
            task=Task(ways, shots, queries),
            spec=SPEC,
            augmentation=augmentation,
        )

    return make


def same(a, b):
    return (
        a.classes == b.classes
        and torch.equal(a.support, b.support)
        and torch.equal(a.query, b.query)
        and torch.equal(a.support_labels, b.support_labels)
        and torch.equal(a.query_labels, b.query_labels)
    )


# --- a pure function of (seed, split, index) -----------------------------------------------------


@pytest.mark.parametrize("augmentation", [None, LIGHT])
def test_an_episode_does_not_depend_on_what_was_drawn_before(space, augmentation):
    one, other = (space(augmentation=augmentation) for _ in range(2))
    forwards = [one.episode(i) for i in range(6)]
    np.random.default_rng(0).random(100)
    torch.manual_seed(1)
    backwards = [other.episode(i) for i in reversed(range(6))][::-1]
    assert all(map(same, forwards, backwards))
    assert not any(same(forwards[0], e) for e in forwards[1:])


@pytest.mark.parametrize("split", SPLITS)
def test_another_seed_gives_other_episodes(space, split):
    for i in range(4):
        assert not same(space(split, seed=1).episode(i), space(split, seed=2).episode(i))


def test_the_splits_draw_from_different_streams(space):
    """The same classes and recordings under three names give three different episodes."""
    plans = []
    for name in SPLITS:
        s = space()
        s.split = name
        plans.append(str([s.plan(i) for i in range(3)]))
    assert len(set(plans)) == 3


def test_drawing_an_episode_leaves_the_global_generators_alone(space):
    torch.manual_seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    space(augmentation=LIGHT).episode(0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


# --- what is in an episode -----------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("shots", "queries"), [(1, 2), (2, 1), (1, 1)])
@pytest.mark.parametrize("only", [None, {"11", "14", "41", "44", "10", "01", "00"}])
def test_support_and_query_share_no_recording(space, split, shots, queries, only):
    """Over the whole episode, also where all classes are made of the same few digits."""
    if only and split != "train":
        only = None
    s = space(split, shots=shots, queries=queries, only=only)
    for i in range(60):
        plan = s.plan(i)
        support, query = set(plan.support.flat), set(plan.query.flat)
        assert not support & query
        held = {m for members in s.members.values() for m in members}
        assert support | query <= held


def test_no_recording_is_twice_in_the_support_while_there_are_enough(space):
    """Five classes of the digits 1 and 4 take at most 5 of the 7 recordings of each."""
    s = space(only={"11", "14", "41", "44", "01", "10"})
    drawn = [s.plan(i) for i in range(40)]
    few = [p for p in drawn if max("".join(p.classes).count(d) for d in "014") <= 5]
    assert len(few) > 20
    for plan in few:
        assert len(set(plan.support.flat)) == plan.support.size


@pytest.mark.parametrize("split", SPLITS)
def test_each_half_is_a_recording_of_its_digit_and_of_its_split(space, fake_recordings, split):
    s = space(split, shots=2, queries=1)
    drawn = set()
    for i in range(30):
        plan = s.plan(i)
        assert len(set(plan.classes)) == 5
        for name, rows in zip(plan.classes, np.hstack([plan.support, plan.query]), strict=True):
            digits = fake_recordings.labels[rows]
            assert (digits == [int(d) for d in name]).all()
            for half in rows.T:  # within a class, no half is seen twice in support or query
                assert len(set(half[:2])) == 2
        drawn |= set(plan.support.flat) | set(plan.query.flat)
    others = [space(o) for o in SPLITS if o != split]
    forbidden = {m for o in others for members in o.members.values() for m in members}
    assert len(drawn) > 20
    assert not drawn & forbidden


def test_classes_and_their_order_vary_over_episodes(space):
    s = space("test")
    drawn = [s.plan(i).classes for i in range(200)]
    counts = {c: sum(c in d for d in drawn) for c in s.classes}
    assert len(counts) == 20
    assert min(counts.values()) > 50 - 5 * 6.2  # binomial(200, 1/4): mean 50, deviation 6.1
    assert max(counts.values()) < 50 + 5 * 6.2
    firsts = {d[0] for d in drawn}
    assert len(firsts) == 20  # no class is tied to a label


@pytest.mark.parametrize("rows", ["support", "query"])
def test_the_two_halves_of_a_pair_vary_independently(space, rows):
    """Every left recording meets every right one: 7 x 7 pairs, about equally often."""
    s = space(ways=2, queries=1, only={"38", "05"})
    left, right = s.members["3"], s.members["8"]
    assert len(left) == len(right) == 7
    table = np.zeros((7, 7), int)
    for i in range(1500):
        plan = s.plan(i)
        a, b = getattr(plan, rows)[plan.classes.index("38"), 0]
        table[left.index(a), right.index(b)] += 1
    expected = 1500 / 49
    chi2 = ((table - expected) ** 2 / expected).sum()
    assert chi2 < 94  # 48 degrees of freedom: exceeded by chance once in 10,000


def test_labels_count_the_classes_in_their_order(space):
    e = space(shots=2, queries=1).episode(3)
    assert e.support_labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert e.query_labels.tolist() == [0, 1, 2, 3, 4]
    assert e.support.shape == (3, 10, 2, 8, 16)
    assert e.query.shape == (3, 5, 2, 8, 16)
    assert e.support.dtype == torch.float32
    assert e.support_labels.dtype == torch.int64


def test_a_double_sample_is_the_left_frames_beside_the_right_frames(space, fake_recordings):
    s = space(shots=2)
    for i in range(3):
        plan, e = s.plan(i), s.episode(i)
        for frames, indices in ((e.support, plan.support), (e.query, plan.query)):
            for n, (left, right) in enumerate(indices.reshape(-1, 2)):
                halves = [bin_events(fake_recordings[k], (34, 34), SPEC) for k in (left, right)]
                np.testing.assert_array_equal(frames[:, n].numpy(), np.concatenate(halves, axis=3))
    assert s.frame_shape == tuple(e.support.shape[2:])


def test_single_classes_have_one_part(fake_recordings):
    members = {str(d): np.flatnonzero(fake_recordings.labels == d).tolist() for d in range(10)}
    s = TaskSpace(
        fake_recordings,
        {str(d): (str(d),) for d in range(10)},
        members,
        split="test",
        seed=0,
        task=Task(10, 3, 11),
        spec=SPEC,
    )
    plan, e = s.plan(0), s.episode(0)
    assert s.frame_shape == (2, 8, 8)
    assert e.query.shape == (3, 110, 2, 8, 8)
    for w, name in enumerate(plan.classes):  # all 14 recordings, each once
        assert sorted([*plan.support[w, :, 0], *plan.query[w, :, 0]]) == members[name]


# --- augmentation --------------------------------------------------------------------------------


def test_without_augmentation_the_frames_of_a_recording_are_always_the_same(space):
    s = space("val", ways=2, only=shipped_classes("double_nmnist")["val"][:2])
    seen = {}
    for i in range(40):
        plan, e = s.plan(i), s.episode(i)
        for pair, frames in zip(plan.query.reshape(-1, 2).tolist(), e.query.unbind(1), strict=True):
            known = seen.setdefault(tuple(pair), frames)
            assert torch.equal(known, frames)
    assert len(seen) <= 18  # 160 draws of 2 classes of 3 x 3 pairs


def test_augmentation_changes_the_frames_not_the_plan(space):
    plain, changed = space(), space(augmentation=LIGHT)
    for i in range(3):
        assert (plain.plan(i).support == changed.plan(i).support).all()
        assert not torch.equal(plain.episode(i).support, changed.episode(i).support)
        assert not torch.equal(plain.episode(i).query, changed.episode(i).query)


def test_events_after_the_last_bin_do_not_matter(space, fake_recordings):
    s = space()
    assert max(s.recordings[i]["t"].max() for i in range(len(s.recordings))) < 90_000
    np.testing.assert_array_equal(
        s.episode(0).support[:, 0].numpy()[..., :8],
        bin_events(fake_recordings[s.plan(0).support[0, 0, 0]], (34, 34), SPEC),
    )


# --- what cannot be drawn ------------------------------------------------------------------------


def test_too_few_recordings_name_class_need_and_have(space):
    with pytest.raises(
        DataError,
        match=r"class '0' has 4 recordings in split test; shots=3 and queries=2 need 5. Lower",
    ):
        space("test", shots=3, queries=2)
    space("test", shots=3, queries=1)  # just enough


def test_too_few_classes_name_split_need_and_have(space):
    with pytest.raises(
        DataError, match=r"split val has 16 classes, fewer than ways=17. Lower task"
    ):
        space("val", ways=17)
    space("val", ways=16)


def test_a_class_without_recordings_is_refused(fake_recordings):
    with pytest.raises(DataError, match="class 'x' has 0 recordings in split train"):
        TaskSpace(
            fake_recordings,
            {"a": ("x",), "b": ("0",)},
            {"0": list(range(14))},
            split="train",
            seed=0,
            task=Task(2, 1, 1),
            spec=SPEC,
        )


def test_the_smallest_classes_still_give_disjoint_plans():
    """Two recordings per part, 1 shot, 1 query, every class made of both parts."""
    classes = {"ab": ("a", "b"), "ba": ("b", "a"), "aa": ("a", "a"), "bb": ("b", "b")}
    members = {"a": [0, 1], "b": [2, 3]}
    for seed in range(50):
        plan = plan_episode(classes, members, Task(4, 1, 1), np.random.default_rng(seed))
        assert not set(plan.support.flat) & set(plan.query.flat)


def test_symmetry_turns_support_and_query_of_a_class_alike(space):
    """Every part of every class is some symmetry of what it is without, the same in both sets."""
    plain, turned = space(), space(augmentation=Augmentation(symmetry=0.7))
    symmetries = set()
    for index in range(12):
        a, b = plain.episode(index), turned.episode(index)
        half = a.support.shape[-1] // 2
        for way in range(5):
            for part in (slice(0, half), slice(half, 2 * half)):
                options = [
                    s
                    for s in range(8)
                    if all(
                        torch.equal(
                            torch.from_numpy(turn(x[:, n][..., part].numpy(), s).copy()),
                            y[:, n][..., part],
                        )
                        for x, y, n in (
                            (a.support, b.support, a.support_labels == way),
                            (a.query, b.query, a.query_labels == way),
                        )
                    )
                ]
                assert len(options) == 1
                symmetries.add(options[0])
    assert symmetries == set(range(8))


def test_the_eight_symmetries_of_the_square_are_all_different_and_undone_by_one_another():
    picture = np.arange(9, dtype=np.int32).reshape(3, 3)
    seen = {turn(picture, s).tobytes() for s in range(8)}
    assert len(seen) == 8
    assert np.array_equal(turn(picture, 0), picture)
    for s in range(8):
        assert picture.tobytes() in {turn(turn(picture, s), back).tobytes() for back in range(8)}
    oblong = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert {turn(oblong, s).shape for s in range(8)} == {(2, 3)}


def test_related_classes_share_a_part_with_one_chosen_before():
    parts = {c: tuple(c) for c in ("12", "34", "56", "14", "98", "36", "21")}
    chosen = related_classes(parts, list(parts), 4)
    assert chosen == ["12", "14", "34", "36"]  # by 1_, then by _4, then by 3_; 21 shares no place
    assert related_classes(parts, ["98", "12", "56"], 3) == ["98", "12", "56"]  # nothing shared


def test_plain_classes_are_related_within_a_folder_and_a_turn():
    names = ["Latin/a", "Greek/a", "Latin/b@90", "Greek/b", "Latin/c", "loose", "Latin/d@90"]
    plain = {name: (name,) for name in names}
    assert related_classes(plain, names, 3) == [
        "Latin/a",
        "Latin/c",
        "Greek/a",
    ]  # then none is left
    assert related_classes(plain, ["Latin/d@90", *names], 2) == ["Latin/d@90", "Latin/b@90"]
    assert related_classes(plain, ["loose", "Greek/a"], 2) == ["loose", "Greek/a"]
    assert related_classes({c: (c,) for c in "abc"}, ["b", "a", "c"], 2) == ["b", "a"]  # no folders


def test_overlap_is_the_share_of_episodes_whose_classes_are_related(space):
    def related(episode):
        first, *rest = episode.classes
        seen = [first]
        for name in rest:
            if not any(a == b for d in seen for a, b in zip(name, d, strict=True)):
                return False
            seen.append(name)
        return True

    shares = {}
    for overlap in (0.0, 0.5, 1.0):
        drawn = space()
        drawn.overlap = overlap
        shares[overlap] = np.mean([related(drawn.plan(i)) for i in range(200)])
    assert shares[0.0] < 0.3
    assert shares[1.0] > 0.95
    assert shares[0.5] == pytest.approx((shares[0.0] + shares[1.0]) / 2, abs=0.15)


# --- drawers -------------------------------------------------------------------------------------


def drawn_by(counts, task, seeds=60):
    """Return plans over classes whose drawers made `counts[class][drawer]` recordings each."""
    drawers, members = [], {}
    for name, row in counts.items():
        members[name] = list(range(len(drawers), len(drawers) + sum(row)))
        drawers += [str(d) for d, n in enumerate(row) for _ in range(n)]
    classes = {name: (name,) for name in counts}
    plans = (
        plan_episode(classes, members, task, np.random.default_rng(s), drawers=drawers)
        for s in range(seeds)
    )
    return [
        tuple({drawers[i] for i in indices.flat} for indices in (p.support, p.query)) for p in plans
    ]


@pytest.mark.parametrize(
    ("counts", "shots", "queries"),
    [
        ({c: [1] * 20 for c in "abcdefg"}, 1, 19),
        ({c: [1] * 20 for c in "abcdefg"}, 5, 15),
        ({"a": [1, 0, 1, 1, 1, 1], "b": [0, 1, 1, 1, 1, 1], "c": [2, 3, 1, 0, 2, 2]}, 1, 2),
    ],
)
def test_no_drawer_is_in_support_and_query(counts, shots, queries):
    firsts = set()
    for support, query in drawn_by(counts, Task(3, shots, queries)):
        assert not support & query
        firsts |= support
    assert len(firsts) > 4  # not always the same


def test_without_drawers_one_may_be_in_both():
    members = {c: range(20 * i, 20 * i + 20) for i, c in enumerate("abc")}
    both = 0
    for seed in range(30):
        plan = plan_episode(
            {c: (c,) for c in "abc"}, members, Task(3, 1, 10), np.random.default_rng(seed)
        )
        both += bool(set((plan.support % 20).flat) & set((plan.query % 20).flat))
    assert both > 10


def test_too_few_drawers_are_an_error():
    with pytest.raises(
        DataError, match=r"class '[abc]' has recordings by [13] drawers, .*data.by_drawer=false"
    ):
        drawn_by({"a": [2, 2, 2], "b": [6, 0, 0], "c": [2, 2, 2]}, Task(3, 1, 2))
