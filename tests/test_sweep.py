"""Sweeps: points over processes, resumed, failing, stopped; tables against closed forms."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fakes import PATIENCE, TINY, lingering, require_one_message, wait_for
from spikeshot import sweeps
from spikeshot.errors import ConfigError, Interrupted, RunError
from spikeshot.learn.scoring import Score
from spikeshot.run_folder import STATE
from spikeshot.study.grid import points_of
from spikeshot.study.grid_file import load_grid, sweep_names
from spikeshot.study.paired import T95, estimate, over_seeds, paired
from spikeshot.study.plan import Point, chosen, in_order
from spikeshot.study.runner import run_points
from spikeshot.study.scores import read_scores, write_scores
from spikeshot.study.table import Done, rows_of, to_csv, to_markdown
from spikeshot.sweeps import Place

KEYS = ("data", "learn", "network", "task", "train", "seed", "threads")


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_yaml):
    """A sweep's file: a base, an axis of two values, an arm that trains and one that does not."""
    file = tmp_path_factory.mktemp("study") / "small.yaml"
    raw = {
        "about": "a small one",
        "base": str(tiny_yaml),
        "axes": {"steps": {"label": "inner steps", "key": "learn.test_steps", "values": [1, 3]}},
        "arms": {
            "evaluated": {},
            "trained": {"iterations": 4, "set": {"train.meta_lr": 0.001}, "only": {"steps": [3]}},
        },
        "evaluate": {"episodes": 5},
        "seeds": [0],
    }
    file.write_text(yaml.safe_dump(raw))
    return file


@pytest.fixture(scope="module")
def done(tmp_path_factory, study, fake_zip):
    """The small sweep, done by two processes."""
    place = Place(tmp_path_factory.mktemp("done") / "out", fake_zip)
    grid = load_grid(str(study), [], KEYS)
    results = sweeps.sweep(grid, points_of(grid), place, processes=2)
    return place, grid, results


# --- statistics ----------------------------------------------------------------------------------


def test_intervals_are_the_closed_forms():
    """Worked by hand: [0, 1, 0, 1] has mean 1/2, variance 1/3, so se^2 = 1/12; [0, 2]: se^2 = 1."""
    one = estimate([[0, 1, 0, 1]])
    assert (one.mean, one.seeds, one.ci_seeds) == (0.5, 1, None)
    assert one.ci_episodes == pytest.approx(1.96 * math.sqrt(1 / 12))
    two = estimate([[0, 1, 0, 1], [0, 2]])
    assert two.mean == 0.75
    assert two.ci_episodes == pytest.approx(1.96 * math.sqrt(1 / 12 + 1) / 2)


def test_over_seeds_is_students_interval():
    """Means 1, 2, 3: standard deviation 1, and t of 2 degrees of freedom is 4.303 (tables)."""
    assert over_seeds([1, 2]) is None
    assert over_seeds([1, 2, 3]) == pytest.approx(4.303 / math.sqrt(3))


def test_students_quantiles_are_scipys():
    stats = pytest.importorskip("scipy.stats")
    for freedom, value in enumerate(T95, 1):
        assert value == pytest.approx(stats.t.ppf(0.975, freedom), abs=6e-4)


def test_what_is_common_to_both_falls_out_of_a_paired_difference():
    hard = [0.1, 0.9, 0.4, 0.7]
    ours, theirs = [h + 0.05 for h in hard], hard
    difference = paired([ours], [theirs])
    assert difference.mean == pytest.approx(0.05)
    assert difference.ci_episodes == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="zip"):
        paired([ours], [theirs[1:]])


# --- tables --------------------------------------------------------------------------------------


def made(name, seed, after, **result):
    """Return a finished point `name` with accuracies `after`."""
    arm, *at = name.split("/")
    point = Point(f"{name}/s{seed}", seed, arm, dict(a.split("=") for a in at))
    common = dict.fromkeys(("data_digest", "split", "ways", "shots", "queries", "episodes"), 1)
    scores = [Score(0.2, a, 1.0) for a in after]
    return Done(point, common | {"seed": seed} | result, scores, {"training_minutes": 1.5})


def test_the_table_is_what_one_writes_by_hand():
    points = [
        *(made("base", s, [0.8, 1.0]) for s in (0, 1, 2)),
        *(made("low/bits=4", s, [0.7, 0.9 + 0.1 * (s == 2)]) for s in (0, 1, 2)),
    ]
    rows = rows_of(points, "base")
    # low: means 0.8, 0.8, 0.85; se^2 0.01, 0.01, 0.0225: 1.96 * sqrt(0.0425) / 3 = 0.13469;
    # over seeds 4.303 * 0.0288675 / sqrt 3 = 0.07172. Differences per seed: -0.1 (se 0) twice,
    # and [-0.1, 0] with mean -0.05 and se^2 0.0025: 1.96 * 0.05 / 3 = 0.03267; t as before.
    assert to_markdown(rows, "base").splitlines() == [
        "| arm | bits | seeds | before, % | after, % | paired difference to base |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| base |  | 3 | 20.00 ± 0.00 (± 0.00 over seeds) | 90.00 ± 11.32 (± 0.00 over seeds) |  |",
        "| low | 4 | 3 | 20.00 ± 0.00 (± 0.00 over seeds) "
        "| 81.67 ± 13.47 (± 7.17 over seeds) | −8.33 ± 3.27 (± 7.17 over seeds) |",
    ]
    header, first, second = to_csv(rows).splitlines()
    assert header.startswith("arm,bits,seeds,accuracy,accuracy_ci_episodes,accuracy_ci_seeds,")
    assert first.startswith("base,,0 1 2,90.0,")
    assert second.startswith("low,4,0 1 2,81.6667,13.4688,7.1717,20.0,0.0,0.0,-8.3333,3.2667,")
    assert second.endswith(",,,4.5")


@pytest.mark.parametrize("key", ["data_digest", "shots", "split", "episodes"])
def test_other_episodes_are_not_paired(key):
    rows = rows_of([made("base", 0, [0.5, 1]), made("x", 0, [0.5, 1], **{key: 2})], "base")
    assert [r.difference is None for r in rows] == [False, True]


def test_a_table_without_its_reference_has_no_differences():
    assert rows_of([made("x", 0, [0.5, 1])], "base")[0].difference is None


@pytest.mark.parametrize("name", ["scores.csv", "scores.jsonl"])
def test_scores_come_back_as_they_were(tmp_path, name):
    scores = [Score(0.2, 1 / 3, 0.7), Score(0.0, 1.0, 1e-9)]
    write_scores(tmp_path / name, scores)
    assert read_scores(tmp_path / name) == scores
    (tmp_path / name).write_text("episode,after\n0,half\n")
    with pytest.raises(RunError, match="expected the scores of an evaluation"):
        read_scores(tmp_path / name)


# --- plans ---------------------------------------------------------------------------------------


def test_points_stand_behind_those_they_need():
    plan = [Point("c", 0, after="b"), Point("b", 0, after="a"), Point("a", 0), Point("d", 0)]
    assert [p.name for p in in_order(plan)] == ["a", "b", "c", "d"]
    assert [p.name for p in chosen(plan, "[b]")] == ["b", "a"]
    with pytest.raises(ConfigError, match="waits for itself"):
        in_order([Point("a", 0, after="b"), Point("b", 0, after="a")])
    with pytest.raises(ConfigError, match="stands twice"):
        in_order([Point("a", 0), Point("a", 1)])
    with pytest.raises(ConfigError, match=r"'basse'.*did you mean 'base'"):
        in_order([Point("a", 0, after="basse"), Point("base", 0)])


def test_a_grid_is_arms_times_values_times_seeds(study):
    points = points_of(load_grid(str(study), ["seeds=[0, 1]", "steps=[1, 3, 5]"], KEYS))
    assert [p.name for p in points if p.seed == 1] == [
        *("base/s1", "evaluated/steps=1/s1", "evaluated/steps=3/s1", "evaluated/steps=5/s1"),
        "trained/steps=3/s1",
    ]
    by_name = {p.name: p for p in points}
    assert by_name["evaluated/steps=5/s0"].measure.overrides == ("learn.test_steps=5",)
    trained = by_name["trained/steps=3/s1"]
    assert trained.after == "base/s1"
    assert set(trained.overrides) == {
        *("seed=1", "train.iterations=4", "train.meta_lr=0.001", "learn.test_steps=3")
    }


def test_a_base_that_is_trained_already_is_not_trained(study):
    grid = load_grid(str(study), ["learn.rate=2"], KEYS, start="runs/s{seed}")
    base, evaluated, _, trained = points_of(grid)
    assert (base.train, base.start, base.measure.overrides) == (
        *(False, "runs/s0"),
        ("learn.rate=2",),
    )
    assert (evaluated.start, evaluated.after) == ("runs/s0", "")
    assert (trained.base, trained.start) == ("runs/s0/config.yaml", "runs/s0")
    assert "learn.rate=2" in trained.overrides
    assert "seed=0" not in trained.overrides  # the run's own


@pytest.mark.parametrize("name", sweep_names())
def test_every_sweep_that_ships_is_a_plan(name):
    grid = load_grid(name, [], KEYS)
    points = points_of(grid)
    assert grid.about
    assert len(points) >= 3 * 4
    assert {p.seed for p in points} == {0, 1, 2}
    assert all(p.after or p.train for p in points)
    sweeps.require_sound(points[: len(points) // 3], Place(Path("out")))  # of one seed


def test_sweeps_ship():
    assert {"weight-bits", "update-bits", "devices", "shots-and-steps"} <= set(sweep_names())


# --- the runner ----------------------------------------------------------------------------------


def act(point, tell, stop):
    """What the name of a point says: write, fail, die or wait."""
    word = point.arm
    if word == "fail":
        raise ConfigError("it is wrong.")
    if word == "break":
        raise ZeroDivisionError("by zero")
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "wait":
        tell(0.5)
        deadline = time.monotonic() + PATIENCE
        while not stop() and time.monotonic() < deadline:
            time.sleep(0.01)
        Path(point.values["file"]).write_text("stopped")
        raise Interrupted("stopped.")


def test_a_failed_point_is_named_and_the_rest_goes_on():
    points = [
        *(Point("wrong", 0, "fail"), Point("broken", 0, "break"), Point("dead", 0, "die")),
        *(Point("needs it", 0, "ok", after="dead"), Point("right", 0, "ok")),
    ]
    heard, seen = {}, []
    failed = run_points(
        *(points, act),
        processes=2,
        on_end=lambda point, problem: heard.update({point.name: problem}),
        on_status=seen.append,
    )
    assert failed == {
        "wrong": "it is wrong.",
        "broken": "ZeroDivisionError: by zero",
        "dead": "its process ended with code -9.",
        "needs it": "needs point dead, which failed.",
    }
    assert heard == failed | {"right": ""}
    assert (seen[-1].done, seen[-1].failed, seen[-1].total) == (1, 4, 5)
    assert seen[-1].running == ()
    assert seen[-1].left_s == 0


def test_a_stop_reaches_the_work(tmp_path):
    points = [Point(str(i), 0, "wait", {"file": str(tmp_path / str(i))}) for i in range(3)]
    seen = []
    with pytest.raises(Interrupted, match="0 of 3 points done"):
        run_points(
            *(points, act),
            processes=2,
            on_status=seen.append,
            stop=lambda: bool(seen) and seen[-1].left_s is not None,
        )
    assert sorted(f.name for f in tmp_path.iterdir()) == ["0", "1"]


# --- a sweep -------------------------------------------------------------------------------------


def test_a_sweep_keeps_all_it_did(done):
    place, _, results = done
    assert results["failed"] == {}
    assert results["unfinished"] == []
    names = ["base/s0", "evaluated/steps=1/s0", "evaluated/steps=3/s0", "trained/steps=3/s0"]
    assert sorted(results["points"]) == names
    for name in names:
        folder = place.out / "points" / name
        record = json.loads((folder / "point.json").read_text())
        scores = read_scores(folder / "scores.csv")
        assert len(scores) == record["result"]["episodes"] == 5
        mean = sum(s.after for s in scores) / 5
        assert mean == pytest.approx(record["result"]["accuracy"])
        assert record["result"]["data_digest"]
        assert (folder / "run").exists() == (name[0] in "bt")
        assert record["commands"][-1].startswith("spikeshot evaluate ")
    base, one, three, _ = (results["points"][n]["result"] for n in names)
    assert (base["inner_steps"], one["inner_steps"], three["inner_steps"]) == (2, 1, 3)
    trained = results["points"]["trained/steps=3/s0"]
    assert trained["start_digest"] == results["points"]["base/s0"]["learner_digest"]
    assert [row["arm"] for row in results["rows"]] == ["base", "evaluated", "evaluated", "trained"]
    assert (place.out / "table.csv").read_text().count("\n") == 5
    assert (place.out / "table.md").read_text().count("\n") == 6
    assert (place.out / "figure-steps.svg").read_text().count("inner steps") == 1


def test_a_point_is_what_its_commands_say(done, cli, tmp_path):
    """By hand: the training with a copy of the base's weights, then its evaluation."""
    _, _, results = done
    record = results["points"]["trained/steps=3/s0"]
    words = [w.split() for w in record["commands"]]
    out = words[0][words[0].index("--out") + 1]
    again = [w.replace(out, str(tmp_path / "again")) for w in words[0]]
    assert cli(*again[1:], "--set", "train.test_episodes=2").code == 0
    ended = cli(*[w.replace(out, str(tmp_path / "again")) for w in words[1][1:]], "--json")
    ours = json.loads(ended.out)
    for key in ("accuracy", "accuracy_before", "loss"):
        assert ours[key] == record["result"][key]


def test_finished_points_are_kept_and_lost_ones_done_again(done, tmp_path):
    place, grid, results = done
    there = replace(place, out=tmp_path / "out")
    shutil.copytree(place.out, there.out)
    before = {f: f.stat().st_mtime_ns for f in there.out.rglob("point.json")}
    lost = there.out / "points" / "evaluated" / "steps=3" / "s0" / "point.json"
    lost.unlink()
    with pytest.raises(RunError, match="holds points already"):
        sweeps.sweep(grid, points_of(grid), there)
    again = sweeps.sweep(grid, points_of(grid), there, resume=True)
    assert again["rows"] == results["rows"]
    changed = {f for f, at in before.items() if f.stat().st_mtime_ns != at}
    assert changed == {lost}
    other = replace(grid, measure=replace(grid.measure, episodes=6))
    with pytest.raises(RunError, match="made by another recipe: measure is"):
        sweeps.sweep(other, points_of(other), there, resume=True)


def test_points_of_a_preset_that_has_changed_since_are_refused(done, tmp_path):
    place, grid, _ = done
    there = replace(place, out=tmp_path / "out")
    shutil.copytree(place.out, there.out)
    changed = yaml.safe_load(Path(grid.base).read_text())
    changed["train"]["meta_lr"] = 0.5
    base = tmp_path / "tiny.yaml"
    base.write_text(yaml.safe_dump(changed))
    for file in there.out.rglob("point.json"):  # the same name, as a preset's is
        file.write_text(file.read_text().replace(json.dumps(grid.base), json.dumps(str(base))))
    other = replace(grid, base=str(base))
    with pytest.raises(RunError, match=r"point base/s0 .*: train.meta_lr is 0.5, was "):
        sweeps.sweep(other, points_of(other), there, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_or_stopped_sweep_goes_on_bit_for_bit(tmp_path, fake_zip, number):
    """The training of the base is ended in its middle, and continued."""
    config, file, out = tmp_path / "long.yaml", tmp_path / "study.yaml", tmp_path / "out"
    train = TINY["train"] | {"iterations": 200, "checkpoint_every": 5, "validate_every": 100}
    config.write_text(yaml.safe_dump(TINY | {"train": train}))
    raw = {"base": str(config), "arms": {"more": {"iterations": 4}}, "evaluate": {"episodes": 4}}
    file.write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-m", "spikeshot", "sweep", str(file), "--data", str(fake_zip)]
    run = out / "points" / "base" / "s0" / "run"
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        env=lingering(tmp_path / "slow"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(run / STATE, process)
        os.killpg(process.pid, number)  # as a terminal's Ctrl-C does
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == (130 if number == signal.SIGINT else -9)
    assert "Traceback" not in err
    assert not (run.parent / "point.json").exists()
    again = subprocess.run(
        [*command, "--out", str(out), "--resume"], capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    whole = subprocess.run([*command, "--out", str(tmp_path / "whole")], capture_output=True)
    assert whole.returncode == 0
    for name in ("base", "more"):
        ours, theirs = (o / "points" / name / "s0" for o in (out, tmp_path / "whole"))
        assert (ours / "scores.csv").read_bytes() == (theirs / "scores.csv").read_bytes()
        assert same_weights(ours / "run", theirs / "run")


def same_weights(run, other):
    from safetensors.torch import load_file

    a, b = load_file(run / "best.safetensors"), load_file(other / "best.safetensors")
    return a.keys() == b.keys() and all(bool((a[k] == b[k]).all()) for k in a)


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (("weight-bit",), ("sweep 'weight-bit' is unknown", "mean 'weight-bits'")),
        (("weight-bits", "--set", "bit=[4]"), ("'bit' is unknown", "mean 'bits'")),
        (("weight-bits", "--set", "bits=5"), ("value '5' is unknown",)),
        (("weight-bits", "--set", "arms.inner.iteration=5"), ("'iteration'", "mean 'iterations'")),
        (
            ("weight-bits", "--set", "evaluate.episodes=all"),
            ("evaluate.episodes is 'all'", "from 2"),
        ),
        (("weight-bits", "--set", "evaluate.shot=1"), ("'shot' is unknown", "mean 'shots'")),
        (("weight-bits", "--set", "reference=bas"), ("'bas'", "mean 'base'")),
        (("weight-bits", "--seeds", "0,x"), ("--seeds is '0,x'", "0,1,2")),
        (("weight-bits", "--only", "meta_trained/*"), ("--only 'meta_trained/*' fits no point",)),
        (("weight-bits", "--start", "runs/a"), ("3 seeds", "runs/s{seed}")),
        (("shots-and-steps", "--start", "gone/s{seed}"), ("point base/s0", "is no run")),
        (("shots-and-steps", "--set", "train.iteration=4"), ("'train.iteration' is unknown",)),
    ],
)
def test_bad_input_is_one_message_before_anything_begins(
    cli, tmp_path, monkeypatch, arguments, texts
):
    monkeypatch.chdir(tmp_path)
    ended = cli("sweep", *arguments)
    require_one_message(ended, texts)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_the_points_and_does_nothing(cli, tmp_path, monkeypatch, study):
    monkeypatch.chdir(tmp_path)
    ended = cli("sweep", study, "--dry-run", "--only", "trained/*")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0].startswith("base/s0: train fresh")
    assert lines[1].startswith("trained/steps=3/s0: train from base/s0")
    assert lines[2] == "2 points, 2 of them trained."
    assert list(tmp_path.iterdir()) == []
