"""Training from another learner, and evaluating a learner under other conditions."""

import csv
import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from spikeshot import jobs
from spikeshot.config import load_config
from spikeshot.errors import ConfigError, Interrupted, RunError
from spikeshot.run_folder import BEST, START, STATE, RunFolder, digest_of
from test_resume import same_run


def onward(run, *more):
    """Return the tiny configuration that starts from `run`."""
    return load_config(str(run / "config.yaml"), [f"train.start={run}", *more])


@pytest.fixture(scope="module")
def base(tmp_path_factory, tiny_run):
    """A copy of the tiny run, which tests may change once theirs has started."""
    return shutil.copytree(tiny_run, tmp_path_factory.mktemp("base") / "base")


# --- train.start ---------------------------------------------------------------------------------


def test_training_starts_at_the_best_weights_and_rates_of_the_other_run(tmp_path, base):
    """With a learning rate of next to nothing, what is trained is what it started from."""
    run = tmp_path / "run"
    config = onward(base, "train.meta_lr=1e-30", "train.rates_lr=1e-30", "train.average=0")
    jobs.train(config, run, data=zip_of(base), test=False)
    theirs, ours = load_file(base / BEST), load_file(run / BEST)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert not (run / "results.json").exists()
    assert RunFolder.open(run).data().start_digest == digest_of(theirs)
    assert all(torch.equal(v, theirs[k]) for k, v in load_file(run / START).items())


def zip_of(run):
    return jobs.Path(json.loads((run / "data.json").read_text())["path"])


def test_a_resume_heeds_the_copy_and_not_the_other_run(tmp_path, tiny_run):
    base = shutil.copytree(tiny_run, tmp_path / "base")
    config, data = onward(base), zip_of(base)
    jobs.train(config, tmp_path / "whole", data=data)
    for name, ends in (("early", 1), ("late", 3)):
        run = tmp_path / name

        def lines(run=run):
            file = run / "metrics.jsonl"
            return len(file.read_text().splitlines()) if file.exists() else 0

        with pytest.raises(Interrupted):
            jobs.train(config, run, data=data, stop=lambda ends=ends: lines() >= ends)
    (tmp_path / "early" / STATE).unlink()  # killed before its first checkpoint
    shutil.rmtree(base)
    for name in ("early", "late"):
        jobs.train(config, tmp_path / name, resume=True)
        assert same_run(tmp_path / name, tmp_path / "whole")
    broken = tmp_path / "late" / START
    shutil.copy(tmp_path / "late" / BEST, broken)
    with pytest.raises(RunError, match="is not what the run started from"):
        jobs.train(config, tmp_path / "late", resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("network.layers.0.units=5", r"whose init\.layer0\.weight has shape \(4, .*expected \(5,"),
        ("seed=1", "that this run holds out. Train with the seed"),
        ("train.start=nowhere", "'nowhere', which is not there"),
        ("train.start=/", "is no run: it has no best.safetensors"),
    ],
)
def test_a_start_that_does_not_fit_is_named(tmp_path, base, change, message):
    with pytest.raises(ConfigError, match=message):
        jobs.train(onward(base, change), tmp_path / "run", data=zip_of(base))
    assert not (tmp_path / "run").exists()


def test_a_readout_of_other_ways_starts_at_the_mean_row(tmp_path, base):
    still = ("task.ways=2", "train.meta_lr=1e-30", "train.iterations=1")
    jobs.train(onward(base, *still), tmp_path / "run", data=zip_of(base), test=False)
    ours, theirs = load_file(tmp_path / "run" / BEST), load_file(base / BEST)
    for name in ("init/readout.weight", "init/readout.bias"):
        row = theirs[name].mean(0)
        torch.testing.assert_close(ours[name], torch.stack([row, row]))


def test_rates_that_the_other_run_did_not_learn_are_fresh(tmp_path, base):
    config = onward(base, "learn.rates=scalar", "learn.rate=0.5", "train.rates_lr=1e-30")
    jobs.train(config, tmp_path / "run", data=zip_of(base), test=False)
    rate = load_file(tmp_path / "run" / BEST)["learned/log_rate"]
    assert float(rate) == pytest.approx(-0.6931472)  # log 0.5


# --- evaluate --set, --scores --------------------------------------------------------------------


def test_an_evaluation_under_another_rule_is_that_of_a_run_with_it(cli, tiny_run, tmp_path):
    """The same weights in a run whose configuration says fixed rates: the same accuracies."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    learner, about = RunFolder.open(run).read_tensors(BEST, load_config(str(run / "config.yaml")))
    raw = yaml.safe_load((run / "config.yaml").read_text())
    raw["learn"] |= {"rates": "fixed", "rate": 0.3}
    (run / "config.yaml").write_text(yaml.safe_dump(raw))
    config = load_config(str(run / "config.yaml"))
    RunFolder(run).write_tensors(BEST, learner, about | {"config_yaml": config.to_yaml()})
    expected = jobs.evaluate(run, episodes=4)
    ended = cli(
        *("evaluate", tiny_run, "--episodes", 4, "--json"),
        *("--set", "learn.rates=fixed", "--set", "learn.rate=0.3"),
    )
    ours = json.loads(ended.out)
    assert ours.pop("overrides") == ["learn.rates=fixed", "learn.rate=0.3"]
    assert ours == {k: v for k, v in expected.items() if k != "overrides"}
    assert ours["loss"] != jobs.evaluate(tiny_run, episodes=4)["loss"]


def test_the_scores_are_those_of_the_mean(cli, tiny_run, tmp_path):
    for name in ("scores.csv", "scores.jsonl"):
        ended = cli(*("evaluate", tiny_run, "--episodes", 4, "--json"), "--scores", tmp_path / name)
    result = json.loads(ended.out)
    with (tmp_path / "scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["episode"] for row in rows] == ["0", "1", "2", "3"]
    assert sum(float(r["after"]) for r in rows) / 4 == pytest.approx(result["accuracy"])
    assert sum(float(r["before"]) for r in rows) / 4 == pytest.approx(result["accuracy_before"])
    lines = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [line["after"] for line in lines] == [float(row["after"]) for row in rows]


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (("--set", "data.bins=3"), ("'data.bins=3'", "the learner is trained", "learn.KEY")),
        (("--set", "learn.rat=3"), ("'learn.rat' is unknown", "mean 'rate")),
        (("--set", "learn.inner_steps"), ("expected key=value",)),
        (("--set", "learn.rate=-1"), ("learn.rate is -1", "greater than 0")),
        (("--scores", "gone/scores.csv"), ("cannot be written", "choose another --scores")),
    ],
)
def test_bad_conditions_are_one_message(cli, tiny_run, tmp_path, monkeypatch, arguments, texts):
    monkeypatch.chdir(tmp_path)
    ended = cli("evaluate", tiny_run, "--episodes", 4, *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    for text in texts:
        assert text in ended.err
