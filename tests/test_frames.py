"""Frames: binning against a loop over the events; none inside the window is lost or doubled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeshot.data.augment import Augmentation
from spikeshot.data.events import crop, downsample, make_events
from spikeshot.data.frames import FrameSpec, bin_events, bin_recordings
from spikeshot.data.recordings import gather_recordings, join
from spikeshot.errors import ConfigError, DataError

SENSOR = (12, 9)  # (width, height)
EVENT = st.tuples(
    st.integers(0, SENSOR[0] - 1),
    st.integers(0, SENSOR[1] - 1),
    st.integers(0, 400),
    st.integers(0, 1),
)
RECORDING = st.lists(EVENT, min_size=1, max_size=60).map(
    lambda rows: sorted(rows, key=lambda r: r[2])
)


@st.composite
def specs(draw):
    left, top = draw(st.integers(0, SENSOR[0] - 1)), draw(st.integers(0, SENSOR[1] - 1))
    width = draw(st.integers(1, SENSOR[0] - left))
    height = draw(st.integers(1, SENSOR[1] - top))
    window = draw(st.sampled_from([None, (left, top, width, height)]))
    side = min(window[2:]) if window else min(SENSOR)
    return FrameSpec(
        window,
        downsample=draw(st.integers(1, side)),
        dt_us=draw(st.integers(1, 150)),
        bins=draw(st.integers(1, 6)),
        start_us=draw(st.integers(0, 200)),
        clip=draw(st.sampled_from([0, 0, 1, 3])),
    )


def count_by_loop(rows, spec):
    """The definition, event by event: bin [start + i dt, start + (i + 1) dt), whole pixels only."""
    left, top, width, height = spec.crop or (0, 0, *SENSOR)
    frames = np.zeros((spec.bins, 2, height // spec.downsample, width // spec.downsample), int)
    for x, y, t, p in rows:
        for i in range(spec.bins):
            begin = spec.start_us + i * spec.dt_us
            column, row = (x - left) // spec.downsample, (y - top) // spec.downsample
            on_frame = x >= left and y >= top and row < frames.shape[2] and column < frames.shape[3]
            if begin <= t < begin + spec.dt_us and on_frame:
                frames[i, p, row, column] += 1
    return np.minimum(frames, spec.clip) if spec.clip else frames


def events_of(rows):
    return make_events(*zip(*rows, strict=True))


def recordings_of(samples):
    names = [f"r{i}" for i in range(len(samples))]
    return gather_recordings(
        [events_of(s) for s in samples], [0] * len(samples), "0", names, SENSOR
    )


@given(RECORDING, specs())
@settings(max_examples=200)
def test_each_event_lands_where_the_loop_puts_it(rows, spec):
    frames = bin_events(events_of(rows), SENSOR, spec)
    np.testing.assert_array_equal(frames, count_by_loop(rows, spec))
    assert spec.frame_size(SENSOR) == (frames.shape[3], frames.shape[2])


@given(RECORDING, st.integers(1, 5), st.integers(1, 120), st.integers(0, 100))
def test_no_event_in_the_window_is_lost_or_doubled(rows, bins, dt_us, start_us):
    spec = FrameSpec(dt_us=dt_us, bins=bins, start_us=start_us)
    inside = sum(start_us <= t < start_us + bins * dt_us for _, _, t, _ in rows)
    assert bin_events(events_of(rows), SENSOR, spec).sum() == inside


def test_a_thousand_events_in_one_pixel_are_a_thousand():
    rows = [(3, 4, t, 1) for t in range(1000)]
    frames = bin_events(events_of(rows), SENSOR, FrameSpec(dt_us=1000, bins=1))
    assert frames.max() == frames.sum() == 1000
    clipped = bin_events(events_of(rows), SENSOR, FrameSpec(dt_us=1000, bins=1, clip=255))
    assert clipped.max() == clipped.sum() == 255


@given(RECORDING, st.integers(1, 3))
def test_binning_a_cropped_coarse_recording_is_binning_with_that_crop(rows, factor):
    window = (2, 1, 9, 6)  # both sides whole multiples of 1, 2 (height) and 3
    spec = FrameSpec(window, factor, dt_us=100, bins=4)
    moved = downsample(crop(events_of(rows), *window), factor)
    size = spec.frame_size(SENSOR)
    inside = moved[(moved["x"] < size[0]) & (moved["y"] < size[1])]
    plain = FrameSpec(dt_us=100, bins=4)
    np.testing.assert_array_equal(
        bin_events(events_of(rows), SENSOR, spec), bin_events(inside, size, plain)
    )


@given(st.lists(RECORDING, min_size=1, max_size=4), st.data())
@settings(max_examples=50)
def test_a_batch_is_its_recordings_one_by_one(samples, data):
    spec = data.draw(specs())
    pick = data.draw(st.lists(st.integers(0, len(samples) - 1), min_size=1, max_size=6))
    batch = bin_recordings(recordings_of(samples), pick, spec)
    assert batch.shape[:3] == (spec.bins, len(pick), 2)
    for place, i in enumerate(pick):
        np.testing.assert_array_equal(batch[:, place], count_by_loop(samples[i], spec))


@given(st.lists(RECORDING, min_size=1, max_size=4), st.integers(0, 401))
def test_before_keeps_the_events_before_a_time(samples, t_us):
    recordings = recordings_of(samples)
    short = recordings.before(t_us)
    for i, rows in enumerate(samples):
        assert [tuple(e) for e in short[i].tolist()] == [row for row in rows if row[2] < t_us]
    assert (short.labels, short.origins) == (recordings.labels, recordings.origins)


@given(st.lists(RECORDING, min_size=1, max_size=4), st.data())
def test_a_subset_holds_those_recordings_in_that_order(samples, data):
    pick = data.draw(st.lists(st.integers(0, len(samples) - 1), max_size=5))
    some = recordings_of(samples).subset(np.array(pick, np.int64))
    assert [some[k].tolist() for k in range(len(pick))] == [samples[i] for i in pick]
    assert some.origins == tuple(f"r{i}" for i in pick)


def test_the_digest_tells_recordings_apart():
    a = recordings_of([[(1, 1, 1, 1)], [(2, 2, 2, 0)]])
    same = recordings_of([[(1, 1, 1, 1)], [(2, 2, 2, 0)]])
    moved = recordings_of([[(1, 1, 1, 1), (2, 2, 2, 0)], [(2, 2, 2, 0)]])
    other = recordings_of([[(1, 1, 1, 1)], [(2, 2, 2, 1)]])
    assert a.digest == same.digest
    assert len({a.digest, moved.digest, other.digest}) == 3


@pytest.mark.parametrize(
    "window", [(-1, 0, 5, 5), (0, 0, 13, 5), (8, 0, 5, 5), (0, 5, 5, 5), (0, 0, 0, 1)]
)
def test_a_crop_that_leaves_the_sensor_is_refused(window):
    with pytest.raises(ConfigError, match=r"leaves the 12x9 sensor; expected"):
        FrameSpec(window).frame_size(SENSOR)


@pytest.mark.parametrize("factor", [0, 10])
def test_a_downsampling_that_leaves_no_pixel_is_refused(factor):
    with pytest.raises(ConfigError, match=f"downsample is {factor}; expected 1 to 9"):
        FrameSpec(downsample=factor).frame_size(SENSOR)


# --- augmentation --------------------------------------------------------------------------------


def augmented(samples, seed=0, **amounts):
    recordings = recordings_of(samples)
    owner = np.repeat(np.arange(len(samples)), np.diff(recordings.offsets))
    rng = np.random.default_rng(seed)
    return Augmentation(**amounts).apply(recordings.events, owner, len(samples), SENSOR, rng)


@given(st.lists(RECORDING, min_size=1, max_size=3))
def test_no_augmentation_changes_nothing(samples):
    events, owner = augmented(samples)
    assert events.tolist() == [row for rows in samples for row in rows]
    assert owner.tolist() == [i for i, rows in enumerate(samples) for _ in rows]


@given(st.integers(0, 1000))
def test_a_shift_moves_a_whole_recording_by_one_step_within_its_bound(seed):
    rows = [(x, y, 10 * x + y, 1) for x in range(4, 7) for y in range(4, 6)]
    events, owner = augmented([rows, rows], seed, shift_px=2)
    steps = []
    for i in range(2):
        mine = events[owner == i]
        moves = {(int(e["x"]) - t // 10, int(e["y"]) - t % 10) for e in mine for t in [int(e["t"])]}
        assert len(mine) == 6
        assert len(moves) == 1  # one shift per recording
        steps.append(moves.pop())
    assert all(abs(dx) <= 2 and abs(dy) <= 2 for dx, dy in steps)


def test_shifts_reach_both_bounds_and_differ_between_recordings():
    rows = [(5, 4, 0, 1)]
    events, _ = augmented([rows] * 400, shift_px=2)
    assert set(events["x"].tolist()) == {3, 4, 5, 6, 7}
    assert set(events["y"].tolist()) == {2, 3, 4, 5, 6}


def test_a_rotation_keeps_the_centre_and_turns_by_its_angle():
    """About the centre (5.5, 4) a point at distance 4 moves to 4 (cos a, sin a), |a| <= 90."""
    events, _ = augmented([[(10, 4, 0, 1)]] * 300, rotate_deg=90)
    x, y = events["x"] - 5.5, events["y"] - 4.0
    assert np.abs(np.hypot(x, y) - 4.5).max() < 0.75  # rounding to whole pixels
    assert y.max() == 4
    assert y.min() == -4
    assert x.min() >= -0.5


def test_events_that_leave_the_sensor_are_dropped():
    corner = [(0, 0, 0, 1)]
    events, owner = augmented([corner] * 200, shift_px=3)
    assert 10 < len(events) < 190
    assert len(owner) == len(events)


def test_drop_takes_a_share_between_nothing_and_its_bound():
    rows = [(5, 4, t, 1) for t in range(2000)]
    _, owner = augmented([rows] * 40, drop=0.4)
    kept = np.bincount(owner) / 2000
    assert kept.min() > 0.6 - 0.05  # five standard deviations of a binomial share
    assert kept.max() > 0.9  # each recording draws its own share
    assert kept.min() < 0.7


def test_jitter_has_the_given_standard_deviation_and_stays_positive():
    rows = [(5, 4, 100_000, 1)] * 4000
    events, _ = augmented([rows], jitter_us=1000)
    assert np.std(events["t"]) == pytest.approx(1000, rel=0.06)
    early, _ = augmented([[(5, 4, 0, 1)] * 100], jitter_us=1000)
    assert early["t"].min() == 0


# --- stretched in time ---------------------------------------------------------------------------


@given(st.lists(RECORDING, min_size=1, max_size=4), st.integers(1, 6), st.integers(1, 150))
def test_stretched_bins_cover_every_recording_whole(samples, bins, dt_us):
    """Against bins worked out in whole numbers: the share of the time from first to last event."""
    recordings = gather_recordings(
        [events_of(s) for s in samples],
        [0] * len(samples),
        ("a",),
        [str(i) for i in range(len(samples))],
        SENSOR,
    )
    spec = FrameSpec(dt_us=dt_us, bins=bins, start_us=7, stretch=True)
    frames = bin_recordings(recordings, range(len(samples)), spec)
    for i, rows in enumerate(samples):
        first, length = rows[0][2], rows[-1][2] - rows[0][2] + 1
        expected = np.zeros((bins, 2, SENSOR[1], SENSOR[0]), int)
        for x, y, t, p in rows:
            stretched = (t - first) * bins * dt_us // length
            expected[stretched // dt_us, p, y, x] += 1
        np.testing.assert_array_equal(frames[:, i], expected)
        np.testing.assert_array_equal(bin_events(recordings[i], SENSOR, spec), expected)


def test_stretching_bears_the_longest_times_there_are():
    events = make_events([0, 1], [0, 0], [0, 2**62], [0, 1])
    frames = bin_events(events, SENSOR, FrameSpec(dt_us=10_000_000, bins=10_000, stretch=True))
    assert frames[0, 0, 0, 0] == frames[-1, 1, 0, 1] == 1


# --- two sets of recordings ----------------------------------------------------------------------


def test_joined_recordings_are_the_first_and_then_the_second():
    a = gather_recordings([events_of([(0, 0, 1, 1)])] * 2, [0, 1], ("a", "b"), ["1", "2"], SENSOR)
    b = gather_recordings([events_of([(1, 1, 2, 0)])] * 2, [1, 0], ("c", "b"), ["3", "4"], SENSOR)
    both = join(a, b)
    assert [both.classes[label] for label in both.labels] == ["a", "b", "b", "c"]
    assert both.origins == ("1", "2", "3", "4")
    for i in range(4):
        np.testing.assert_array_equal(both[i], (a, b)[i // 2][i % 2])
    assert np.shares_memory(both[0], a.events)  # views: nothing is copied
    assert np.shares_memory(both[3], b.events)


def test_frames_of_joined_recordings_are_those_of_their_parts():
    rng = np.random.default_rng(0)
    a, b, c = (
        gather_recordings(
            [
                events_of(sorted([(0, 1, int(t), 1) for t in rng.integers(0, 5_000, n)]))
                for n in (3, 1, 7)
            ],
            [0, 1, 0],
            ("a", "b"),
            ["1", "2", "3"],
            SENSOR,
        )
        for _ in range(3)
    )
    parts = (a, b, c.subset(np.array([2, 0])))
    for early in (False, True):
        cut = [p.before(2_000) if early else p for p in parts]
        both = join(cut[0], join(cut[1], cut[2]))
        order = np.array([7, 0, 4, 1, 5, 6, 2, 3])
        spec = FrameSpec(bins=5, dt_us=1_000)
        whole = np.concatenate([bin_recordings(p, range(len(p)), spec) for p in cut], axis=1)
        np.testing.assert_array_equal(bin_recordings(both, order, spec), whole[:, order])


def test_recordings_that_end_at_other_times_do_not_join():
    a = gather_recordings([], [], ("a",), [], SENSOR)
    with pytest.raises(DataError, match="recordings of ends None and 5; expected the same"):
        join(a, a.before(5))


def test_recordings_of_other_sensors_do_not_join():
    a, b = (gather_recordings([], [], ("a",), [], sensor) for sensor in (SENSOR, (34, 34)))
    with pytest.raises(DataError, match=r"of sensors .* expected the same"):
        join(a, b)
