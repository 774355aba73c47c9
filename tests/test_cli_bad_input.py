"""Bad input at the command line: one clear message, exit code 2, nothing half-written."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from fakes import fake_files, fake_recording, pack, write_folder, write_zip
from spikeshot.config import load_config


def refused(ended, *texts):
    """Check that a command was refused with one line that holds `texts`."""
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("spikeshot: ")
    assert ended.err.count("\n") == 1
    assert "Traceback" not in ended.err
    for text in texts:
        assert text in ended.err
    return True


@pytest.fixture
def train(cli, tiny_yaml, tmp_path, fake_zip):
    """`train` with the tiny configuration into a folder that must not be there afterwards."""

    def call(*arguments, data=fake_zip, config=tiny_yaml):
        out = tmp_path / "out" / "run"
        ended = cli("train", config, "--out", out, *(["--data", data] if data else []), *arguments)
        assert not (tmp_path / "out").exists()
        return ended

    return call


@pytest.fixture
def copy(tiny_run, tmp_path):
    """A copy of the tiny run, to be damaged."""
    return shutil.copytree(tiny_run, tmp_path / "copy")


# --- configuration -------------------------------------------------------------------------------


def test_an_unknown_preset(train):
    refused(train(config="double-nmnst-fast"), "'double-nmnst-fast'", "did you mean 'double-nmnist")


def test_an_unknown_key(train):
    refused(train("--set", "train.iteration=5"), "'train.iteration'", "mean 'iterations'")


def test_a_value_out_of_range(train):
    refused(train("--set", "task.ways=1"), "task.ways is 1", "greater than or equal to 2")


def test_an_unknown_corpus_surrogate_rule_and_a_crop_off_the_sensor(train):
    refused(train("--set", "data.corpus=nmnits"), "did you mean 'nmnist'")
    refused(train("--set", "network.neuron.surrogate=gausian"), "did you mean 'gaussian'")
    refused(train("--set", "learn.rule=sgdd"), "did you mean 'sgd'")
    refused(train("--set", "data.crop=[3, 3, 32, 32]"), "leaves the 34x34 sensor")


def test_a_surrogate_that_second_order_cannot_differentiate(train):
    ended = train("--set", "network.neuron.surrogate=piecewise_linear")
    refused(ended, "not twice differentiable", "learn.meta_gradient=first_order")


def test_layers_that_pool_the_image_away(train):
    refused(train("--set", "network.layers.0.pool=16"), "layer 0 pools the image away")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["trian"], "No such command 'trian'"),
        (["train"], "Missing argument 'CONFIG'"),
        (["train", "tiny", "--oot", "x"], "No such option"),
        (["evaluate", "run", "--episodes", "1"], "--episodes"),
        (["evaluate", "run", "--ways", "many"], "--ways"),
    ],
)
def test_wrong_usage(cli, arguments, text):
    refused(cli(*arguments), text, "See `spikeshot --help`.")


# --- recordings ----------------------------------------------------------------------------------


def test_no_data_given_and_no_data_at_the_path(train, tmp_path):
    refused(train(data=None), "--data PATH")
    refused(train(data=tmp_path / "gone.zip"), "gone.zip: no such file or folder")


def test_data_for_a_corpus_that_reads_none(train):
    refused(train("--set", "data.corpus=digits"), "'digits' is simulated and reads no data")


def test_a_zip_that_is_none_and_a_zip_of_other_things(train, tmp_path):
    (tmp_path / "text.zip").write_text("words")
    refused(train(data=tmp_path / "text.zip"), "text.zip: not a readable zip")
    other = write_zip(tmp_path / "other.zip", {"cats/1.jpg": b"x"})
    refused(train(data=other), "other.zip: holds no Train|Test/<digit>/<number>.bin")


@pytest.mark.parametrize("write", [write_folder, write_zip])
@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (pack(fake_recording(5, 1))[:-1], "not a multiple of the 5 bytes of an event"),
        (pack([(1, 1, 0, 1), (2, 34, 5, 1)]), "x=2, y=34, outside the 34x34 sensor"),
        (pack([(1, 1, 9, 1), (1, 1, 8, 1)]), "timestamps go back at event 1"),
        (b"", "no event in it"),
    ],
    ids=["truncated", "outside", "back", "empty"],
)
def test_a_bad_recording(train, tmp_path, write, raw, text):
    data = write(tmp_path / "data", fake_files() | {"Train/5/59999.bin": raw})
    refused(train(data=data), f"{data}: Train/5/59999.bin: ", text)


def test_too_few_recordings_or_classes_for_the_task(train):
    ended = train("--set", "task.shots=9", "--set", "task.queries=3")
    refused(ended, "has 9 recordings in split train; shots=9 and queries=3 need 12")
    refused(train("--set", "task.shots=2"), "has 2 recordings in split val")  # nothing late
    refused(train("--set", "task.ways=17"), "split val has 16 classes, fewer than ways=17")


def test_too_few_recordings_or_classes_for_the_evaluation(cli, tiny_run):
    refused(cli("evaluate", tiny_run, "--shots", 3), "'0' has 3 recordings in split test", "need 4")
    refused(cli("evaluate", tiny_run, "--ways", 21), "split test has 20 classes")


def test_data_that_has_moved_since_training(cli, copy):
    raw = json.loads((copy / "data.json").read_text())
    (copy / "data.json").write_text(json.dumps(raw | {"path": "/gone/N-MNIST.zip"}))
    refused(cli("evaluate", copy), "/gone/N-MNIST.zip: no such file")
    refused(cli("train", copy / "config.yaml", "--resume"), "/gone/N-MNIST.zip: no such file")


# --- runs ----------------------------------------------------------------------------------------


def test_a_run_that_exists_is_left_alone_without_resume(cli, tiny_run, tiny_yaml, fake_zip):
    before = {f: f.read_bytes() for f in tiny_run.rglob("*") if f.is_file()}
    ended = cli("train", tiny_yaml, "--data", fake_zip, "--out", tiny_run)
    refused(ended, f"run {tiny_run} already exists", "--resume", "another --out")
    gone = cli("train", tiny_yaml, "--data", "/gone.zip", "--out", tiny_run)
    refused(gone, "already exists")  # said before anything is read
    assert {f: f.read_bytes() for f in tiny_run.rglob("*") if f.is_file()} == before


def test_a_folder_of_other_things_is_left_alone(cli, tiny_yaml, fake_zip, tmp_path):
    (tmp_path / "thesis.tex").write_text("words")
    refused(cli("train", tiny_yaml, "--data", fake_zip, "--out", tmp_path), "holds other things")
    assert [f.name for f in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_output_folder_below_a_file(cli, tiny_yaml, fake_zip, tmp_path):
    (tmp_path / "file").write_text("words")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        ended = cli("train", tiny_yaml, "--data", fake_zip, "--out", out)
        refused(ended, f"{out} cannot be written ({tmp_path / 'file'} is a file)", "--out")
    assert (tmp_path / "file").read_text() == "words"


def test_an_output_folder_without_permission(train, monkeypatch):
    readable = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: not mode & os.W_OK and readable(p, mode))
    refused(train(), "cannot be written (no permission to write in ")


def test_an_output_folder_of_an_impossible_name(cli, tiny_yaml, fake_zip, tmp_path):
    ended = cli("train", tiny_yaml, "--data", fake_zip, "--out", tmp_path / ("x" * 300))
    refused(ended, "File name too long")


def test_an_unknown_run(cli, tmp_path):
    for verb in ("evaluate", "show"):
        refused(cli(verb, tmp_path / "gone"), f"{tmp_path / 'gone'} is no run: it has no config")


def test_a_split_that_is_none(cli, tiny_run):
    refused(cli("evaluate", tiny_run, "--split", "tset"), "'tset' (did you mean 'test'?)")


def test_resume_with_another_configuration(cli, copy, tiny_yaml):
    ended = cli("train", tiny_yaml, "--out", copy, "--resume", "--set", "train.meta_lr=0.1")
    refused(ended, "another configuration: train.meta_lr is 0.1, was 0.002", "another --out")


def test_resume_with_other_recordings(cli, copy, tiny_yaml, tmp_path):
    other = write_zip(tmp_path / "other.zip", fake_files(15))
    ended = cli("train", tiny_yaml, "--out", copy, "--resume", "--data", other)
    refused(ended, "was trained on other recordings", "Resume with the same --data")


def test_a_checkpoint_of_another_configuration(cli, copy):
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(text.replace("seed: 0", "seed: 1"))
    told = "was written by another configuration: seed is 1, was 0"
    refused(cli("train", copy / "config.yaml", "--resume"), "checkpoint/state.safetensors", told)
    refused(cli("evaluate", copy), "best.safetensors", told)


def flip(raw, at):
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


DAMAGES = {
    "short": lambda raw: raw[: len(raw) // 2],
    "empty": lambda raw: b"",
    "junk": lambda raw: bytes(range(256)),
    "other": lambda raw: b"[]",
    "flipped": lambda raw: flip(raw, len(raw) - 3),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_or_best_weights(cli, copy, damage):
    for name, arguments in (
        ("checkpoint/state.safetensors", ("train", copy / "config.yaml", "--resume")),
        ("best.safetensors", ("evaluate", copy)),
    ):
        file = copy / name
        whole = file.read_bytes()
        file.write_bytes(DAMAGES[damage](whole))
        refused(cli(*arguments), f"{file} is damaged", "Restore it from a copy, or train again")
        file.write_bytes(whole)
    assert cli("evaluate", copy, "--episodes", 2).code == 0


@pytest.mark.parametrize("damage", ["short", "empty", "junk", "other"])
def test_a_damaged_data_json_or_results_json(cli, copy, damage):
    for name in ("results.json", "data.json"):
        file = copy / name
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
        refused(cli("show", copy), f"{file} is damaged")
    refused(cli("evaluate", copy), "data.json is damaged")


def test_a_run_without_best_weights(cli, copy):
    (copy / "best.safetensors").unlink()
    refused(cli("evaluate", copy), "has no best.safetensors", "Train it first")


# --- the disk ------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_leaves_a_run_to_resume(cli, tiny_yaml, fake_zip, tmp_path):
    """No file may grow past 12 kB: the checkpoint (about 20 kB) cannot be written."""
    run = tmp_path / "run"
    code = (
        "import resource; from spikeshot.cli import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000)); main()"
    )
    command = [sys.executable, "-c", code, "train", str(tiny_yaml), "--data", str(fake_zip)]
    ended = subprocess.run([*command, "--out", str(run)], capture_output=True, text=True)
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"spikeshot: {run}/checkpoint/state.safetensors cannot be written (File")
    assert "--resume" in last
    assert "Traceback" not in ended.stderr
    files = {str(f.relative_to(run)) for f in run.rglob("*") if f.is_file()}
    assert files == {"config.yaml", "data.json", "metrics.jsonl"}
    assert cli("train", run / "config.yaml", "--resume").code == 0
    assert load_config(str(run / "config.yaml")) == load_config(str(tiny_yaml))


def test_metrics_that_cannot_be_written(cli, tiny_yaml, fake_zip, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spikeshot.run_folder.json_ready", full)
    ended = cli("train", tiny_yaml, "--data", fake_zip, "--out", tmp_path / "run")
    assert ended.code == 2
    assert "metrics.jsonl cannot be written (No space left on device)" in ended.err


def test_from_outside_there_is_no_traceback_either():
    command = [sys.executable, "-m", "spikeshot", "train", "nosuch"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("spikeshot: preset 'nosuch' is unknown")
    assert ended.stderr.count("\n") == 1
