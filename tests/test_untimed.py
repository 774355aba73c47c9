"""Omniglot's strokes without time: the reader, place and time, and meta-training."""

import io
import zipfile

import numpy as np
import pytest

from fakes import write_zip
from made_corpora import (
    ALPHABETS,
    DRAWERS,
    MORE,
    omniglot_files,
    strokes_files,
    untimed_arrays,
)
from spikeshot.assemble_data import is_simulated, load_source
from spikeshot.config import load_config
from spikeshot.data.corpora import Request, load_corpus, untimed
from spikeshot.data.corpora.omniglot import read_drawings
from spikeshot.data.corpora.strokes import read_strokes
from spikeshot.data.corpora.untimed import (
    FILE,
    INK_MARGINS,
    PAUSE,
    SPEED,
    Untimed,
    read_untimed,
    read_writing,
    time_strokes,
)
from spikeshot.data.splits import MetaSplit, free_classes
from spikeshot.errors import ConfigError, DataError
from spikeshot.jobs import _task_spaces

ALL = ALPHABETS | MORE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Timed strokes of three alphabets, untimed ones of five, and the images of these."""
    place = tmp_path_factory.mktemp("untimed")
    np.savez(place / FILE, **untimed_arrays(ALL))
    write_zip(place / "images_background.zip", omniglot_files(ALL))
    write_zip(place / "strokes_background_small1.zip", strokes_files())
    return place


def untimed_of(*drawings):
    """Return drawings given as lists of strokes, each a list of points."""
    rows = []
    for strokes in drawings:
        points = np.array([p for s in strokes for p in s], float)
        lifted = np.concatenate([[*[0] * (len(s) - 1), 1] for s in strokes])
        steps = np.diff(points, axis=0, prepend=points[:1])
        rows.append(np.column_stack([steps, lifted]))
    origins = tuple(f"A/character01/{i:04d}" for i in range(len(drawings)))
    return Untimed(np.concatenate(rows), np.cumsum([0, *map(len, rows)]), origins)


def boxes(drawings, box=(20, 20, 80, 80)):
    return dict.fromkeys(drawings.origins, box)


SQUARE = [[(0, 0), (7, 0), (7, 7)], [(0, 7), (0, 0)]]


# --- place and time ------------------------------------------------------------------------------


def test_the_strokes_lie_in_their_ink():
    """A square of side 7 in a square of ink: its corners are the ink's less the margins."""
    left, top, right, bottom = np.array([20, 30, 80, 90]) + INK_MARGINS * np.array([1, 1, -1, -1])
    square = untimed_of(SQUARE)
    ((first, second),) = time_strokes(square, boxes(square, (20, 30, 80, 90)), 0).strokes
    side = (right - left + bottom - top) / 2
    x, y = (left + right - side) / 2, (top + bottom - side) / 2
    np.testing.assert_allclose(first[:, :2], [[x, y], [x + side, y], [x + side, y + side]])
    np.testing.assert_allclose(second[:, :2], [[x, y + side], [x, y]])


@pytest.mark.parametrize("strokes", [[[(3, 3)]], [[(0, 0), (5, 0)]], [[(2, 2), (2, 2)]]])
def test_a_dot_or_a_straight_line_keeps_its_shape_and_its_middle(strokes):
    drawing = untimed_of(strokes)
    ((points,),) = time_strokes(drawing, boxes(drawing, (50, 50, 53, 54)), 0).strokes
    assert np.isfinite(points).all()
    middle = (np.array([50, 50]) + INK_MARGINS[:2] + [53, 54] - INK_MARGINS[2:]) / 2
    np.testing.assert_allclose((points[0] + points[-1])[:2] / 2, middle)
    assert len(set(points[:, 1])) == 1 or len(set(points[:, 0])) == 1


def test_speed_is_one_per_drawing_and_both_it_and_pauses_are_log_normal():
    """Mean and deviation of 4,000 logarithms, within five standard errors."""
    n = 4_000
    many = untimed_of(*[SQUARE] * n)
    speeds, pauses = [], []
    for first, second in time_strokes(many, boxes(many), 3).strokes:
        steps = [np.diff(stroke, axis=0) for stroke in (first, second)]
        each = np.concatenate([np.hypot(s[:, 0], s[:, 1]) / s[:, 2] * 1e6 for s in steps])
        assert np.ptp(each) < 1e-6 * each.mean()
        speeds.append(each[0])
        pauses.append((second[0, 2] - first[-1, 2]) / 1e6)
        assert first[0, 2] == 0
    for found, (median, deviation) in ((speeds, SPEED), (pauses, PAUSE)):
        logs = np.log(found)
        assert logs.mean() == pytest.approx(np.log(median), abs=5 * deviation / n**0.5)
        assert logs.std() == pytest.approx(deviation, abs=5 * deviation / (2 * n) ** 0.5)
    assert abs(np.corrcoef(np.log(speeds), np.log(pauses))[0, 1]) < 5 / n**0.5


def test_a_drawing_depends_on_itself_its_origin_and_the_seed_alone():
    many = untimed_of(SQUARE, SQUARE, SQUARE)
    third = Untimed(many.rows[10:], np.array([0, 5]), many.origins[2:])
    whole = time_strokes(many, boxes(many), 0).strokes
    (alone,) = time_strokes(third, boxes(many), 0).strokes
    for a, b in zip(whole[2], alone, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(whole[0][0], whole[1][0])  # another origin
    assert not np.array_equal(whole[0][0], time_strokes(many, boxes(many), 1).strokes[0][0])


def test_the_file_is_read_with_the_origins_of_the_timed_strokes(folder):
    writing, timed = read_writing(folder, 0), read_strokes(folder)
    assert len(writing.strokes) == len(set(writing.origins)) == 16 * DRAWERS
    assert set(timed.origins) < set(writing.origins)
    assert list(writing.origins) == sorted(writing.origins)
    assert writing.labels[0] == "Balinese/character01"
    assert read_writing(folder / FILE, 0).origins == writing.origins
    for strokes in writing.strokes:
        assert [len(stroke) for stroke in strokes] == [3, 2]


# --- wrong files ---------------------------------------------------------------------------------


def changed(**arrays):
    return {**untimed_arrays({"Greek": 1}), **arrays}


ROWS = untimed_arrays({"Greek": 1})["stroke3"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"stroke3": ROWS[:, :2]}, r"stroke3 is int16 \(20, 2\); expected rows of 3"),
        ({"stroke3": ROWS.astype("U4")}, "stroke3 is <U4"),
        ({"stroke3": ROWS + np.nan}, "a number beyond a million, or none"),
        ({"stroke3": ROWS.astype(float) * 1e7}, "a number beyond a million"),
        ({"stroke3": ROWS * 2}, "third column of stroke3 is not 0 or 1"),
        ({"stroke3": ROWS.astype(object)}, "Object arrays cannot be loaded"),
        ({"offsets": np.array([0, 5, 10, 15, 21])}, "do not cut the 20 rows"),
        ({"offsets": np.array([0, 5, 5, 15, 20])}, "do not cut the 20 rows"),
        ({"offsets": np.array([0, 15, 10, 15, 20])}, "do not cut the 20 rows"),
        ({"offsets": np.array([0, 20])}, "do not fit"),
        ({"offsets": np.zeros(0, int)}, "do not fit"),
        ({"offsets": np.array([0.0, 20.0])}, "no row of whole numbers"),
        ({"image": np.arange(4)}, "no row of names"),
        ({"image": np.array(["a/b"] * 4)}, "'a/b' is not <alphabet>/character"),
        ({"image": np.array(["../a/character01/0001_01"] * 4)}, "is not <alphabet>/character"),
        ({"image": np.array(["a/character01/0001_01"] * 4)}, "one drawing is there twice"),
    ],
)
def test_wrong_arrays_are_refused_with_what_is_wrong(tmp_path, arrays, message):
    np.savez(tmp_path / FILE, **changed(**arrays))
    with pytest.raises(DataError, match=rf"{FILE}: cannot be read \(.*{message}"):
        read_untimed(tmp_path / FILE)


def test_what_is_no_such_archive_is_refused(tmp_path):
    whole = io.BytesIO()
    np.savez(whole, **changed())
    without = io.BytesIO()
    np.savez(without, stroke3=ROWS)
    raw = whole.getvalue()
    for content in (b"", b"junk", raw[:-30], raw[:200], without.getvalue()):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            read_untimed(tmp_path / FILE)


def test_an_array_that_expands_by_too_much_is_not_expanded(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / FILE, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("stroke3.npy", bytes(200_000))
    monkeypatch.setattr(untimed, "MAX_BYTES", 100_000)
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(DataError, match=r"stroke3.npy has 200000 bytes"):
        read_untimed(tmp_path / FILE)


def test_missing_files_are_named_with_whence_and_how_to_do_without(tmp_path, folder):
    with pytest.raises(DataError, match=r"no such file. .*hardmaru/sketch-rnn-.*simulated={}"):
        load_corpus("omniglot-untimed", Request(tmp_path))
    np.savez(tmp_path / FILE, **untimed_arrays(ALL))
    with pytest.raises(DataError, match=r"images_background.zip from .*brendenlake"):
        load_corpus("omniglot-untimed", Request(tmp_path))
    write_zip(tmp_path / "images_background.zip", omniglot_files())
    with pytest.raises(DataError, match=r"Braille/character01/01 \(24 in all\) is missing"):
        load_corpus("omniglot-untimed", Request(tmp_path))
    with pytest.raises(DataError, match=r"--data PATH.*sketch-rnn-datasets"):
        load_corpus("omniglot-untimed", Request())


# --- meta-training -------------------------------------------------------------------------------


def config(*overrides):
    small = ["task.queries=2", "task.ways=3", "train.ways=0", "train.queries=0", *overrides]
    return load_config("omniglot-strokes-fast", small)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKESHOT_CACHE", str(tmp_path / "cache"))


def test_nothing_of_an_alphabet_held_out_is_among_the_simulated(folder, cache):
    """Balinese is for validation and Tagalog for test: none of their classes, none of their
    drawings, turned or not, and all else."""
    cfg = config()
    heard = []
    source = load_source(cfg, folder, lambda done, total: heard.append((done, total)))
    upright = {f"{a}/character{c:02d}" for a in ("Latin", *MORE) for c in range(1, ALL[a] + 1)}
    turned = {f"{name}@{angle}" for name in upright for angle in (90, 180, 270)}
    assert set(source.simulated_classes) == upright | turned
    space = _task_spaces(cfg, source)["simulated"]
    assert set(space.classes) == upright | turned
    drawn = [i for members in space.members.values() for i in members]
    assert len(drawn) == len(set(drawn)) == len(source.simulated) == 4 * 10 * DRAWERS
    shown = {source.simulated.origins[i] for i in drawn}
    held = source.split.origins["val"] | source.split.origins["test"]
    assert len(held) == 6 * DRAWERS
    assert not shown & held
    assert shown <= source.split.origins["train"]
    assert {o.split("/")[0] for o in shown} == {"Latin", *MORE}
    source.split.require_disjoint()
    for name in space.classes:
        labels = {source.simulated.labels[i] for i in space.members[name]}
        assert {source.simulated.classes[k] for k in labels} == {name}
    contents = {source.simulated[i].tobytes() for i in range(len(source.simulated))}
    contents |= {source.training[i].tobytes() for i in range(len(source.training))}
    assert len(contents) == len(source.simulated) + len(source.training)
    assert (16 * DRAWERS, 16 * DRAWERS) in heard  # packing tells how far it is
    episode = space.episode(0)
    assert episode.query.shape == (cfg.data.bins, 6, 2, 32, 32)


def test_the_digest_is_of_upright_and_turned_recordings(folder, cache):
    cfg = config()
    upright = load_corpus("omniglot-untimed", Request(folder, cfg.seed, None))
    source = load_source(cfg, folder)
    names = frozenset(n for n in source.simulated_classes if "@" not in n)
    turned = load_corpus("omniglot-untimed", Request(folder, cfg.seed, None, names))
    assert source.simulated_digest == f"{upright.digest}+{turned.digest}"
    assert load_source(config("data.turns=false"), folder).simulated_digest == upright.digest
    assert load_source(config("data.simulated={}"), folder).simulated_digest == ""


def test_without_turns_there_are_no_turned_classes(folder, cache):
    source = load_source(config("data.turns=false"), folder)
    assert len(source.simulated_classes) == 10
    assert len(source.simulated) == 10 * DRAWERS


def test_another_split_holds_out_other_alphabets(folder, cache, tmp_path):
    file = tmp_path / "split.json"
    file.write_text('{"train": ["Balinese"], "val": ["Latin/character02"], "test": ["Tagalog"]}')
    source = load_source(config(f"data.split={file}", "data.turns=false"), folder)
    assert {c.split("/")[0] for c in source.simulated_classes} == {"Balinese", *MORE}


def test_free_classes_are_those_of_enough_recordings_that_nothing_held_out_touches():
    split = MetaSplit(
        {"train": ("A/1",), "val": ("B/1",), "test": ("7",)},
        {"train": frozenset("a"), "val": frozenset("b"), "test": frozenset("c")},
    )

    class Labelled:
        classes = ("7", "70", "A/1", "A/2", "B", "B/1", "B/2", "BB/1", "C/1", "D/1")
        labels = np.repeat(range(10), [2, 2, 2, 1, 2, 2, 2, 2, 2, 2])
        origins = (*(f"o{i}" for i in range(18)), "b")

    assert free_classes(Labelled, split, 2) == {"70", "A/1", "B", "BB/1", "C/1"}


def test_simulated_tasks_come_first_and_then_at_their_share():
    cfg = config("train.iterations=1000", "train.meta_batch=2", "data.simulated.mix=0.3")
    kinds = [is_simulated(cfg, index) for index in range(2_000)]
    assert all(kinds[:1_200])  # 0.6 of the iterations
    assert np.mean(kinds[1_200:]) == pytest.approx(0.3, abs=5 * (0.21 / 800) ** 0.5)
    assert kinds == [is_simulated(cfg, index) for index in range(2_000)]  # the index alone decides
    other = config("seed=1", "train.iterations=1000", "train.meta_batch=2")
    assert kinds != [is_simulated(other, index) for index in range(2_000)]
    none = config("train.iterations=1000", "data.simulated.mix=0")
    assert not any(is_simulated(none, index) for index in range(600, 1_000))


def test_simulated_recordings_of_another_sensor_are_refused(folder, cache):
    overrides = ["data.simulated.mix=0.5", "data.simulated.corpus=omniglot-untimed"]
    cfg = load_config("omniglot-fast", overrides)
    with pytest.raises(ConfigError, match=r"'omniglot-untimed', of \(68, 68\) pixels, but .*34"):
        load_source(cfg, folder)


def test_an_unknown_corpus_of_simulated_recordings_is_named(folder, cache):
    with pytest.raises(
        ConfigError, match=r"'omniglot-untimd' is unknown \(did you mean 'omniglot-u"
    ):
        load_source(config("data.simulated.corpus=omniglot-untimd"), folder)


# --- the real ones -------------------------------------------------------------------------------


@pytest.mark.data
def test_the_real_strokes_lie_where_the_timed_ones_do(shared_data):
    """Bounding boxes against those of the 4,365 drawings whose timed strokes are published."""
    place = shared_data / "omniglot"
    writing, timed = read_writing(place, 0), read_strokes(place)
    assert len(writing.strokes) == 16_447
    assert len(set(writing.labels)) == 959
    assert set(writing.labels) <= set(read_drawings(place).labels)
    true = dict(zip(timed.origins, timed.strokes, strict=True))

    def box(strokes):
        points = np.concatenate(strokes)[:, :2]
        return np.concatenate([points.min(0), points.max(0)])

    off = [
        np.abs(box(strokes) - box(true[origin])).max()
        for strokes, origin in zip(writing.strokes, writing.origins, strict=True)
        if origin in true
    ]
    assert len(off) == 4_365
    assert np.median(off) < 0.7
    assert np.quantile(off, 0.95) < 2.6
