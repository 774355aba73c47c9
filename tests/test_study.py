"""Studies: arms, budgets, resuming, failing; the report against results.json and by hand."""

import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean

import pytest
import torch
import yaml

from fakes import require_one_message
from networks import small_network
from spikeshot import studies, sweeps
from spikeshot.config import Config
from spikeshot.errors import ConfigError, Interrupted
from spikeshot.study import cost
from spikeshot.study.confusion import Confusion
from spikeshot.study.curve import curve_points
from spikeshot.study.rasters import NEURONS, raster
from spikeshot.study.scores import read_scores
from spikeshot.study.study_file import Budget, adjusted_study, load_study, read_budget, study_names
from spikeshot.study.svg import Series, chart, forest
from spikeshot.sweeps import Place

KEYS = list(Config.model_fields)
LABEL = '<script>alert("SNN")</script> & co'
EPISODES = 5


@pytest.fixture(scope="module")
def file(tmp_path_factory, tiny_yaml):
    """A study of four arms: one trained twice, one on features, one that does not adapt."""
    path = tmp_path_factory.mktemp("study") / "small.yaml"
    raw = {
        "about": "a small one",
        "base": str(tiny_yaml),
        "budget": 4,
        "arms": {
            "spiking": {"label": LABEL},
            "frames": {"set": {"network": {"kind": "frames"}}},
            "features": {
                "learner": "spiking",
                "train": True,
                "set": {"learn.method": "centroid"},
            },
            "none": {"learner": "spiking", "set": {"learn.method": "none"}},
        },
        "evaluate": {"episodes": EPISODES},
        "steps": [0],
        "tasks": [{"shots": 2}],
        "inside": EPISODES,
    }
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory, file, fake_zip):
    """The study, done by two processes: its folder and results."""
    out = tmp_path_factory.mktemp("done") / "out"
    study = load_study(str(file), [], KEYS)
    again = ["spikeshot", "study", str(file)]
    points = studies.points_of_study(study)
    results = studies.run_study(study, points, Place(out, fake_zip), again, processes=2)
    assert results["failed"] == {}
    return out, results


class Page(HTMLParser):
    """What a browser would find: tags with attributes, styles, and the cells of each table."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.inside, self.text = [], {}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.rows = self.tables.setdefault(dict(attrs).get("id", ""), [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        self.text.append(data)
        if {"td", "th"} & set(self.inside):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def page(done):
    text = (done[0] / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


# --- a study -------------------------------------------------------------------------------------


def test_a_study_keeps_all_it_did(done):
    out, results = done
    names = ["spiking", "frames", "features", "none"]
    assert list(results["arms"]) == names
    assert results["unfinished"] == []
    assert [results["arms"][name]["tasks"] for name in names] == [[4], [4], [], []]
    places = [(r["arm"], r.get("steps"), r.get("task")) for r in results["rows"]]
    assert set(places) == {
        *((name, "", "") for name in names),
        *(("spiking", "0", ""), ("frames", "0", "")),
        *((name, "", "3-way 2-shot") for name in ("spiking", "frames", "features")),
    }
    assert len(results["data"][0]["data_digest"]) == 32
    assert results["machine"][0].partition(" cores, ")[0].isdecimal()
    assert list(results["curves"]) == ["spiking", "frames"]
    assert results["task"] == "3-way 1-shot"
    assert (out / "table.csv").read_text().count("\n") == 1 + len(places)
    assert (out / "table.md").read_text().count("\n") == 2 + len(places)


def test_accuracies_and_differences_are_those_of_the_episodes(done):
    out, results = done
    after = {
        arm: [s.after for s in read_scores(out / "points" / arm / "s0" / "scores.csv")]
        for arm in results["arms"]
    }
    assert {len(values) for values in after.values()} == {EPISODES}
    main = {r["arm"]: r for r in results["rows"] if not r["steps"] and not r["task"]}
    for arm, values in after.items():
        pairs = zip(values, after["spiking"], strict=True)
        assert main[arm]["accuracy"] == pytest.approx(100 * fmean(values), abs=1e-4)
        assert main[arm]["difference"] == pytest.approx(
            100 * fmean(a - b for a, b in pairs), abs=1e-4
        )
    at = {(r["arm"], r["steps"]): r for r in results["rows"]}
    assert at["spiking", "0"]["accuracy"] == main["spiking"]["before"]  # no step, no change
    assert main["none"]["accuracy"] == main["spiking"]["before"]


def test_what_is_seen_inside_is_of_the_same_episodes(done):
    _, results = done
    accuracy = {
        r["arm"]: r["accuracy"] for r in results["rows"] if not r["steps"] and not r["task"]
    }
    assert list(results["inside"]) == ["spiking", "frames", "features"]
    for arm, seen in results["inside"].items():
        assert seen["confusion"]["samples"] == EPISODES * 3  # three ways, one query each
        wrong = sum(pair["errors"] for pair in seen["confusion"]["most"])
        if len(seen["confusion"]["most"]) < 10:
            assert wrong / (EPISODES * 3) == pytest.approx(1 - accuracy[arm] / 100, abs=1e-4)
        assert seen["memory"]["weights"] > 0
    assert "rates" not in results["inside"]["frames"]
    spiking = results["inside"]["spiking"]
    kept = {arm: {"rasters"} & set(seen) for arm, seen in results["inside"].items()}
    assert kept == {"spiking": {"rasters"}, "frames": set(), "features": set()}
    assert {len(row) for row in spiking["rasters"][0]["after"]} == {4}  # time bins
    assert [len(spiking["rates"][when]["layers"]) for when in ("before", "after")] == [2, 2]
    assert spiking["operations"]["inference"]["macs"] == 0
    assert spiking["rates"]["before"] != spiking["rates"]["after"]
    once, adapted = (spiking["operations"][what] for what in ("inference", "adaptation"))
    assert adapted["accumulates"] == pytest.approx(
        3 * 2 * once["accumulates"]
    )  # 3 samples, 2 steps


# --- the report ----------------------------------------------------------------------------------


def test_the_report_needs_nothing_else(page):
    text, parsed = page
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text
    tags = {tag for tag, _ in parsed.tags}
    assert not tags & {"script", "link", "iframe", "img", "object", "embed", "base"}
    loads = {"src", "href", "srcset", "poster", "data", "action", "background", "xlink:href"}
    assert not [(tag, attrs) for tag, attrs in parsed.tags if loads & set(attrs)]


def test_the_report_is_made_for_a_phone_and_the_dark(page):
    text, parsed = page
    meta = [attrs for tag, attrs in parsed.tags if tag == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in meta
    assert "prefers-color-scheme: dark" in text
    tables = [i for i, (tag, _) in enumerate(parsed.tags) if tag == "table"]
    assert len(tables) > 5
    assert all(parsed.tags[i - 1] == ("div", {"class": "table"}) for i in tables)  # they scroll
    assert "overflow-x: auto" in text


def test_text_from_data_is_escaped(page):
    text, parsed = page
    assert LABEL not in text
    assert any(LABEL in cell for row in parsed.tables["accuracy"] for cell in row)


def written(row, name, sign=""):
    text = f"{row[name]:{sign}.2f} ± {row[f'{name}_ci_episodes']:.2f}"
    return text.replace("-", "−")


def test_numbers_in_the_report_are_those_of_the_results(done, page):
    _, results = done
    tables = page[1].tables
    main = [r for r in results["rows"] if not r["steps"] and not r["task"]]
    for row, cells in zip(main, tables["accuracy"][1:], strict=True):
        assert results["arms"][row["arm"]]["label"] in cells[0]
        assert cells[1:3] == [written(row, "before"), written(row, "accuracy")]
        if row["arm"] != "spiking":
            assert cells[3] == written(row, "difference", "+")
    steps = [r for r in results["rows"] if r["steps"]]
    shown = [cells[1:3] for cells in tables["steps"][1:]]
    assert shown == [[r["steps"], written(r, "accuracy")] for r in steps]
    two = {r["arm"]: r for r in results["rows"] if r["task"]}
    assert [cells[2] for cells in tables["tasks"][1:4]] == [
        written(two[arm], "accuracy") for arm in ("spiking", "frames", "features")
    ]
    assert tables["tasks"][0][1] == "3-way 1-shot"
    assert tables["tasks"][4][2] == "–"  # what does not adapt has one number
    rates = results["inside"]["spiking"]["rates"]
    for when, cells in zip(("before", "after"), tables["rates"][1:3], strict=True):
        assert cells[2:] == [
            *(f"{100 * rate:.2f}" for rate in rates[when]["layers"]),
            f"{100 * rates[when]['overall']:.2f}",
        ]
    weights = [cells[6] for cells in tables["operations"][1::2]]
    assert weights == [str(seen["memory"]["weights"]) for seen in results["inside"].values()]


def test_the_report_says_what_was_run(done, page):
    _, results = done
    said = " ".join(page[1].text)
    for text in (
        *("4 tasks", "spikeshot study", "Horowitz", results["data"][0]["data_digest"]),
        *(results["machine"][0], "inner_steps: 2", *results["arms"]["frames"]["commands"]),
    ):
        assert text in said


def test_the_report_is_written_again_without_training(cli, done, file, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    before = {f: f.stat().st_mtime_ns for f in (out / "points").rglob("*")}
    (out / "report.html").unlink()
    ended = cli("study", file, "--report-only", "--out", out)
    assert ended.code == 0
    assert ended.out.endswith(f"9 of 9 points are done. Report: {out / 'report.html'}\n")
    assert (out / "report.html").read_bytes() == (done[0] / "report.html").read_bytes()
    assert {f: f.stat().st_mtime_ns for f in (out / "points").rglob("*")} == before


# --- ends ----------------------------------------------------------------------------------------


def test_a_stopped_study_goes_on_and_ends_the_same(done, file, fake_zip, tmp_path):
    study = load_study(str(file), ["steps=[]", "tasks=[]"], KEYS)
    study = replace(study, arms={name: study.arms[name] for name in ("spiking", "frames")})
    points, place, ended = studies.points_of_study(study), Place(tmp_path / "out", fake_zip), []
    with pytest.raises(Interrupted, match="1 of 2 points done"):
        sweeps.do_points(
            *(points, place),
            on_end=lambda point, problem, result: ended.append(point.name),
            stop=lambda: bool(ended),
        )
    kept = {f: f.stat().st_mtime_ns for f in place.out.rglob("point.json")}
    assert len(kept) == 1
    results = studies.run_study(study, points, place, [], resume=True)
    assert results["unfinished"] == []
    assert {f: f.stat().st_mtime_ns for f in kept} == kept
    whole = {r["arm"]: r for r in done[1]["rows"] if not r["steps"] and not r["task"]}
    for row in results["rows"]:
        theirs = whole[row["arm"]]
        assert {k: theirs[k] for k in row if k != "training_minutes"} == {
            k: v for k, v in row.items() if k != "training_minutes"
        }


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ((), "corpus 'nmnist' reads your data; give its place with --data PATH"),
        (("--data", "nowhere"), "nowhere: no such file or folder"),
        (("--data", Path(__file__).parent), "expected N-MNIST's published layout"),
    ],
)
def test_recordings_that_are_not_there_are_one_message(cli, file, tmp_path, data, told):
    ended = cli("study", file, *data, "--out", tmp_path / "out", "--processes", 1)
    require_one_message(ended, [told])
    assert list(tmp_path.iterdir()) == []


def test_a_failing_arm_is_named_and_the_others_are_kept(cli, file, fake_zip, tmp_path):
    raw = yaml.safe_load(file.read_text())
    raw |= {"steps": [], "tasks": [], "arms": {"spiking": {}, "wild": {}}}
    raw["arms"]["wild"] = {"set": {"train.meta_lr": 1e38, "train.warmup": 0}}
    own = tmp_path / "wild.yaml"
    own.write_text(yaml.safe_dump(raw, sort_keys=False))
    out = tmp_path / "out"
    ended = cli("study", own, "--data", fake_zip, "--out", out, "--processes", 1)
    assert ended.code == 1
    assert "1 points failed:\n  wild/s0: iteration " in ended.err
    assert "Traceback" not in ended.err
    results = json.loads((out / "results.json").read_text())
    assert [row["arm"] for row in results["rows"]] == ["spiking"]
    assert list(results["failed"]) == results["unfinished"] == ["wild/s0"]
    assert "wild/s0: iteration " in (out / "report.html").read_text()


# --- plans and budgets ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", study_names())
def test_every_study_that_ships_is_a_plan(name):
    study = load_study(name, [], KEYS)
    points = studies.points_of_study(adjusted_study(study, [0], None, None))
    sweeps.require_sound(points, Place(Path("out")))
    assert study.reference == "spiking"
    kinds = {arm.keys.get("network.kind", "spiking") for arm in study.arms.values()}
    assert kinds == {"spiking", "leaky", "relu", "frames", "pixels"}
    assert {a.method for a in study.arms.values()} == {
        *("maml", "none", "protonet", "centroid", "transfer")
    }
    budget = f"train.iterations={study.budget.tasks}"
    trained = [p for p in points if p.train and "centroid" not in p.arm]
    assert len(trained) == 6 + len({"dense", "each-alone"} & set(study.arms))
    assert all(budget in p.overrides for p in trained)


def test_studies_ship():
    assert set(study_names()) == {
        *("double-nmnist", "omniglot", "omniglot-strokes", "double-signs", "paper")
    }


def test_the_papers_study_is_the_papers_configuration():
    study = load_study("paper", [], KEYS)
    point = studies.points_of_study(study)[0]
    config = sweeps.training_config(point, Place(Path("out")))
    assert (config.data.bins, config.data.dt_us, config.network.burn_in) == (100, 1000, 70)
    assert (config.learn.inner_steps, config.learn.rate, config.learn.rates) == (1, 1.0, "fixed")
    assert config.train.iterations * config.train.meta_batch == 20_000


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        *(("2000", Budget(2000)), ("30m", Budget(minutes=30)), ("1.5h", Budget(minutes=90))),
        *(("90s", Budget(minutes=1.5)), ("45 min", Budget(minutes=45)), (12, Budget(12))),
    ],
)
def test_a_budget_is_tasks_or_time(text, budget):
    assert read_budget(text, "--budget") == budget


@pytest.mark.parametrize("text", ["", "0", "-3", "1.5", "3 parsecs", "nan", "m", "0m", "1e3"])
def test_a_budget_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match=r"--budget is .*expected a number of training tasks"):
        read_budget(text, "--budget")


def test_tasks_are_shared_out_among_iterations(file):
    study = load_study(str(file), ["budget=8", "train.meta_batch=2"], KEYS)
    by_name = {p.name: p for p in studies.points_of_study(study)}
    assert "train.iterations=4" in by_name["spiking/s0"].overrides
    assert "train.iterations=1" in by_name["features/s0"].overrides  # nothing of it is trained
    assert by_name["features/s0"].after == by_name["none/s0"].after == "spiking/s0"
    timed = adjusted_study(study, [3, 4], 7, "90s")
    by_name = {p.name: p for p in studies.points_of_study(timed)}
    assert "train.minutes=1.5" in by_name["frames/s4"].overrides
    assert "train.minutes=0" in by_name["features/s3"].overrides
    assert by_name["spiking/steps=0/s4"].measure.episodes == 7


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (("omniglot-stroke",), ("study 'omniglot-stroke' is unknown", "mean 'omniglot-strokes'")),
        (("gone.yaml",), ("gone.yaml: cannot be read",)),
        (("paper", "--budget", "3 weeks"), ("--budget is '3 weeks'", "as 2000", "as 30m")),
        (("paper", "--seeds", "many"), ("--seeds is 'many'", "as 3", "as 0,1,2")),
        (("paper", "--seeds", "0"), ("--seeds is '0'",)),
        (("paper", "--set", "train.iterations=5"), ("expected --budget",)),
        (("paper", "--set", "trian.meta_lr=1"), ("'trian' is unknown", "mean 'train'")),
        (("paper", "--set", "train.meta=1"), ("arm spiking:", "'train.meta' is unknown")),
        (("paper", "--set", "reference=ann"), ("reference: arm 'ann' is unknown",)),
        (("paper", "--set", "arms.leaky.sets=1"), ("'sets' is unknown", "mean 'set'")),
        (("paper", "--set", "arms.leaky.learner=spikin"), ("'spikin'", "mean 'spiking'")),
        (("paper", "--set", "arms.none.learner=none"), ("arm 'none' is unknown",)),
        (("paper", "--set", "arms.leaky.train=false"), ("arms.leaky.train is False",)),
        (("paper", "--set", "steps=[-1]"), ("steps is -1", "from 0 on")),
        (("paper", "--set", "tasks=[{shot: 2}]"), ("'shot' is unknown", "mean 'shots'")),
        (("paper", "--set", "inside=0"), ("inside is 0",)),
        (("paper", "--set", "arms={}"), ("arms is empty",)),
        (("paper", "--only", "spikes/*"), ("--only 'spikes/*' fits no point",)),
        (("paper", "--report-only"), ("no finished point",)),
    ],
)
def test_bad_input_is_one_message_before_anything_begins(
    cli, tmp_path, monkeypatch, arguments, texts
):
    monkeypatch.chdir(tmp_path)
    ended = cli("study", *arguments)
    require_one_message(ended, texts)
    assert list(tmp_path.iterdir()) == []


def test_yaml_that_is_none_is_one_message(cli, tmp_path):
    (tmp_path / "bad.yaml").write_text("arms: [")
    ended = cli("study", tmp_path / "bad.yaml")
    assert ended.code == 2
    assert "not valid YAML" in ended.err


def test_a_dry_run_shows_the_points_and_does_nothing(cli, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = cli("study", file, "--dry-run", "--seeds", "2", "--only", "*/s1")
    assert ended.code == 0
    assert "spiking/s1: train fresh  seed=1 train.iterations=4 train.minutes=0\n" in ended.out
    assert ended.out.endswith("9 points, 3 of them trained.\n")
    assert list(tmp_path.iterdir()) == []


# --- parts, by hand ------------------------------------------------------------------------------


def test_confusion_counts_an_error_against_the_chances_for_it():
    """a and b meet twice; a is taken for b once of its 3 samples there, c is only met in one."""
    counts = Confusion()
    counts.add(("a", "b"), [0, 0, 1], [0, 1, 1])
    counts.add(("b", "a"), [1], [1])
    counts.add(("c", "a"), [0], [0])
    found = counts.summary()
    assert (found["samples"], found["classes"]) == (5, ["a", "b", "c"])
    assert found["most"] == [{"true": "a", "taken_for": "b", "errors": 1, "of": 3}]
    assert found["matrix"] == [[0.6667, 0.3333, None], [0.0, 1.0, None], [0.0, None, 1.0]]


def test_energy_is_horowitzs_table():
    """1000 multiply-accumulates at 4.6 pJ and 1000 additions at 0.9 pJ are 4.6 and 0.9 nJ."""
    assert cost.Operations(macs=1000).energy_nj == pytest.approx(4.6)
    assert cost.Operations(accumulates=1000).energy_nj == pytest.approx(0.9)
    assert cost.Operations(1000, 1000, 1000).energy_nj == pytest.approx(4.6 + 0.9 + 4.6)


def test_an_adaptation_is_forward_and_backward_passes_of_the_support():
    """5 samples, 3 steps: 15 forward passes and as many backward, each twice the dense products."""
    from spikeshot.study.operations import multiply_accumulates

    net, once = small_network(), cost.Operations(0.0, 100.0, 10.0)
    given = {"ways": 3, "steps": 3, "time_steps": 7, "samples": 5}
    dense = multiply_accumulates(net, 3, 7 - net.burn_in)
    found = cost.adaptation(net, once, method="maml", prototypes=False, **given)
    assert found == cost.Operations(15 * 2.0 * dense, 1500.0, 150.0)
    started = cost.adaptation(net, once, method="maml", prototypes=True, **given)
    assert started == found.plus(once.times(5))
    closed = cost.adaptation(net, once, method="protonet", prototypes=False, **given)
    assert closed == once.times(5)
    none = cost.adaptation(net, once, method="none", prototypes=False, **given)
    assert none == cost.Operations()


def test_a_raster_shows_neurons_that_change():
    """Of three neurons one never and one always fires; the third is the one to look at."""
    before = torch.tensor([[0, 1, 0], [0, 1, 1]], dtype=torch.float32)[:, None]
    after = torch.tensor([[0, 1, 1], [0, 1, 0]], dtype=torch.float32)[:, None]
    assert raster(before, after) == {
        **{"neurons": 3, "shown": 1, "steps": 2},
        **{"before": ["01"], "after": ["10"]},
    }
    many = torch.zeros(2, 1, 4, 5, 10)
    many[0] = 1
    assert raster(many, many)["shown"] == NEURONS


def test_a_learning_curve_counts_the_minutes_of_all():
    lines = [{"kind": "train", "iteration": i, "accuracy": i / 10, "seconds": 30} for i in (1, 2)]
    lines.append(
        {"kind": "validation", "iteration": 2, "accuracy": 0.5, "ci95": 0.1, "seconds": 60}
    )
    assert curve_points(lines) == {
        "training": [[1, 0.5, 0.1], [2, 1.0, 0.2]],
        "validation": [[2, 2.0, 0.5, 0.1]],
    }


def test_a_chart_puts_points_where_they_belong():
    """Two points from corner to corner of the frame: x 46..628, y 278 (40 %) to 12 (80 %)."""
    svg = chart([Series(0, "a < b", [(0, 40, 0), (10, 80, 0)])], "steps", "accuracy")
    assert '<polyline points="46.0,278.0 628.0,12.0" class="line"/>' in svg
    assert "<title>a &lt; b</title>" in svg
    assert chart([], "steps", "accuracy") == ""


def test_a_forest_puts_intervals_where_they_belong():
    """A scale from 40 to 80 %, x 250..620: 50 ± 10 is 250..435 with its middle at 342.5."""
    lines = [Series(0, "<a>", [(50, 0, 10)]), Series(1, "b" * 60, [(75, 0, 5)])]
    svg = forest(lines, "accuracy")
    assert '<path d="M250.0 25.0H435.0" class="bar"/><circle cx="342.5" cy="25.0" r="4"/>' in svg
    assert "&lt;a&gt;" in svg
    assert f">{'b' * 37}…</text>" in svg
    assert forest([], "accuracy") == ""
