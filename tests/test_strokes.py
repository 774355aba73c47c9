"""Omniglot's strokes: the reader, the pen before the camera, and turned classes."""

import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import space_of, write_folder, write_zip
from made_corpora import DRAWERS, strokes_files
from spikeshot.assemble_data import load_source
from spikeshot.config import load_config
from spikeshot.data.camera import Camera
from spikeshot.data.corpora import Request, load_corpus
from spikeshot.data.corpora.omniglot import SIDE
from spikeshot.data.corpora.strokes import (
    Writing,
    parse_strokes,
    read_strokes,
    show_writing,
    turn_strokes,
)
from spikeshot.data.pen import SCREEN_CAMERA, Pen, write
from spikeshot.data.recordings import gather_recordings
from spikeshot.data.splits import SPLITS
from spikeshot.errors import ConfigError, DataError

QUIET = Camera(sensor_size=(68, 68), mismatch=0.0, start_spread=0.0, noise_on_hz=0, noise_off_hz=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    raw = {name: content.encode() for name, content in strokes_files().items()}
    return write_folder(tmp_path_factory.mktemp("strokes"), raw)


def line(a, b, ms, at_ms=0, n=30):
    """Return one straight stroke from a to b in `ms` milliseconds, as `write` takes it."""
    share = np.linspace(0, 1, n)[:, None]
    return np.hstack([np.array(a) + share * (np.array(b) - a), (at_ms + share * ms) * 1_000])


def record_writing(writing, seed):
    """Return the recordings of drawings, made now."""
    shown = show_writing(writing, seed)
    return gather_recordings(
        [sample.read() for sample in shown.samples],
        [shown.classes.index(sample.label) for sample in shown.samples],
        shown.classes,
        [sample.origin for sample in shown.samples],
        shown.sensor_size,
    )


def drawn(*strokes, camera=QUIET, pen=None, **more):
    return write(strokes, pen=pen or Pen(), camera=camera, seed=0, **more)


# --- reading -------------------------------------------------------------------------------------


def check(writing):
    assert len(writing.labels) == 10 * DRAWERS
    assert len(set(writing.origins)) == len(writing.origins)
    assert writing.origins[1] == "Balinese/character01/02"
    assert writing.labels[1] == "Balinese/character01"
    first, second = writing.strokes[1]
    np.testing.assert_array_equal(first, [[30, 40, 0], [50, 40, 4e5], [70, 50, 9.005e5]])
    np.testing.assert_array_equal(second, [[30.5, 20, 1.4e6], [30.5, 70, 2e6]])


def test_two_zips_one_zip_and_the_unpacked_folder_are_read_alike(folder, tmp_path):
    """Greek and Latin are in both published zips: here all alphabets are."""
    first = write_zip(tmp_path / "strokes_background_small1.zip", strokes_files(1))
    write_zip(tmp_path / "strokes_background_small2.zip", strokes_files(2))
    for path in (tmp_path, first, folder, folder / "strokes_background_small1"):
        check(read_strokes(path))


def test_what_file_systems_leave_behind_is_passed_over(tmp_path):
    extra = {
        "__MACOSX/strokes_background_small1/Latin/character01/0001_01.txt": "junk",
        "strokes_background_small1/Latin/character01/._0001_01.txt": "junk",
        "strokes_background_small1/.DS_Store": "junk",
    }
    check(read_strokes(write_zip(tmp_path / "a.zip", strokes_files() | extra)))


def test_copies_that_differ_are_refused(tmp_path):
    write_zip(tmp_path / "strokes_background_small1.zip", strokes_files(1))
    changed = {n: content.replace("400", "401") for n, content in strokes_files(2).items()}
    write_zip(tmp_path / "strokes_background_small2.zip", changed)
    with pytest.raises(DataError, match=r"small2/Bal.* and .*small1/Bal.* two versions of one"):
        read_strokes(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "does not begin with START"),
        ("1,2,3\nBREAK", "does not begin with START"),
        ("START\n", "no stroke in it"),
        ("START\nBREAK\n", "no stroke in it"),
        ("START\n1,-2,3\n", "its last stroke has no BREAK"),
        ("START\n1,-2,3\nBREAK\n1,-2\nBREAK", "line 4 is '1,-2'; expected x,y,t"),
        ("START\n1,-2,3,4\nBREAK", "line 2 is '1,-2,3,4'; expected x,y,t"),
        ("START\n1,-2,x\nBREAK", "line 2 is '1,-2,x'; expected x,y,t"),
        ("START\n1,nan,3\nBREAK", "line 2 is '1,nan,3'; expected places within"),
        ("START\n1,-2,inf\nBREAK", "line 2 is '1,-2,inf'; expected places within"),
        ("START\n1,-2,-3\nBREAK", "line 2 is '1,-2,-3'; expected places within"),
        ("START\n1,-2000,3\nBREAK", "line 2 is '1,-2000,3'; expected places within"),
        ("\x00\x01\x02", "does not begin with START"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(tmp_path, content, message):
    name = "strokes_background_small1/Latin/character02/0002_03.txt"
    path = write_zip(tmp_path / "a.zip", strokes_files() | {name: content})
    with pytest.raises(DataError, match=rf"0002_03.txt.*{message}"):
        read_strokes(path)


LINES = st.one_of(
    st.sampled_from(["START", "BREAK", "", "1,-2,3", "1e400,0,0", "-0.0,-0,0", "١,٢,٣", "1_0,2,3"]),
    st.text(max_size=20),
)


@given(st.lists(LINES, max_size=8).map("\n".join) | st.text(max_size=60))
def test_any_text_is_strokes_or_a_clear_error(content):
    for begun in (content, "START\n" + content):
        message = ""
        try:
            strokes = parse_strokes(begun, "a.txt")
        except DataError as error:
            message, strokes = str(error), ()
        assert strokes or message.startswith("a.txt")
        for stroke in strokes:
            assert stroke.shape == (len(stroke), 3)
            assert len(stroke)
            assert np.isfinite(stroke).all()


def test_blank_lines_and_windows_line_ends_do_no_harm():
    plain = parse_strokes("START\n1,-2,3\n2,-3,4\nBREAK\n", "a")
    odd = parse_strokes("START\r\n1,-2,3\r\n\r\n2,-3,4\r\nBREAK\r\nBREAK\r\n", "a")
    assert len(plain) == len(odd) == 1
    np.testing.assert_array_equal(plain[0], odd[0])


def test_missing_strokes_are_named_with_where_to_get_them(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match=r"strokes_background_small1.zip and .*brendenlake/omn"):
            read_strokes(path)
    with pytest.raises(DataError, match=r"--data PATH.*strokes_background_small2.zip"):
        load_corpus("omniglot-strokes", Request())


# --- the pen before the camera -------------------------------------------------------------------


def test_ink_makes_as_many_events_per_length_whatever_way_and_speed():
    """Only changes count: a line of twice the length makes twice the events, at any speed."""
    per_length = [
        len(drawn(line(a, b, ms))) / np.hypot(b[0] - a[0], b[1] - a[1])
        for a, b, ms in [
            ((10, 50), (40, 50), 500),
            ((10, 50), (90, 50), 500),
            ((10, 50), (90, 50), 3_000),
            ((90, 50), (10, 50), 1_000),
            ((50, 15), (50, 95), 1_000),
            ((20, 20), (80, 80), 1_000),
            ((20, 70), (80, 40), 1_000),
        ]
    ]
    mean = np.mean(per_length)
    assert mean > 3
    assert np.abs(np.array(per_length) / mean - 1).max() < 0.15  # ends, and where pixels lie


def test_ink_is_dark_and_stays():
    events = drawn(line((10, 50), (90, 50), 1_000))
    assert (events["p"] == 0).all()
    again = drawn(line((10, 50), (90, 50), 1_000), line((90, 50), (10, 50), 1_000))
    assert len(again) == len(events)  # to go over old ink shows nothing new


def test_events_follow_the_pen_in_place_and_time():
    """From x = 10 to 90 in 2 s: each event near the tip, the tip's time within its radius."""
    pen = Pen()
    events = drawn(line((10, 50), (90, 50), 2_000))
    assert (np.diff(events["t"]) >= 0).all()
    tip = pen.origin[0] + pen.scale * (10 + 80 * np.minimum(events["t"] / 2e6, 1))
    assert np.abs(events["x"] - tip).max() < 4  # half the width, blur, lag and a step
    assert np.abs(events["y"] - (pen.origin[1] + pen.scale * 50)).max() < 4
    assert events["t"][-1] < 2_100_000


def test_the_darkest_ink_is_as_dark_as_the_profile_says():
    """A wide line covers a pixel wholly: ln(paper / ink) / theta_off events, rounded down."""
    events = drawn(line((20, 50), (80, 50), 1_000), pen=Pen(width_px=8.0))
    middle = Pen().origin[0] + Pen().scale * 50
    most = np.sum((events["x"] == round(middle)) & (events["y"] == round(middle)))
    assert most == int(np.log(QUIET.paper / QUIET.ink) / QUIET.theta_off)


def test_nothing_is_written_where_the_pen_is_up():
    gap = drawn(line((10, 30), (40, 30), 500), line((60, 70), (90, 70), 500, at_ms=600))
    pen = Pen()
    left, right = (pen.origin[0] + pen.scale * x for x in (45, 55))
    assert not ((gap["x"] > left) & (gap["x"] < right)).any()


def test_a_pause_is_kept_up_to_the_longest_and_cut_beyond():
    def second_begins(pause_ms):
        stroke = line((10, 70), (90, 70), 500, at_ms=500 + pause_ms)
        events = drawn(line((10, 30), (90, 30), 500), stroke)
        return events["t"][events["y"] > 30].min()

    assert second_begins(800) - second_begins(300) == 500_000
    assert second_begins(300_000) == second_begins(1_000)


def test_times_that_go_back_are_taken_as_no_time():
    stroke = line((10, 50), (90, 50), 1_000)
    stroke[15, 2] = 0
    back = drawn(stroke)
    stroke[15, 2] = stroke[14, 2]
    np.testing.assert_array_equal(back, drawn(stroke))


def test_a_dot_is_seen():
    assert len(drawn(np.array([[50.0, 50.0, 0.0]]))) > 10


def test_an_early_end_leaves_the_events_before_it_as_they_are():
    strokes = line((10, 50), (90, 50), 1_000)
    camera = SCREEN_CAMERA
    whole, part = drawn(strokes, camera=camera), drawn(strokes, camera=camera, until_us=333_333)
    np.testing.assert_array_equal(whole[whole["t"] < 333_333], part)


def test_background_events_come_at_their_rate_where_nothing_is_written():
    """Poisson: 68 * 68 pixels, most of them untouched, 20 Hz, 0.55 s."""
    noisy = Camera(sensor_size=(68, 68), start_spread=0.0, noise_on_hz=15, noise_off_hz=5)
    events = drawn(line((0, 0), (1, 0), 500), camera=noisy)
    far = events[(events["x"] > 15) & (events["y"] > 15)]
    expected = 52 * 52 * 20 * 0.552
    assert len(far) == pytest.approx(expected, abs=5 * expected**0.5)
    assert far["p"].mean() == pytest.approx(0.75, abs=0.02)


def test_a_stroke_without_a_point_is_refused():
    for strokes in ([], [np.empty((0, 3))]):
        with pytest.raises(DataError, match="a stroke without a point"):
            drawn(*strokes)


@pytest.mark.parametrize("field", ["scale", "width_px", "longest_pause_us", "step_us"])
def test_a_pen_that_cannot_write_is_refused(field):
    with pytest.raises(ConfigError, match=f"pen {field} is 0; expected a number above 0"):
        Pen(**{field: 0})


# --- turned, seeded, split -----------------------------------------------------------------------


def test_strokes_turn_as_rot90_turns_their_image():
    """A point at column c, row r of an image goes where np.rot90 takes that pixel."""
    rng = np.random.default_rng(0)
    for quarters in (1, 2, 3):
        for _ in range(5):
            c, r = rng.integers(0, SIDE, 2)
            image = np.zeros((SIDE, SIDE))
            image[r, c] = 1
            ((row, column),) = np.argwhere(np.rot90(image, quarters))
            (point,) = turn_strokes((np.array([[c + 0.5, r + 0.5, 7.0]]),), quarters)
            np.testing.assert_array_equal(point, [[column + 0.5, row + 0.5, 7.0]])


def test_a_turned_drawing_makes_the_same_events_turned():
    """With equal pixels and no noise, but for pixels on the edge of one half or the other."""
    strokes = (line((20, 30), (80, 50), 1_000), line((60, 20), (60, 90), 700, at_ms=1_200))
    upright = drawn(*strokes)
    turned = drawn(*turn_strokes(strokes, 1))
    counts = [np.zeros((68, 68), int) for _ in range(2)]
    for count, events in zip(counts, (upright, turned), strict=True):
        np.add.at(count, (events["y"], events["x"]), 1)
    assert np.abs(np.rot90(counts[0]) - counts[1]).max() <= 1
    assert np.abs(np.rot90(counts[0]) - counts[1]).sum() < 0.02 * len(upright)


def test_a_recording_depends_on_its_strokes_seed_and_name_alone(folder):
    w = read_strokes(folder)

    def some(rows, seed=0):
        picked = (tuple(column[i] for i in rows) for column in (w.strokes, w.labels, w.origins))
        return record_writing(Writing(*picked), seed)

    whole, part = some([0, 5, 9]), some([9, 0])
    np.testing.assert_array_equal(whole[2], part[0])
    np.testing.assert_array_equal(whole[0], part[1])
    assert some([0, 5, 9]).digest == whole.digest != some([0, 5, 9], seed=1).digest


def test_a_run_s_splits_share_no_class_and_no_drawing(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("SPIKESHOT_CACHE", str(tmp_path))
    overrides = ["task.queries=2", "task.ways=3", "train.ways=0", "data.simulated={}"]
    config = load_config("omniglot-strokes-fast", overrides)
    source = load_source(config, folder)
    seen = {}
    for s in SPLITS:
        space = space_of(config, source, s)
        assert {c.split("@")[0] for c in space.classes} == set(source.split.classes[s])
        seen[s] = {space.recordings.origins[i] for c in space.classes for i in space.members[c]}
        episode = space.episode(0)
        assert episode.query.shape == (config.data.bins, 6, 2, 32, 32)
        assert (episode.query.sum((2, 3, 4)) > 0).float().mean() > 0.7  # bins cover the drawing
    assert [len(seen[s]) for s in SPLITS] == [4 * DRAWERS, 3 * DRAWERS, 3 * DRAWERS]
    assert len(set().union(*seen.values())) == 10 * DRAWERS


@pytest.mark.data
def test_the_published_strokes_are_read_and_written(shared_data, tmp_path):
    """Latin, which both zips hold: 26 characters by 20 people, with real times of seconds."""
    for part in (1, 2):
        name = f"strokes_background_small{part}.zip"
        with zipfile.ZipFile(shared_data / "omniglot" / name) as archive:
            some = {n: archive.read(n) for n in archive.namelist() if "/Latin/" in n}
        write_zip(tmp_path / name, some)
    writing = read_strokes(tmp_path)
    assert len(writing.labels) == 26 * 20
    ends_s = [strokes[-1][-1, 2] / 1e6 for strokes in writing.strokes]
    assert 1 < np.median(ends_s) < 5
    picked = Writing(
        *(column[::40] for column in (writing.strokes, writing.labels, writing.origins))
    )
    recordings = record_writing(picked, seed=0)
    lengths = [
        sum(np.hypot(*np.diff(s[:, :2], axis=0).T).sum() for s in strokes)
        for strokes in picked.strokes
    ]
    off = [int((e["p"] == 0).sum()) for e in map(recordings.__getitem__, range(len(recordings)))]
    assert np.corrcoef(lengths, off)[0, 1] > 0.9
