"""Resume: whatever ends a training, it goes on to the same losses and weights, bit for bit."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from fakes import PATIENCE, TINY, fake_files, lingering, wait_for, write_zip
from spikeshot import jobs, training
from spikeshot.config import load_config
from spikeshot.data.corpora import CORPORA, Corpus
from spikeshot.data.nmnist import read_nmnist
from spikeshot.errors import DivergenceError, Interrupted, RunError
from spikeshot.learn.rules.rule import Batch
from spikeshot.listener import Silent
from spikeshot.run_folder import STATE

LONG = 60  # iterations: long enough to be killed in the middle, a second to run


@pytest.fixture(scope="module")
def long_yaml(tmp_path_factory):
    """Everything that a state could forget: augmentation, clipping, an average, learned rates."""
    changed = {"validate_every": 20, "checkpoint_every": 10, "meta_batch": 2, "clip_norm": 0.05}
    config = TINY | {
        "train": TINY["train"] | changed | {"iterations": LONG},
        "data": TINY["data"] | {"augment": {"shift_px": 2, "drop": 0.1, "jitter_us": 1000}},
    }
    file = tmp_path_factory.mktemp("long") / "long.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, long_yaml, fake_zip):
    run = tmp_path_factory.mktemp("whole") / "run"
    jobs.train(load_config(str(long_yaml)), run, data=fake_zip)
    return run


def metrics_of(run):
    """Return the lines of metrics.jsonl without the time they took."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def same_run(run, other):
    """Check that two runs have the same metrics, weights, state and results, bit for bit."""
    assert metrics_of(run) == metrics_of(other)
    for name in (STATE, "best.safetensors"):
        ours, theirs = load_file(run / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert torch.equal(ours[key], theirs[key])
    ours, theirs = (json.loads((r / "results.json").read_text()) for r in (run, other))
    assert {k: v for k, v in ours.items() if k != "training_minutes"} == {
        k: v for k, v in theirs.items() if k != "training_minutes"
    }
    return True


def done_in(run):
    """Return the iteration of the checkpoint."""
    with safe_open(run / STATE, "pt") as stored:
        return json.loads(stored.metadata()["spikeshot"])["iteration"]


def resume(run):
    return jobs.train(load_config(str(run / "config.yaml")), run, resume=True)


# --- from outside: a process that is killed or asked to stop -------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_or_stopped_training_goes_on_bit_for_bit(
    tmp_path, long_yaml, fake_zip, uninterrupted, number
):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "spikeshot", "train", str(long_yaml), "--data", str(fake_zip)]
    process = subprocess.Popen(
        [*command, "--out", str(run)],
        env=lingering(tmp_path / "slow"),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(run / STATE, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert 0 < done_in(run) < LONG
    assert not (run / "results.json").exists()
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        last = err.splitlines()[-1]
        assert last.startswith(f"spikeshot: stopped at iteration {done_in(run)}; the checkpoint")
        assert "--resume" in last
        assert "Traceback" not in err
    resume(run)
    assert same_run(run, uninterrupted)


# --- from inside: every moment at which a training can end ---------------------------------------


@pytest.mark.parametrize("lines", [1, 10, 59])
def test_a_stop_after_any_iteration_goes_on_bit_for_bit(
    tmp_path, long_yaml, fake_zip, uninterrupted, lines
):
    run = tmp_path / "run"
    config = load_config(str(long_yaml))
    with pytest.raises(Interrupted, match="the checkpoint is in"):
        jobs.train(config, run, data=fake_zip, stop=lambda: written(run) >= lines)
    assert done_in(run) < LONG
    resume(run)
    assert same_run(run, uninterrupted)


def written(run):
    """Return how many lines of metrics there are so far."""
    return len(metrics_of(run)) if (run / "metrics.jsonl").exists() else 0


@pytest.mark.parametrize("how", ["stop", "interrupt"])
def test_a_stop_in_the_middle_of_a_validation_repeats_it(
    tmp_path, long_yaml, fake_zip, uninterrupted, how, monkeypatch
):
    run, scored = tmp_path / "run", []
    score_episode = training.score_episode

    def score(*arguments, **settings):
        scored.append(1)
        if how == "interrupt" and len(scored) == 5:  # of 3 episodes each: in the second
            raise KeyboardInterrupt
        return score_episode(*arguments, **settings)

    def stop():
        return how == "stop" and len(scored) == 5

    monkeypatch.setattr(training, "score_episode", score)
    with pytest.raises(Interrupted, match="stopped at iteration 40"):
        jobs.train(load_config(str(long_yaml)), run, data=fake_zip, stop=stop)
    monkeypatch.undo()
    assert done_in(run) == 40
    assert [m["iteration"] for m in metrics_of(run) if m["kind"] == "validation"] == [20]
    resume(run)
    assert same_run(run, uninterrupted)


def test_leftovers_of_a_kill_between_two_writes_do_no_harm(
    tmp_path, long_yaml, fake_zip, uninterrupted
):
    """Metrics ahead of the checkpoint, a line written half, a file written half."""
    run = tmp_path / "run"
    config = load_config(str(long_yaml))
    with pytest.raises(Interrupted):
        jobs.train(config, run, data=fake_zip, stop=lambda: (run / STATE).exists())
    with (run / "metrics.jsonl").open("a") as stream:
        for ahead in range(done_in(run) + 1, done_in(run) + 4):
            line = {"kind": "train", "iteration": ahead, "loss": 9.0, "accuracy": 0.0}
            stream.write(json.dumps(line) + "\n")
        stream.write('{"kind": "tra')
    (run / "checkpoint" / ".state.safetensors.part").write_bytes(b"half")
    resume(run)
    assert same_run(run, uninterrupted)
    assert not (run / "checkpoint" / ".state.safetensors.part").exists()


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path, tiny_run, fake_zip):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / STATE).unlink()
    (run / "results.json").unlink()
    resume(run)
    assert same_run(run, tiny_run)


def test_a_run_killed_before_its_configuration_was_written_starts_again(
    tmp_path, tiny_run, tiny_yaml, fake_zip
):
    run = tmp_path / "run"
    (run / "checkpoint").mkdir(parents=True)
    shutil.copy(tiny_run / "data.json", run)
    jobs.train(load_config(str(tiny_yaml)), run, data=fake_zip, resume=True)
    assert same_run(run, tiny_run)


def test_a_stop_before_training_leaves_no_run(tmp_path, tiny_yaml, fake_zip):
    with pytest.raises(Interrupted, match="stopped before training"):
        jobs.train(load_config(str(tiny_yaml)), tmp_path / "run", data=fake_zip, stop=lambda: True)
    assert not (tmp_path / "run").exists()


def test_a_stop_in_the_last_evaluation_needs_only_that_again(tmp_path, tiny_run, fake_zip):
    class Evaluating(Silent):
        heard = 0

        def on_episode(self, score):
            self.heard += 1

    run, ears = tmp_path / "run", Evaluating()
    config = load_config(str(tiny_run / "config.yaml"))
    with pytest.raises(Interrupted, match="evaluation of"):
        jobs.train(config, run, data=fake_zip, listener=ears, stop=lambda: ears.heard == 2)
    assert done_in(run) == 6
    resume(run)
    assert same_run(run, tiny_run)


def test_resume_with_another_configuration_changes_nothing(tmp_path, tiny_run):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    before = {f: f.read_bytes() for f in run.rglob("*") if f.is_file()}
    config = load_config(str(run / "config.yaml"), ["learn.inner_steps=1"])
    with pytest.raises(RunError, match=r"configuration: learn\.inner_steps is 1, was 2"):
        jobs.train(config, run, resume=True)
    assert {f: f.read_bytes() for f in run.rglob("*") if f.is_file()} == before


# --- simulated recordings ------------------------------------------------------------------------


def digits_are(monkeypatch, place, per_digit):
    """Let the corpus `digits` be made of so many recordings of each digit."""
    recordings = read_nmnist(write_zip(place / f"digits-{per_digit}.zip", fake_files(per_digit)))
    stand_in = Corpus("digits", "a stand-in", False, lambda request: recordings)
    monkeypatch.setitem(CORPORA, "digits", stand_in)
    return recordings


def test_a_resumed_run_wants_the_simulated_recordings_it_began_with(
    tmp_path, long_yaml, fake_zip, monkeypatch
):
    """Others are refused and nothing is changed; with its own it goes on bit for bit, and so does
    an older run, which has not noted them."""
    theirs = digits_are(monkeypatch, tmp_path, 20)
    config = load_config(str(long_yaml), ["data.simulated.share=0.5", "train.iterations=20"])
    whole, run, old = (tmp_path / name for name in ("whole", "run", "old"))
    jobs.train(config, whole, data=fake_zip)
    with pytest.raises(Interrupted):
        jobs.train(config, run, data=fake_zip, stop=lambda: written(run) >= 7)
    assert json.loads((run / "data.json").read_text())["simulated_digest"] == theirs.digest
    shutil.copytree(run, old)
    record = json.loads((old / "data.json").read_text())
    del record["simulated_digest"]
    (old / "data.json").write_text(json.dumps(record))
    before = {f: f.read_bytes() for f in run.rglob("*") if f.is_file()}
    others = digits_are(monkeypatch, tmp_path, 21)
    said = rf"other simulated recordings \(digest {theirs.digest}, now {others.digest}\)\. Resume"
    with pytest.raises(RunError, match=said):
        resume(run)
    assert {f: f.read_bytes() for f in run.rglob("*") if f.is_file()} == before
    digits_are(monkeypatch, tmp_path, 20)
    for one in (run, old):
        resume(one)
        assert same_run(one, whole)


# --- divergence ----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [0, 1])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(
    tmp_path, long_yaml, fake_zip, uninterrupted, monkeypatch, task
):
    """In iteration 13 one of the two tasks holds event counts that are no numbers."""
    run, make = tmp_path / "run", training.Training._task

    def poisoned(self, index):
        posed = make(self, index)
        if index == 2 * 13 + task:
            posed = posed._replace(query=Batch(posed.query.frames / 0, posed.query.labels))
        return posed

    monkeypatch.setattr(training.Training, "_task", poisoned)
    with pytest.raises(DivergenceError, match=rf"^iteration 13, task {task}: ") as error:
        jobs.train(load_config(str(long_yaml)), run, data=fake_zip)
    assert "the gradient of init.layer0.weight is not finite" in str(error.value)
    monkeypatch.undo()
    assert done_in(run) == 10  # one is written every 10
    assert all(value.isfinite().all() for value in load_file(run / STATE).values())
    resume(run)
    assert same_run(run, uninterrupted)


@pytest.mark.parametrize(
    ("meta_lr", "message"),
    [
        ("1e38", "iteration 1, task 0: the query loss is "),  # weights near the largest float
        ("1e39", "iteration 0: its step makes init.layer0.weight infinite"),  # beyond it
    ],
)
def test_a_learning_rate_without_measure_is_named_as_the_cause(
    cli, tiny_yaml, fake_zip, tmp_path, meta_lr, message
):
    ended = cli(
        *("train", tiny_yaml, "--data", fake_zip, "--out", tmp_path / "run"),
        *("--set", f"train.meta_lr={meta_lr}", "--set", "train.warmup=1"),
    )
    assert (ended.code, ended.out) == (2, "")
    last = ended.err.splitlines()[-1]
    assert last.startswith(f"spikeshot: {message}")
    assert any(word in last for word in ("loss is inf", "loss is nan", "is not finite", "infinite"))
    assert "Lower train.meta_lr" in last
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run" / "results.json").exists()
