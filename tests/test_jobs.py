"""Jobs as functions: what they tell, what they measure, and on which recordings."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from fakes import TINY, fake_files, write_zip
from spikeshot import jobs, opening
from spikeshot.assemble import pose
from spikeshot.assemble_data import load_source, task_space
from spikeshot.config import Config
from spikeshot.data.augment import Augmentation
from spikeshot.data.corpora import CORPORA, Corpus
from spikeshot.data.nmnist import read_nmnist
from spikeshot.data.splits import MetaSplit, split_origins
from spikeshot.describing import describe
from spikeshot.errors import ConfigError, Interrupted
from spikeshot.learn.scoring import Score
from spikeshot.learner import load
from spikeshot.listener import Silent
from spikeshot.run_folder import RunFolder
from spikeshot.snn.network import resize_readout
from spikeshot.training import Training


class Ears(Silent):
    """A listener that keeps what it hears."""

    def __init__(self):
        self.started, self.steps, self.validations, self.scores = [], [], [], []

    def on_start(self, config, iteration, recordings):
        self.started.append((config.name, iteration, recordings))

    def on_step(self, report):
        self.steps.append(report)

    def on_validation(self, iteration, result, best):
        self.validations.append((iteration, result.accuracy, best))

    def on_episode(self, score):
        self.scores.append(score)


def tiny(**changes):
    return Config.model_validate(TINY | changes)


@pytest.fixture
def simulated(monkeypatch, fake_recordings, tmp_path):
    """`digits` made of the real recordings' images and of 60 others."""
    more = {n.replace("/00", "/05"): raw for n, raw in fake_files().items() if "Train" in n}
    recordings = read_nmnist(write_zip(tmp_path / "simulated.zip", fake_files() | more))
    stand_in = Corpus("digits", "a stand-in", False, lambda request: recordings)
    monkeypatch.setitem(CORPORA, "digits", stand_in)
    return recordings


# --- training ------------------------------------------------------------------------------------


def test_a_listener_hears_all_of_a_training(tmp_path, fake_zip):
    ears = Ears()
    jobs.train(tiny(), tmp_path / "run", data=fake_zip, listener=ears)
    assert ears.started == [("tiny", 0, 140)]
    assert [r.iteration for r in ears.steps] == [0, 1, 2, 3, 4, 5]
    assert [v[0] for v in ears.validations] == [3, 6]
    best = -1.0
    for _, accuracy, is_best in ears.validations:
        assert is_best == (accuracy > best)
        best = max(best, accuracy)
    lines = list(RunFolder.open(tmp_path / "run").metrics())
    assert [m["loss"] for m in lines if m["kind"] == "train"] == [r.loss for r in ears.steps]


def test_strategy_and_engine_change_no_loss_but_by_rounding(tmp_path, fake_zip):
    """Six steps of training by every way to the same exact meta-gradient, in float32."""
    losses = {}
    for name, learn, engine in (
        ("split", {}, "auto"),
        ("remat", {"strategy": "remat", "micro_batch": 4}, "auto"),
        ("double_backward", {"strategy": "double_backward"}, "auto"),
        ("oracle", {}, "oracle"),
    ):
        config = tiny(learn=TINY["learn"] | learn, engine=engine)
        ears = Ears()
        jobs.train(config, tmp_path / name, data=fake_zip, listener=ears)
        losses[name] = [report.loss for report in ears.steps]
    for name in ("remat", "double_backward", "oracle"):
        assert losses[name] == pytest.approx(losses["split"], rel=1e-3)


def test_training_learns_what_can_be_learned(tmp_path, fake_zip):
    """The digits of the made-up recordings lie in different places: far above chance, 1 in 3."""
    changed = {"iterations": 120, "validate_every": 120, "test_episodes": 40}
    config = tiny(
        network=TINY["network"] | {"layers": [{"units": 8, "kernel": 3, "pool": 2}]},
        train=TINY["train"] | changed | {"meta_lr": 0.01, "rates_lr": 0.05},
    )
    result = jobs.train(config, tmp_path / "run", data=fake_zip)
    assert result["accuracy"] - result["ci95"] > 0.8
    assert result["accuracy_before"] < 0.6


def test_only_training_is_augmented_and_evaluation_draws_at_random(
    tmp_path, fake_zip, simulated, monkeypatch
):
    made = []

    def spy(*arguments, **options):
        space = task_space(*arguments, **options)
        made.append((space.split, space.augmentation, space.overlap))
        return space

    for module in (jobs, opening):
        monkeypatch.setattr(module, "task_space", spy)
    augment = {"shift_px": 2, "drop": 0.1, "jitter_us": 1000}
    data = TINY["data"] | {"augment": augment, "simulated": {"share": 0.5}, "overlap": 0.5}
    jobs.train(tiny(data=data), tmp_path / "run", data=fake_zip)
    light = Augmentation(shift_px=2, drop=0.1, jitter_us=1000)
    assert {split: given for split, given, _ in made if given} == {"train": light}
    assert made.count(("train", light, 0.5)) == 2  # real and simulated
    assert made.count(("val", None, 0.5)) == 1
    assert made.count(("test", None, 0.0)) == 2  # checked before training, drawn from after it


def test_the_split_of_recordings_is_stored_and_is_what_training_drew_from(tiny_run, fake_zip):
    record = RunFolder.open(tiny_run).data()
    record.split.require_disjoint()
    assert record.path == str(fake_zip)
    assert record.split == load_source(tiny(), fake_zip).split


def test_resume_draws_from_the_stored_split(tiny_run, fake_recordings, tmp_path, monkeypatch):
    """Another release may shuffle otherwise: what a run held out must stay held out."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    folder = RunFolder.open(run)
    record = folder.data()
    shuffled = split_origins(fake_recordings, (0.64, 0.16, 0.2), seed=1)
    assert shuffled != record.split.origins
    folder.write_data(replace(record, split=MetaSplit(record.split.classes, shuffled)))
    seen = {}
    monkeypatch.setattr(Training, "go", lambda self: seen.update(self.spaces))
    jobs.train(tiny(), run, resume=True)
    for name in ("train", "val"):
        drawn = {i for members in seen[name].members.values() for i in members}
        assert {fake_recordings.origins[i] for i in drawn} == shuffled[name]


# --- simulated recordings before real ones -------------------------------------------------------


def test_simulated_training_never_shows_a_held_out_image(simulated, fake_zip):
    config = tiny(data=TINY["data"] | {"simulated": {"share": 0.5}})
    source = load_source(config, fake_zip)
    real = load_source(tiny(), fake_zip)
    for held_out in ("val", "test"):
        assert source.split.origins[held_out] == real.split.origins[held_out]
    space = task_space(config, source.simulated, source.split, "train")
    shown = {space.recordings.origins[i] for m in space.members.values() for i in m}
    held = source.split.origins["val"] | source.split.origins["test"]
    assert not shown & held
    assert len(shown) > len(real.split.origins["train"])  # with images that were never recorded
    assert all(origin.startswith("train/") for origin in shown)


def test_simulated_training_can_start_at_an_image(simulated, fake_zip):
    config = tiny(data=TINY["data"] | {"simulated": {"share": 0.5, "first_image": 5000}})
    numbers = [
        int(o.removeprefix("train/")) for o in load_source(config, fake_zip).simulated.origins
    ]
    assert min(numbers) >= 5000
    assert len(numbers) == 130


def test_the_first_share_of_the_episodes_is_simulated(simulated, tmp_path, fake_zip, monkeypatch):
    changed = TINY["train"] | {"iterations": 4, "meta_batch": 2}
    config = tiny(data=TINY["data"] | {"simulated": {"share": 0.5}}, train=changed)
    drawn = []
    original = Training._task

    def spy(self, index):
        task = original(self, index)
        same = {
            name: bool((pose(self.network, space.episode(index))[1].frames == task[1].frames).all())
            for name, space in self.spaces.items()
            if name != "val"
        }
        drawn.append((index, same))
        return task

    monkeypatch.setattr(Training, "_task", spy)
    jobs.train(config, tmp_path / "run", data=fake_zip)
    assert [index for index, _ in drawn] == list(range(8))
    assert [same["simulated"] for _, same in drawn] == [True] * 4 + [False] * 4
    assert [same["train"] for _, same in drawn] == [False] * 4 + [True] * 4


def test_validation_and_test_may_take_more_inner_steps_than_training(tmp_path, fake_zip):
    ears = Ears()
    config = tiny(learn=TINY["learn"] | {"test_steps": 5})
    result = jobs.train(config, tmp_path / "run", data=fake_zip, listener=ears)
    assert result["inner_steps"] == 5
    assert jobs.evaluate(tmp_path / "run", episodes=2)["inner_steps"] == 5
    short = Ears()
    jobs.train(tiny(), tmp_path / "short", data=fake_zip, listener=short)
    assert [r.loss for r in ears.steps] == [r.loss for r in short.steps]
    assert [v[1] for v in ears.validations] != [v[1] for v in short.validations]


def test_prototypes_alone_train_evaluate_and_adapt(tmp_path, fake_zip):
    """No inner step in training; at evaluation none either, or as many as are asked for."""
    learn = {"readout_start": "prototypes", "inner_steps": 0, "prototype_gain": 200.0}
    run, config = tmp_path / "run", tiny(learn=learn)
    result = jobs.train(config, run, data=fake_zip)
    assert (config.learn.steps_after_training, result["inner_steps"]) == (0, 0)
    none, two = (jobs.evaluate(run, episodes=4, steps=steps) for steps in (0, 2))
    assert none["accuracy"] == result["accuracy"]
    assert none["loss"] == result["loss"] != two["loss"]
    assert none["accuracy_before"] == two["accuracy_before"]  # of the readout that none has learned
    later = tiny(learn=learn | {"test_steps": 2})
    assert later.learn.steps_after_training == 2
    stepped = jobs.train(later, tmp_path / "later", data=fake_zip)
    assert stepped["inner_steps"] == 2
    learner = load(run)
    samples = torch.ones(config.data.bins, 3, *learner.frame_shape)
    samples[:, 1] = 0.0
    adapted = learner.adapt(samples, ["a", "b", "a"])
    assert adapted.moment.step == 0
    assert adapted.predict(samples).labels == ["a", "b", "a"]


# --- evaluation ----------------------------------------------------------------------------------


def test_mean_and_interval_are_those_of_the_episodes(tiny_run):
    """95 % interval of a mean: 1.96 s / sqrt(n), with s the sample's standard deviation."""
    ears = Ears()
    found = jobs.evaluate(tiny_run, episodes=7, listener=ears)
    for name, key in (("accuracy", "after"), ("accuracy_before", "before")):
        values = np.array([getattr(s, key) for s in ears.scores])
        assert len(values) == 7
        assert found[name] == pytest.approx(values.mean())
        ci = found["ci95" if name == "accuracy" else "ci95_before"]
        assert ci == pytest.approx(1.96 * values.std(ddof=1) / math.sqrt(7))


def test_evaluation_draws_only_from_the_classes_and_recordings_of_its_split(tiny_run, fake_zip):
    source = load_source(tiny(), fake_zip)
    for split in ("train", "val", "test"):
        found = jobs.evaluate(tiny_run, split=split, episodes=2)
        assert found["recordings"] == len(source.split.origins[split])
        assert found["split"] == split


def test_recordings_that_the_run_has_never_seen_count_as_test(tiny_run, tmp_path):
    more = write_zip(tmp_path / "more.zip", fake_files(20))
    split = RunFolder.open(tiny_run).data().split
    used = split.origins["train"] | split.origins["val"]
    free = set(read_nmnist(more).origins) - used
    assert len(free) >= 30 + 50
    found = jobs.evaluate(tiny_run, episodes=2, data=more)
    assert found["recordings"] == len(free)


def test_a_simulated_learner_is_put_to_the_real_recordings_given(simulated, tmp_path, fake_zip):
    jobs.train(tiny(data=TINY["data"] | {"corpus": "digits"}), tmp_path / "run")
    found = jobs.evaluate(tmp_path / "run", episodes=3, data=fake_zip)
    assert found["dataset"] == "nmnist"
    assert found["data_digest"] == read_nmnist(fake_zip).digest
    assert jobs.evaluate(tmp_path / "run", episodes=3)["dataset"] == "digits"


def test_more_ways_than_in_training_start_without_a_preference(tiny_run):
    """Before adaptation every way's logit is the same, so the first class gets every query."""
    found = jobs.evaluate(tiny_run, episodes=3, ways=8, queries=2)
    assert found["accuracy_before"] == 1 / 8


def test_a_readout_for_other_ways_has_the_mean_row_in_every_row():
    params = {
        "layer0.weight": torch.ones(2),
        "readout.weight": torch.tensor([[1.0, 2.0], [3.0, 6.0]]),
        "readout.bias": torch.tensor([1.0, -3.0]),
    }
    resized = resize_readout(params, 3)
    assert resized["readout.weight"].tolist() == [[2.0, 4.0]] * 3
    assert resized["readout.bias"].tolist() == [-1.0] * 3
    assert resized["layer0.weight"] is params["layer0.weight"]
    assert resize_readout(params, 2) == params


def test_a_loss_that_is_not_finite_is_null_in_json(tiny_run, monkeypatch):
    monkeypatch.setattr(
        "spikeshot.training.score_episode", lambda *a, **k: Score(0.5, 0.25, math.nan)
    )
    found = jobs.evaluate(tiny_run, episodes=2)
    assert found["loss"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_an_unknown_split_is_refused(tiny_run):
    with pytest.raises(ConfigError, match=r"'trian' \(did you mean 'train'\?\); expected one of"):
        jobs.evaluate(tiny_run, split="trian")


def test_an_evaluation_that_is_stopped_leaves_the_run_as_it_was(tiny_run):
    before = {f: f.read_bytes() for f in tiny_run.rglob("*") if f.is_file()}
    ears = Ears()
    with pytest.raises(Interrupted, match="the run is as it was"):
        jobs.evaluate(tiny_run, episodes=9, listener=ears, stop=lambda: len(ears.scores) == 2)
    assert len(ears.scores) == 2
    assert {f: f.read_bytes() for f in tiny_run.rglob("*") if f.is_file()} == before


def test_describe_says_what_show_shows(tiny_run):
    found = describe(tiny_run)
    assert found["config"] == tiny()
    assert found["iterations_done"] == 6
    assert found["data"].recordings == 140
    assert found["best_validation"]["accuracy"] == found["results"]["best_validation_accuracy"]
