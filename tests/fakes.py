"""A small made-up N-MNIST in the published layout, and a configuration that trains on it."""

import os
import time
import zipfile

import numpy as np

PER_DIGIT = 14

TINY = {
    "name": "tiny",
    "threads": 1,
    "data": {"corpus": "nmnist", "dt_us": 20_000, "bins": 4, "downsample": 4},
    "network": {
        "layers": [{"units": 4, "kernel": 3, "pool": 2}, {"units": 6}],
        "neuron": {"alpha": 0.6, "beta": 0.3, "delay": 0},
    },
    "task": {"ways": 3, "shots": 1, "queries": 1},
    "learn": {"rates": "tensor", "inner_steps": 2},
    "train": {
        "iterations": 6,
        "warmup": 2,
        "average": 0.5,
        "validate_every": 3,
        "validation_episodes": 3,
        "checkpoint_every": 2,
        "test_episodes": 4,
    },
}


PATIENCE = 600  # seconds a test waits for another process: a busy machine is no failure

LINGER = """
import time
from spikeshot.run_folder import STATE, RunFolder
append = RunFolder.append_metrics
def slowly(self, line):
    append(self, line)
    if (self.path / STATE).exists():
        time.sleep(0.3)
RunFolder.append_metrics = slowly
"""


def lingering(folder):
    """Return the environment of a process whose trainings take their time after a checkpoint.

    So a signal that is sent when there is one arrives before the training's end, however long
    the sender is kept from running. The numbers are the same.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(LINGER)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def pack(events):
    """Return N-MNIST's bytes for (x, y, t, p) events, from the published format's words.

    "bit 39-32: x, bit 31-24: y, bit 23: polarity, bit 22-0: timestamp in microseconds": one
    40-bit big-endian number (Orchard et al. 2015, and the README beside the real recordings).
    """
    return b"".join((x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big") for x, y, t, p in events)


def fake_recording(digit, number):
    """Return some hundred (x, y, t, p) events, in order: a blob whose place tells the digit."""
    rng = np.random.default_rng([digit, number])
    n = int(rng.integers(200, 400))
    x = np.clip(rng.normal(6 + 7 * (digit % 4), 1.5, n), 0, 33).astype(int)
    y = np.clip(rng.normal(6 + 10 * (digit // 4), 1.5, n), 0, 33).astype(int)
    t = np.sort(rng.integers(0, 300_000, n))
    p = rng.integers(0, 2, n)
    return list(zip(x.tolist(), y.tolist(), t.tolist(), p.tolist(), strict=True))


def fake_files(per_digit=PER_DIGIT):
    """Return {published name: bytes} of a small N-MNIST; the last of each digit is in Test."""
    files = {}
    for digit in range(10):
        for i in range(per_digit):
            part, number = (
                ("Test", digit + 1) if i == per_digit - 1 else ("Train", 10 * i + digit + 1)
            )
            files[f"{part}/{digit}/{number:05d}.bin"] = pack(fake_recording(digit, i))
    return files


def write_folder(folder, files):
    for name, raw in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(raw)
    return folder


def write_zip(file, files):
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        for name, raw in files.items():
            archive.writestr(name, raw)
    return file


def space_of(config, source, split):
    """Return what a run of `source` draws from in a meta-split: turned classes in training only."""
    from spikeshot.assemble_data import task_space

    if split == "train":
        return task_space(
            config, source.training, source.split, split, turned=source.turned_classes
        )
    return task_space(config, source.recordings, source.split, split)


def wait_for(path, process):
    """Wait until there is a file at `path`, which the running `process` writes."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def require_one_message(ended, texts):
    """Require a command's end at bad input: exit code 2, one line that has all `texts`."""
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    for text in texts:
        assert text in ended.err
