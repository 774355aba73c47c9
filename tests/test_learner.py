"""Trained learners: loaded, adapted and asked; exported, shipped and evaluated on other data."""

import json
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

import spikeshot
from fakes import TINY, fake_files, write_folder, write_zip
from made_files import made_events, npy_file, table
from spikeshot import jobs
from spikeshot.assemble import build_learner
from spikeshot.assemble_data import task_space
from spikeshot.assemble_network import build_network
from spikeshot.config import Config, config_from_dict
from spikeshot.data.nmnist import read_nmnist
from spikeshot.describing import describe
from spikeshot.errors import ConfigError, DataError, RunError
from spikeshot.learn.rules.compose import equip
from spikeshot.learn.rules.devices import DeviceSpec
from spikeshot.learner import TrainedLearner
from spikeshot.listener import Silent
from spikeshot.run_folder import RunFolder
from spikeshot.stored import PREFIX, open_learner, pretrained_names

MAX_BYTES = 1_500_000


class Ears(Silent):
    def __init__(self):
        self.scores = []

    def on_episode(self, score):
        self.scores.append(score)


@pytest.fixture(scope="module")
def space(tiny_run, fake_recordings):
    run = RunFolder.open(tiny_run)
    return task_space(run.config(), fake_recordings, run.data().split, "test")


def samples_of(recordings, indices):
    """Return the pairs of recordings in a plan's [ways, n, parts], and the way of each."""
    pairs = [tuple(recordings[i] for i in pair) for way in indices for pair in way]
    return pairs, [way for way, members in enumerate(indices) for _ in members]


@pytest.fixture(scope="module")
def learner(tiny_run):
    return spikeshot.load(tiny_run)


@pytest.fixture
def support(space, fake_recordings):
    plan = space.plan(0)
    pairs, ways = samples_of(fake_recordings, plan.support)
    return pairs, [plan.classes[way] for way in ways]


# --- adapt and predict ---------------------------------------------------------------------------


def test_a_task_is_asked_by_the_rule_it_was_adapted_with(learner, support):
    """A device's range is found where the task starts; its noise is that of the task's key."""
    device = DeviceSpec("ideal", read_noise=0.3)
    own = learner.learner.rule
    noisy = replace(learner, learner=replace(learner.learner, rule=equip(own, device=device)))
    adapted = noisy.adapt(*support, key=3)
    assert adapted.rule.medium is None
    first, again = adapted.predict(support[0]), adapted.predict(support[0])
    assert torch.equal(first.probabilities, again.probabilities)
    quiet = replace(adapted, rule=own).predict(support[0])
    assert not torch.equal(first.probabilities, quiet.probabilities)


@pytest.mark.parametrize("start", ["learned", "prototypes"])
def test_a_baseline_and_a_start_are_learners_too(start, tiny_run, support):
    """Adapted, they tell most of their own support's samples."""
    stored = open_learner(tiny_run)
    config = stored.config.model_dump(mode="json")
    config["learn"] |= {"method": "protonet", "readout_start": "learned"}
    if start == "prototypes":
        config["learn"] |= {"method": "maml", "readout_start": start}
    config = config_from_dict(config, "a test")
    network = build_network(config, tuple(stored.about["frame_shape"]))
    found = TrainedLearner(
        replace(stored, config=config), network, build_learner(config, network), (34, 34)
    )
    labels, _ = found.adapt(*support).predict(support[0])
    assert sum(a == b for a, b in zip(labels, support[1], strict=True)) > len(labels) / 2


def test_predictions_are_those_of_the_command_s_evaluation(
    learner, tiny_run, space, fake_recordings
):
    """The same episodes by recordings: each one's accuracy is that of `evaluate`, bit for bit."""
    ears = Ears()
    jobs.evaluate(tiny_run, episodes=8, workers=1, listener=ears)
    for index, score in enumerate(ears.scores):
        plan = space.plan(index)
        pairs, ways = samples_of(fake_recordings, plan.support)
        adapted = learner.adapt(pairs, [plan.classes[w] for w in ways], key=index)
        assert adapted.classes == plan.classes
        queries, asked = samples_of(fake_recordings, plan.query)
        labels, probabilities = adapted.predict(queries)
        right = [label == plan.classes[w] for label, w in zip(labels, asked, strict=True)]
        assert sum(right) / len(right) == score.after
        loss = -probabilities[range(len(asked)), asked].log().mean()
        assert float(loss) == pytest.approx(score.loss, rel=1e-4)
    assert len({score.after for score in ears.scores}) > 1


def test_recordings_and_their_frames_are_the_same_samples(learner, space, support):
    frames = space.episode(0).support
    assert torch.equal(learner.frames(support[0]), frames)
    assert torch.equal(learner.frames(frames.numpy().astype(np.uint8)), frames)
    by_events, by_frames = (learner.adapt(x, support[1]) for x in (support[0], frames))
    assert all(torch.equal(by_events.params[k], by_frames.params[k]) for k in by_events.params)


def test_adaptation_fits_its_support_and_no_steps_leave_the_weights(learner, support):
    far = learner.adapt(*support, steps=200).predict(support[0])
    near = learner.adapt(*support, steps=0)
    assert far.labels == support[1]
    assert torch.allclose(far.probabilities.sum(1), torch.ones(len(support[1])))
    assert all(torch.equal(near.params[k], v) for k, v in learner.stored.init.items())


def test_ways_and_shots_are_free(learner, space, fake_recordings):
    pairs, ways = samples_of(fake_recordings, space.plan(1).support)
    more, others = samples_of(fake_recordings, space.plan(2).support)
    labels = [*ways, *(10 + w for w in others), 0]
    adapted = learner.adapt([*pairs, *more, pairs[0]], labels)
    assert adapted.classes == (0, 1, 2, 10, 11, 12)
    assert adapted.predict(pairs).probabilities.shape == (3, 6)


def test_spikes_are_zeros_and_ones_of_every_layer(learner, support):
    conv, full = learner.adapt(*support).spikes(support[0])
    assert conv.shape[:2] == full.shape[:2] == (4, 3)
    assert full.shape[2:] == (6,)
    assert {0.0, 1.0} == set(torch.cat([conv.flatten(), full.flatten()]).tolist())


# --- what is wrong is said -----------------------------------------------------------------------


def changed(events, **columns):
    """Return the events with columns replaced, of the dtype of what replaces them."""
    kept = {name: np.asarray(columns.get(name, events[name])) for name in "xytp"}
    made = np.empty(len(events), [(name, column.dtype) for name, column in kept.items()])
    for name, column in kept.items():
        made[name] = column
    return made


BAD = [
    (lambda e: [], "no sample was given"),
    (lambda e: e, r"one recording was given; expected a list"),
    (lambda e: [e, e, e], r"sample 0 is an array of .* expected a pair \(left, right\)"),
    (lambda e: [(e, np.zeros(4))] * 3, r"sample 0, right is an array of float64 and shape \[4\]"),
    (lambda e: [(e, changed(e, t=e["t"] / 1e6))] * 3, r"field 't' is float64; .*\(microseconds\)"),
    (lambda e: [(e, changed(e, p=e["p"] * 2 - 1.0))] * 3, r"field 'p' is float64"),
    (lambda e: [(e, changed(e, p=2 * e["p"].astype(int) - 1))] * 3, r"from -1 to 1; expected 0"),
    (
        lambda e: [(changed(e, x=e["x"].astype(int) + 40_000), e)] * 3,
        r"left: field 'x' goes from 4",
    ),
    (lambda e: [(changed(e, x=e["x"] + 50), e)] * 3, r"outside the 34x34 sensor"),
    (lambda e: [(e, changed(e, t=e["t"] + 10**9))] * 3, r"Count microseconds from the start"),
    (lambda e: [(e, e[:0])] * 3, r"sample 0, right: no event in it"),
    (
        lambda e: np.zeros((4, 3, 2, 8, 8)),
        r"frames are \[4, 3, 2, 8, 8\]; expected \[4, n, 2, 8, 16",
    ),
    (lambda e: torch.full((4, 3, 2, 8, 16), torch.nan), "NaN or infinity"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_a_wrong_sample_is_refused_by_name(learner, fake_recordings, make, message):
    with pytest.raises(DataError, match=message):
        learner.adapt(make(fake_recordings[0]), ["a", "b", "a"])


def test_wrong_labels_and_steps_are_refused(learner, support):
    with pytest.raises(DataError, match="2 labels for 3 samples; expected one for each"):
        learner.adapt(support[0], ["a", "b"])
    with pytest.raises(DataError, match="all labels are 'a'; expected two classes or more"):
        learner.adapt(support[0], ["a"] * 3)
    with pytest.raises(ConfigError, match="steps is -1"):
        learner.adapt(*support, steps=-1)


# --- files ---------------------------------------------------------------------------------------


def test_an_exported_learner_is_evaluated_as_its_run(tiny_run, tmp_path, fake_zip):
    file = tmp_path / "mine.safetensors"
    assert spikeshot.export(tiny_run, file) == file.stat().st_size
    for split in ("test", "val", "train"):
        of_run = jobs.evaluate(tiny_run, split=split, episodes=3)
        assert jobs.evaluate(file, split=split, episodes=3, data=fake_zip) == of_run
    assert spikeshot.load(file).sensor_size == (34, 34)
    shown = describe(file)
    assert shown["config"] == RunFolder.open(tiny_run).config()
    assert shown["results"] == RunFolder.open(tiny_run).results()
    assert shown["iterations_done"] == 6
    assert str(fake_zip) not in file.read_bytes().decode("latin1")  # no path of this machine's


def test_a_learner_leaves_out_what_it_has_seen_and_takes_all_else(tiny_run, tmp_path):
    file = tmp_path / "mine.safetensors"
    spikeshot.export(tiny_run, file)
    more = write_zip(tmp_path / "more.zip", fake_files(20))
    split = RunFolder.open(tiny_run).data().split
    free = set(read_nmnist(more).origins) - split.origins["train"] - split.origins["val"]
    assert jobs.evaluate(file, episodes=2, data=more)["recordings"] == len(free)


def test_bare_best_weights_predict_but_are_not_evaluated(tiny_run, support, fake_zip):
    file = tiny_run / "best.safetensors"
    labels = spikeshot.load(file).adapt(*support).predict(support[0]).labels
    assert labels == spikeshot.load(tiny_run).adapt(*support).predict(support[0]).labels
    with pytest.raises(RunError, match="does not say which recordings it was trained on"):
        jobs.evaluate(file, data=fake_zip)


def test_a_damaged_or_missing_learner_is_one_message(cli, tiny_run, tmp_path):
    file = tmp_path / "mine.safetensors"
    spikeshot.export(tiny_run, file)
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(RunError, match="is damaged"):
        spikeshot.load(file)
    for verb in ("show", "evaluate"):
        ended = cli(verb, tmp_path / "none.safetensors")
        assert (ended.code, ended.out) == (2, "")
        assert "no such file" in ended.err
    unfinished = shutil.copytree(tiny_run, tmp_path / "unfinished")
    (unfinished / "results.json").unlink()
    with pytest.raises(RunError, match="expected a finished run"):
        spikeshot.export(unfinished, file)
    with pytest.raises(RunError, match=r"cannot be written .*; choose another"):
        spikeshot.export(tiny_run, tmp_path / "nowhere" / "mine.safetensors")


def test_an_export_over_a_learner_in_use_leaves_its_numbers(tiny_run, tmp_path, support):
    file = tmp_path / "mine.safetensors"
    spikeshot.export(tiny_run, file)
    learner = spikeshot.load(file)
    spikeshot.export(tiny_run, file)
    assert [f.name for f in tmp_path.iterdir()] == [file.name]
    of_run = spikeshot.load(tiny_run).adapt(*support)
    assert all(torch.equal(learner.adapt(*support).params[k], v) for k, v in of_run.params.items())


# --- classes that the learner has never seen -----------------------------------------------------


def folder_of(path, labels):
    """Write five recordings of each of `labels`."""
    return write_folder(
        path,
        {
            f"{label}/{i}.npy": npy_file(table(made_events(int.from_bytes(label.encode()) + i, 80)))
            for label in labels
            for i in range(5)
        },
    )


def test_classes_that_no_split_names_are_test_classes(tmp_path):
    data = {"corpus": "folder", "classes": "single", "crop": None, "sensor_size": [34, 34]}
    data["class_fractions"] = [0.34, 0.33, 0.33]
    config = Config.model_validate(TINY | {"data": TINY["data"] | data})
    mine = folder_of(
        tmp_path / "mine", ["bat", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay"]
    )
    run = tmp_path / "run"
    assert jobs.train(config, run, data=mine)["classes"] == 3
    new = folder_of(tmp_path / "new", ["koi", "lark", "mole", "newt"])
    found = jobs.evaluate(run, data=new, episodes=2)
    assert (found["classes"], found["recordings"]) == (4, 20)
    assert jobs.evaluate(run, data=new, episodes=2, ways=4)["ways"] == 4
    known = RunFolder.open(run).data().split.classes["train"]
    seen = folder_of(tmp_path / "seen", known)
    with pytest.raises(DataError, match="none of the 15 recordings is of a test class and unseen"):
        jobs.evaluate(run, data=seen, episodes=2)


# --- those that ship -----------------------------------------------------------------------------


def test_there_are_learners_that_ship(cli):
    assert {"double-nmnist", "double-nmnist-simulated"} <= set(pretrained_names())
    ended = cli("pretrained")
    assert [line.split()[0] for line in ended.out.splitlines()] == [
        PREFIX + name for name in pretrained_names()
    ]


def test_an_unknown_name_is_one_message_with_the_names(cli):
    for verb in ("show", "evaluate"):
        ended = cli(verb, "pretrained:double-nmist")
        assert (ended.code, ended.out) == (2, "")
        message = " ".join(ended.err.split())
        assert "'double-nmist' is unknown (did you mean 'double-nmnist'?)" in message
        assert all(PREFIX + name in message for name in pretrained_names())


@pytest.mark.parametrize("name", pretrained_names())
def test_a_shipped_learner_is_small_and_says_what_it_is(cli, name):
    folder = Path(spikeshot.__file__).parent / "pretrained" / name
    assert (folder / "learner.safetensors").stat().st_size < MAX_BYTES
    stored = open_learner(PREFIX + name)
    assert stored.record.split.origins["train"]
    results = stored.about["results"]
    accuracy = f"{100 * results['accuracy']:.1f} ± {100 * results['ci95']:.1f} %"
    for text in (accuracy, "## Data", "Licence", "## Limits", f"evaluate {PREFIX}{name}"):
        assert text in stored.card
    ended = cli("show", PREFIX + name)
    assert ended.code == 0
    assert accuracy in ended.out
    assert stored.config.to_yaml() in ended.out
    assert stored.record.path is None
    assert spikeshot.load(PREFIX + name).sensor_size is not None


@pytest.mark.data
def test_the_shipped_learner_tells_real_pairs_of_digits_apart(cli, shared_data):
    """Its card says 99.1 %; 20 episodes of 25 queries are well above 90 %."""
    data = shared_data / "nmnist" / "N-MNIST-small.zip"
    arguments = ("--data", data, "--episodes", 20, "--json")
    ended = cli("evaluate", "pretrained:double-nmnist", *arguments)
    found = json.loads(ended.out)
    assert (found["dataset"], found["recordings"]) == ("nmnist", 177)
    assert found["accuracy"] > 0.9
    assert 0.1 < found["accuracy_before"] < 0.3


def test_one_command_ships_a_run(tiny_run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    arguments = [tiny_run, "tiny", "--out", tmp_path, "--note", "It is a toy."]
    import_module("ship_learner").main([str(argument) for argument in arguments])
    card = (tmp_path / "tiny" / "card.md").read_text()
    results = RunFolder.open(tiny_run).results()
    for text in (
        f"{100 * results['accuracy']:.1f} ±",
        "140 recordings of corpus `nmnist`",
        "CC BY-SA",
        "`[4, n, 2, 8, 16]`",
        "- It is a toy.",
        "64 for train, 16 for val, 20 for test",
    ):
        assert text in card
    assert open_learner(tmp_path / "tiny" / "learner.safetensors").record.recordings == 140
