"""No corpus of the registry leaks: one battery over all, and the proof that it can fail.

A new corpus joins with one line in `EXAMPLES`: a function that makes a tiny example of its files
(or of what it simulates from) and returns the path, and the settings under which it is split.
"""

from dataclasses import replace

import numpy as np
import pytest

from fakes import fake_files, write_folder, write_zip
from leaks import check_episodes, check_halves, check_splits
from made_corpora import (
    ALPHABETS,
    omniglot_files,
    strokes_files,
    untimed_arrays,
    write_signs,
)
from made_files import columns, made_events, mat_file, npz_file, pickled_file
from spikeshot.assemble_data import load_source, task_space
from spikeshot.config import load_config
from spikeshot.data.class_splits import shipped_classes
from spikeshot.data.corpora import CORPORA
from spikeshot.data.episodes import TaskSpace
from spikeshot.data.layouts.asl_dvs import LETTERS
from spikeshot.data.splits import SPLITS

TASK = ("task.ways=2", "task.shots=1", "task.queries=1")
VALIDATION = shipped_classes("omniglot_published")["val"][0]  # an alphabet
SINGLE, DOUBLE = "data.classes=single", "data.classes=double"


def tiny_digits(folder, patch):
    """14 made-up images of each digit through the real camera model."""
    rng = np.random.default_rng(0)
    images = np.zeros((140, 28, 28), np.uint8)
    for image in images:
        x, y = rng.integers(6, 16, 2)
        image[y : y + 8, x : x + 6] = rng.integers(150, 256)
    origins = tuple(f"train/{i:05d}" for i in range(140))
    made = images, np.arange(140) % 10, origins
    patch.setattr("spikeshot.data.corpora.digits.digit_images", lambda: made)


def tiny_nmnist(folder, patch):
    return write_zip(folder / "N-MNIST.zip", fake_files())


def tiny_omniglot(folder, patch):
    return write_zip(folder / "images_background.zip", omniglot_files())


def tiny_strokes(folder, patch):
    return write_zip(folder / "strokes_background_small1.zip", strokes_files())


def tiny_untimed(folder, patch):
    np.savez(folder / "strokes_background_matched.npz", **untimed_arrays(ALPHABETS))
    write_zip(folder / "images_background.zip", omniglot_files())
    return folder


def tiny_signs(folder, patch):
    return write_signs(folder / "signs.npz")


def tiny_asl_dvs(folder, patch):
    files = {
        f"{letter}/{letter}_{i:04d}.mat": mat_file(made_events(12 * k + i, 20, (240, 180)))
        for k, letter in enumerate(LETTERS)
        for i in range(12)
    }
    return write_zip(folder / "asl.zip", files)


def tiny_n_omniglot(folder, patch):
    files = {
        f"{half}/{a}/character{c:02d}/{10 * k + c:04d}_{d:02d}.npy": pickled_file(
            made_events(100 * k + 10 * c + d, 20, (346, 260))
        )
        for k, (half, a) in enumerate(
            [("background", "Latin"), ("background", VALIDATION), ("evaluation", "Manipuri")]
        )
        for c in (1, 2, 3)
        for d in range(1, 5)
    }
    return write_folder(folder / "events_npy", files)


def tiny_folder(folder, patch):
    files = {
        f"{label}/{i}.npz": npz_file(**columns(made_events(12 * k + i, 20)), sensor_size=[34, 34])
        for k, label in enumerate("abcdefghijkl")
        for i in range(12)
    }
    return write_folder(folder / "mine", files)


EXAMPLES = {
    "digits": (tiny_digits, (SINGLE, DOUBLE)),
    "nmnist": (tiny_nmnist, (SINGLE, DOUBLE)),
    "omniglot": (tiny_omniglot, (SINGLE,)),
    "omniglot-strokes": (tiny_strokes, (SINGLE,)),
    "omniglot-untimed": (tiny_untimed, (SINGLE,)),
    "signs": (tiny_signs, (SINGLE, DOUBLE)),
    "asl-dvs": (tiny_asl_dvs, (DOUBLE,)),
    "n-omniglot": (tiny_n_omniglot, (SINGLE,)),
    "folder": (tiny_folder, (SINGLE, DOUBLE)),
}
CASES = [(name, mode) for name in CORPORA for mode in EXAMPLES.get(name, (None, ()))[1]]


def test_every_corpus_of_the_registry_is_in_the_battery():
    assert CORPORA
    assert set(EXAMPLES) == set(CORPORA), "add a tiny example of the corpus to EXAMPLES"
    assert all(modes for _, modes in EXAMPLES.values())


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request, tmp_path_factory):
    """The configuration and the split recordings of one corpus."""
    name, mode = request.param
    folder = tmp_path_factory.mktemp("leaks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPIKESHOT_CACHE", str(folder / "cache"))
        path = EXAMPLES[name][0](folder, patch)
        overrides = [*TASK, f"data.corpus={name}", mode, "data.augment={}", "data.crop=null"]
        config = load_config("quickstart", overrides)
        return config, load_source(config, path)


def test_splits_share_no_class_origin_recording_or_content(case):
    _, source = case
    check_splits(source)


@pytest.mark.parametrize("split", SPLITS)
def test_support_and_query_share_nothing_over_many_episodes(case, split):
    check_episodes(*case, split)


@pytest.mark.parametrize("split", SPLITS)
def test_every_part_of_a_class_varies_and_the_halves_independently(case, split):
    check_halves(*case, split)


def test_drawers_of_n_omniglot_are_told_by_the_names_of_files(tmp_path, monkeypatch):
    """`<NNNN>_<DD>`: the same people drew every character."""
    monkeypatch.setenv("SPIKESHOT_CACHE", str(tmp_path / "cache"))
    overrides = [*TASK, "data.corpus=n-omniglot", SINGLE, "data.crop=null", "data.by_drawer=true"]
    config = load_config("quickstart", overrides)
    source = load_source(config, tiny_n_omniglot(tmp_path, monkeypatch))
    space = task_space(config, source.recordings, source.split, "train")
    assert set(space.drawers) == {"01", "02", "03", "04"}
    for index in range(30):
        plan = space.plan(index)
        support, query = ({space.drawers[i] for i in r.flat} for r in (plan.support, plan.query))
        assert not support & query


# --- the battery can fail ------------------------------------------------------------------------


def test_a_class_or_origin_in_two_splits_is_found(case):
    _, source = case
    for what in ("classes", "origins"):
        groups = dict(getattr(source.split, what))
        groups["test"] = type(groups["test"])([*groups["test"], next(iter(groups["train"]))])
        with pytest.raises(AssertionError):
            check_splits(replace(source, split=replace(source.split, **{what: groups})))


def test_a_copy_of_a_recording_under_another_name_is_found(case):
    """As a file copied into another folder: another origin, the same events."""
    _, source = case
    r = source.recordings
    rows, origins = np.arange(len(r)), source.split.origins
    of = {o: i for i, o in enumerate(r.origins)}
    rows[of[min(origins["test"])]] = of[min(origins["train"])]
    copied = replace(r.subset(rows), labels=r.labels, origins=r.origins)
    with pytest.raises(AssertionError):
        check_splits(replace(source, recordings=copied))


def test_a_recording_in_support_and_query_is_found(case, monkeypatch):
    plan = TaskSpace.plan

    def leaky(self, index):
        made = plan(self, index)
        if index == 77:
            made.query[1, 0] = made.support[1, 0]
        return made

    monkeypatch.setattr(TaskSpace, "plan", leaky)
    with pytest.raises(AssertionError):
        check_episodes(*case, "train")


@pytest.mark.parametrize("kind", ["fixed", "tied"])
def test_a_half_that_does_not_vary_or_follows_the_other_is_found(case, monkeypatch, kind):
    config, source = case
    if config.data.classes == "single" and kind == "tied":
        pytest.skip("one part cannot follow another")
    plan = TaskSpace.plan

    def leaky(self, index):
        made = plan(self, index)
        for way, label in enumerate(made.classes):
            left = self.members[self.classes[label][0]]
            if kind == "fixed":
                made.query[way, :, 0] = left[0]
            else:
                other = self.members[self.classes[label][1]]
                for row in made.query[way]:
                    row[0] = left[other.index(row[1]) % len(left)]
        return made

    monkeypatch.setattr(TaskSpace, "plan", leaky)
    with pytest.raises(AssertionError):
        check_halves(config, source, "test")
