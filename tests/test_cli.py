"""The command line on good input: what each command prints, writes and returns."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml
from safetensors import safe_open

import spikeshot
from fakes import TINY
from spikeshot.config import load_config, preset_names
from spikeshot.data.nmnist import read_nmnist

FILES = {
    "config.yaml",
    "data.json",
    "metrics.jsonl",
    "checkpoint/state.safetensors",
    "best.safetensors",
    "results.json",
    "learning_curve.png",
}


def files_of(run):
    return {str(f.relative_to(run)) for f in run.rglob("*") if f.is_file()}


# --- without a run -------------------------------------------------------------------------------


def test_help_names_every_command(cli):
    ended = cli("--help")
    assert ended.code == 0
    assert all(verb in ended.out for verb in ("train", "evaluate", "configs", "show"))


@pytest.mark.parametrize("verb", ["train", "evaluate", "configs", "show"])
def test_every_command_has_help(cli, verb):
    ended = cli(verb, "--help")
    assert ended.code == 0
    assert f"Usage: spikeshot {verb}" in ended.out


def test_no_command_shows_the_help_and_fails(cli):
    ended = cli()
    assert ended.code == 2
    assert "Usage:" in ended.out + ended.err


def test_version(cli):
    assert cli("--version") == (0, f"spikeshot {spikeshot.__version__}\n", "")


def test_configs_lists_every_preset_with_what_it_is(cli):
    ended = cli("configs")
    lines = ended.out.splitlines()
    assert ended.code == 0
    assert len(lines) == len(preset_names())
    for name, line in zip(preset_names(), lines, strict=True):
        assert line.split()[0] == name
        assert line.endswith(load_config(name).about)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_gets_no_traceback(unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "spikeshot", "configs"],
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")  # 1, as Python's manual advises


def test_ctrl_c_outside_of_a_job_is_130(cli, tiny_run, monkeypatch):
    def interrupt(run):
        raise KeyboardInterrupt

    monkeypatch.setattr("spikeshot.describing.describe", interrupt)
    assert cli("show", tiny_run) == (130, "", "spikeshot: interrupted.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_stop_while_recordings_are_read_is_at_once(
    cli, tiny_yaml, tiny_run, tmp_path, fake_zip, monkeypatch, verb, number
):
    def slow(config, corpus, path):
        os.kill(os.getpid(), number)
        for _ in range(1000):
            time.sleep(0.001)
        raise AssertionError("the signal was not heard")

    monkeypatch.setattr("spikeshot.opening.load_recordings", slow)
    monkeypatch.setattr(
        "spikeshot.jobs.load_source", lambda config, path, _: slow(config, "", path)
    )
    arguments = {
        "train": ("train", tiny_yaml, "--data", fake_zip, "--out", tmp_path / "run"),
        "evaluate": ("evaluate", tiny_run),
    }
    assert cli(*arguments[verb]) == (130, "", "spikeshot: interrupted.\n")
    assert not (tmp_path / "run").exists()


# --- train ---------------------------------------------------------------------------------------


def test_train_writes_a_whole_run_and_ends_with_a_table(cli, tmp_path, tiny_yaml, fake_zip):
    run = tmp_path / "deep" / "run"
    ended = cli("train", tiny_yaml, "--data", fake_zip, "--out", run)
    assert ended.code == 0
    assert files_of(run) == FILES
    assert "before adaptation" in ended.out
    assert "after 2 inner steps" in ended.out
    assert "tiny: 140 recordings, starts at iteration 0" in ended.err
    results = json.loads((run / "results.json").read_text())
    assert f"{100 * results['accuracy']:.2f}" in ended.out
    assert (run / "learning_curve.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_metrics_have_one_line_per_iteration_and_per_validation(tiny_run):
    lines = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    steps = [m for m in lines if m["kind"] == "train"]
    assert [m["iteration"] for m in steps] == [1, 2, 3, 4, 5, 6]
    assert all({"loss", "accuracy", "grad_norm", "seconds"} <= m.keys() for m in steps)
    validations = [m for m in lines if m["kind"] == "validation"]
    assert [(m["iteration"], m["episodes"]) for m in validations] == [(3, 3), (6, 3)]


def test_the_best_weights_carry_their_configuration_and_rates(tiny_run):
    with safe_open(tiny_run / "best.safetensors", "pt") as stored:
        about = json.loads(stored.metadata()["spikeshot"])
        names = set(stored.keys())
    weights = {f"{p}.{w}" for p in ("layer0", "layer1", "readout") for w in ("weight", "bias")}
    assert names == {f"init/{w}" for w in weights} | {f"learned/log_rate.{w}" for w in weights}
    assert yaml.safe_load(about["config_yaml"]) == yaml.safe_load(
        (tiny_run / "config.yaml").read_text()
    )
    assert about["iteration"] in (3, 6)


def test_the_best_weights_are_those_of_the_best_validation(tiny_run):
    lines = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text().splitlines()]
    validations = {m["iteration"]: m["accuracy"] for m in lines if m["kind"] == "validation"}
    results = json.loads((tiny_run / "results.json").read_text())
    best = max(validations.values())
    first = min(i for i, accuracy in validations.items() if accuracy == best)
    assert results["best_validation_accuracy"] == best
    assert results["best_iteration"] == results["iteration"] == first


def test_config_yaml_is_complete_and_runs_again_to_the_same(cli, tiny_run, tmp_path, fake_zip):
    source = tiny_run / "config.yaml"
    assert load_config(str(source)).to_yaml() == source.read_text()
    ended = cli("train", source, "--data", fake_zip, "--out", tmp_path / "again")
    assert ended.code == 0
    first, again = (r / "results.json" for r in (tiny_run, tmp_path / "again"))
    first, again = (json.loads(r.read_text()) for r in (first, again))
    del first["training_minutes"], again["training_minutes"]
    assert first == again


def test_set_changes_the_configuration_of_the_run(cli, tiny_yaml, tmp_path, fake_zip):
    run = tmp_path / "run"
    ended = cli(
        *("train", tiny_yaml, "--data", fake_zip, "--out", run),
        *("--set", "learn.meta_gradient=first_order", "--set", "train.iterations=2"),
    )
    assert ended.code == 0
    assert load_config(str(run / "config.yaml")).train.iterations == 2
    assert json.loads((run / "results.json").read_text())["meta_gradient"] == "first_order"
    assert "first_order meta-gradient" in ended.out


def test_without_out_a_run_goes_to_its_name(cli, tiny_yaml, tmp_path, fake_zip, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = cli("train", tiny_yaml, "--data", fake_zip, "--set", "train.iterations=1")
    assert ended.code == 0
    assert files_of(tmp_path / "runs" / "tiny") == FILES


@pytest.mark.data
def test_the_fast_preset_runs_on_real_recordings(cli, tmp_path, shared_data):
    data = shared_data / "nmnist" / "N-MNIST-small.zip"
    few = ("iterations=1", "validation_episodes=2", "test_episodes=2")
    settings = [part for each in few for part in ("--set", f"train.{each}")]
    ended = cli(
        *("train", "double-nmnist-fast", "--data", data, "--out", tmp_path / "run"), *settings
    )
    assert ended.code == 0
    assert "5-way 1-shot" in ended.out
    assert "880 recordings" in ended.err


def test_resume_of_a_finished_run_repeats_only_its_table(cli, tiny_run):
    before = (tiny_run / "metrics.jsonl").read_bytes()
    ended = cli("train", tiny_run / "config.yaml", "--resume")  # finds RUN and data by itself
    assert ended.code == 0
    assert "resumes at iteration 6" in ended.err
    assert (tiny_run / "metrics.jsonl").read_bytes() == before


def test_resume_without_a_run_starts_one(cli, tiny_yaml, tmp_path, fake_zip):
    run = tmp_path / "new"
    ended = cli("train", tiny_yaml, "--data", fake_zip, "--out", run, "--resume")
    assert ended.code == 0
    assert files_of(run) == FILES


# --- evaluate and show ---------------------------------------------------------------------------


def evaluated(cli, *arguments):
    ended = cli("evaluate", *arguments, "--json")
    assert ended.code == 0
    assert ended.out.count("\n") == 1
    return json.loads(ended.out)  # fails for anything but one JSON value


def test_evaluate_prints_one_json_object(cli, tiny_run, fake_recordings):
    found = evaluated(cli, tiny_run, "--episodes", 4)
    expected = {
        "episodes": 4,
        "ways": 3,
        "shots": 1,
        "inner_steps": 2,
        "split": "test",
        "meta_gradient": "exact",
        "dataset": "nmnist",
        "data_digest": fake_recordings.digest,
        "seed": 0,
    }
    assert expected.items() <= found.items()
    assert 0 <= found["accuracy_before"] <= 1
    results = json.loads((tiny_run / "results.json").read_text())  # the same 4 episodes
    assert (found["accuracy"], found["ci95"]) == (results["accuracy"], results["ci95"])


def test_evaluate_takes_other_ways_shots_queries_steps_and_split(cli, tiny_run):
    found = evaluated(
        *(cli, tiny_run, "--episodes", 3, "--split", "val"),
        *("--ways", 6, "--shots", 1, "--queries", 1, "--steps", 5),
    )
    wanted = {"ways": 6, "shots": 1, "queries": 1, "inner_steps": 5, "split": "val", "episodes": 3}
    assert wanted.items() <= found.items()
    assert found["accuracy"] * 18 == pytest.approx(round(found["accuracy"] * 18))  # 3 x 6 queries


def test_no_inner_steps_leave_the_accuracy_as_it_was(cli, tiny_run):
    found = evaluated(cli, tiny_run, "--episodes", 5, "--steps", 0)
    assert found["accuracy"] == found["accuracy_before"]


def test_evaluate_changes_nothing_in_the_run(cli, tiny_run):
    before = {f: (tiny_run / f).read_bytes() for f in FILES}
    evaluated(cli, tiny_run, "--episodes", 2)
    assert files_of(tiny_run) == FILES
    assert {f: (tiny_run / f).read_bytes() for f in FILES} == before


def test_evaluate_without_json_prints_the_table(cli, tiny_run):
    ended = cli("evaluate", tiny_run, "--episodes", 2)
    assert ended.code == 0
    assert "before adaptation" in ended.out
    assert "2 episodes, chance 33.3 %, exact meta-gradient, seed 0" in ended.out


def test_evaluate_on_other_recordings_says_which(cli, tiny_run, tmp_path, fake_zip):
    other = tmp_path / "other.zip"
    other.write_bytes(fake_zip.read_bytes())
    found = evaluated(cli, tiny_run, "--episodes", 2, "--data", other)
    assert found["data_digest"] == read_nmnist(fake_zip).digest  # content counts, not place


def test_show_says_what_a_run_is(cli, tiny_run, fake_recordings, fake_zip):
    ended = cli("show", tiny_run)
    assert ended.code == 0
    for text in ("run tiny", "nmnist (140 recordings)", fake_recordings.digest, "6 of 6"):
        assert text in ended.out
    results = json.loads((tiny_run / "results.json").read_text())
    assert f"{100 * results['accuracy']:.2f}" in ended.out
    assert f"{100 * results['best_validation_accuracy']:.2f}" in ended.out
    assert ended.out.endswith((tiny_run / "config.yaml").read_text() + "\n")


def test_show_of_a_run_that_has_not_ended(cli, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "results.json").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(lines[:2]) + '\n{"kind": "tra')
    ended = cli("show", run)
    assert ended.code == 0
    assert "2 of 6" in ended.out
    assert "none yet" in ended.out
    assert "best validation" not in ended.out


def test_names_with_brackets_are_shown_as_they_are(cli, tmp_path, fake_zip):
    """Square brackets are markup to the library that draws the tables."""
    config = TINY | {"name": "[/a]", "about": "[bold]" + 90 * "y", "train": {"iterations": 1}}
    config["train"] |= {"validation_episodes": 2, "test_episodes": 2}
    file, run = tmp_path / "brackets.yaml", tmp_path / "[run]"
    file.write_text(yaml.safe_dump(config))
    trained = cli("train", file, "--data", fake_zip, "--out", run)
    shown = cli("show", run)
    assert (trained.code, shown.code) == (0, 0)
    assert "[/a]: 3-way 1-shot" in trained.out
    assert "run [/a]" in shown.out
    table, dumped = shown.out.split("\nname: ")
    assert "[bold]yy" in table
    assert "about: '[bold]" + 90 * "y" + "'\n" in dumped  # on one line: it can be run again
