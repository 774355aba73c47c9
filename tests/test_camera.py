"""The camera model: closed forms, symmetries, determinism, and real N-MNIST."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spikeshot.data.camera import Camera, watch
from spikeshot.data.nmnist import read_nmnist
from spikeshot.data.recordings import gather_recordings
from spikeshot.data.saccades import Saccades, Stroke, displacement
from spikeshot.data.simulate import simulate
from spikeshot.errors import ConfigError, DataError

DATA = Path(__file__).parents[2] / "shared" / "data"
IDEAL = Camera(
    sensor_size=(1, 1),
    theta_on=0.2,
    theta_off=0.25,
    mismatch=0.0,
    threshold_noise=0.0,
    drift=0.0,
    start_spread=0.0,
    refractory_us=0.0,
    lag_on_us=0.0,
    lag_off_us=0.0,
    noise_on_hz=0.0,
    noise_off_hz=0.0,
)
DIGITS = tuple("0123456789")


def blobs(n):
    """Return n different images [n, 28, 28] with bright strokes."""
    rng = np.random.default_rng(0)
    images = np.zeros((n, 28, 28), np.uint8)
    for image in images:
        for _ in range(3):
            x, y = rng.integers(4, 18, 2)
            image[y : y + rng.integers(2, 8), x : x + rng.integers(2, 8)] = 250
    return images


def run(images, origins=None, **options):
    origins = origins or [f"train/{i:05d}" for i in range(len(images))]
    options = {"seed": 3, "duration_us": 60_000} | options
    return simulate(images, [0] * len(images), DIGITS, origins, **options)


# --- the pixel, against closed forms -------------------------------------------------------------


def test_a_ramp_of_log_light_gives_events_at_its_threshold_crossings():
    """log L = 2.1 t / 100 ms crosses k * 0.2 at t = k * 0.2 / 2.1 * 100 ms, k = 1 .. 10."""
    levels = np.linspace(0, 2.1, 8)[:, None, None]
    events = watch(levels, 100_000 / 7, camera=IDEAL, seed=0)
    expected = np.arange(1, 11) * 0.2 / 2.1 * 100_000
    assert np.abs(events["t"] - expected).max() <= 1  # whole microseconds
    assert (events["p"] == 1).all()


def test_after_a_turn_of_the_light_a_pixel_needs_both_thresholds():
    """Up by 0.5: ON at 0.2, 0.4. Then down by 1: OFF at 0.4 - 0.25 k, k = 1, 2, 3."""
    levels = np.array([0.0, 0.5, -0.5])[:, None, None]
    events = watch(levels, 10_000, camera=IDEAL, seed=0)
    assert events["p"].tolist() == [1, 1, 0, 0, 0]
    expected = [4_000, 8_000, 13_500, 16_000, 18_500]
    assert np.abs(events["t"] - expected).max() <= 1


def test_on_and_off_swap_when_the_log_light_is_inverted_and_thresholds_are_equal():
    camera = replace(IDEAL, sensor_size=(3, 2), theta_off=0.2, refractory_us=700.0)
    camera = replace(camera, lag_on_us=2_000.0, lag_off_us=2_000.0)
    rng = np.random.default_rng(1)
    levels = np.cumsum(rng.normal(0, 0.2, (50, 2, 3)), axis=0)
    up = watch(levels, 1_000, camera=camera, seed=0)
    down = watch(-levels, 1_000, camera=camera, seed=0)
    assert len(up) > 50
    for field in ("x", "y", "t"):
        np.testing.assert_array_equal(up[field], down[field])
    np.testing.assert_array_equal(up["p"], 1 - down["p"])


def test_a_step_of_light_reaches_the_lagging_pixel_exponentially():
    """First-order low-pass: 1 - exp(-t / tau) reaches 0.2 at t = -tau ln 0.8."""
    camera = replace(IDEAL, lag_on_us=20_000.0)
    levels = np.concatenate([[0.0], np.ones(400)])[:, None, None]
    events = watch(levels, 100, camera=camera, seed=0)
    expected = -20_000 * np.log(1 - 0.2 * np.arange(1, 5))
    assert np.abs(events["t"][:4] - expected).max() <= 20


def test_no_pixel_sends_two_events_within_its_refractory_period():
    camera = Camera(refractory_us=2_000.0, noise_on_hz=100.0, noise_off_hz=100.0)
    events = run(blobs(1), camera=camera)[0]
    pixel = events["y"].astype(int) * 34 + events["x"]
    order = np.lexsort((events["t"], pixel))
    waits = np.diff(events["t"][order])[np.diff(pixel[order]) == 0]
    assert len(waits) > 500
    assert waits.min() >= 2_000


def test_still_light_gives_background_events_only_at_their_rate():
    levels = np.zeros((101, 20, 20))
    still = replace(IDEAL, sensor_size=(20, 20))
    assert len(watch(levels, 10_000, camera=still, seed=0)) == 0
    noisy = watch(levels, 10_000, camera=replace(still, noise_on_hz=7.5, noise_off_hz=2.5), seed=0)
    assert len(noisy) == pytest.approx(4_000, abs=4 * 4_000**0.5)  # Poisson: 400 px * 1 s * 10 Hz
    assert noisy["p"].mean() == pytest.approx(0.75, abs=0.03)


def test_mismatch_is_the_same_for_all_recordings_of_one_camera():
    camera = replace(IDEAL, sensor_size=(40, 40), mismatch=0.2, mismatch_seed=5)
    levels = np.broadcast_to(np.linspace(0, 6, 20)[:, None, None], (20, 40, 40))
    first, second = (watch(levels, 1_000, camera=camera, seed=s) for s in (1, 2))
    np.testing.assert_array_equal(first, second)
    other = watch(levels, 1_000, camera=replace(camera, mismatch_seed=6), seed=1)
    assert len(other) != len(first)


# --- the moving image ----------------------------------------------------------------------------


def test_a_stroke_is_eased_by_a_cosine():
    motion = Saccades(strokes=(Stroke(10_000, 40_000, 4.0, -2.0),))
    dx, dy = displacement(motion, [0, 10_000, 20_000, 30_000, 50_000, 90_000])
    share = [0, 0, (1 - 0.5**0.5) / 2, 0.5, 1, 1]
    np.testing.assert_allclose(dx, 4 * np.array(share), atol=1e-12)
    np.testing.assert_allclose(dy, -2 * np.array(share), atol=1e-12)


def test_a_blank_image_and_a_still_image_give_no_event_without_noise():
    quiet = replace(Camera(), noise_on_hz=0.0, noise_off_hz=0.0)
    lit = replace(quiet, noise_on_hz=5.0)
    still = Saccades(strokes=())
    with pytest.raises(DataError, match="no event"):
        run(np.zeros((1, 28, 28), np.uint8), camera=quiet)
    with pytest.raises(DataError, match="no event"):
        run(blobs(1), camera=quiet, motion=still)
    noise = run(blobs(1), camera=lit, motion=still)
    assert len(noise.events) == pytest.approx(34 * 34 * 0.06 * 5, abs=80)


def test_a_dark_edge_moving_down_sends_off_before_it_and_on_behind_it():
    """Ink is dark, so the pixels that it moves onto go OFF, the pixels that it leaves ON."""
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 10:14, 4:24] = 255
    motion = Saccades(origin=(3.0, 3.0), strokes=(Stroke(0, 50_000, 0, 3.0),), jitter_px=0.0)
    events = run(image, motion=motion, camera=replace(Camera(), noise_on_hz=0.0, noise_off_hz=0.0))[
        0
    ]
    on, off = (events[events["p"] == p]["y"].mean() for p in (1, 0))
    assert 13 <= on <= 17  # rows 13..16 of the sensor are left
    assert 16 < off <= 20  # rows 17..19 are covered
    assert off - on > 2


def test_events_are_sorted_on_the_sensor_and_before_the_end():
    recordings = run(blobs(4), duration_us=33_333)
    assert recordings.sensor_size == (34, 34)
    for i in range(4):
        events = recordings[i]
        assert (np.diff(events["t"]) >= 0).all()
        assert events["t"].min() >= 0
        assert events["t"].max() < 33_333
        for field in ("x", "y"):
            assert events[field].min() >= 0
            assert events[field].max() < 34


def test_cutting_short_equals_cutting_the_full_recording():
    full = run(blobs(3), duration_us=None)
    short = run(blobs(3), duration_us=77_777)
    for i in range(3):
        np.testing.assert_array_equal(short[i], full[i][full[i]["t"] < 77_777])


# --- determinism ---------------------------------------------------------------------------------


def test_a_recording_depends_on_seed_and_origin_not_on_the_others():
    images = blobs(5)
    names = [f"train/{i:05d}" for i in range(5)]
    everything = run(images, names)
    pick = [4, 1]
    subset = run(images[pick], [names[i] for i in pick])
    for k, i in enumerate(pick):
        np.testing.assert_array_equal(subset[k], everything[i])
    assert run(images, names).digest == everything.digest
    assert run(images, names, seed=4).digest != everything.digest
    renamed = run(images[:1], ["test/00000"])
    assert not np.array_equal(renamed[0], everything[0])


def test_the_number_of_threads_changes_nothing():
    code = (
        "import numpy as np\n"
        "from spikeshot.data.simulate import simulate\n"
        "images = (np.arange(6 * 784).reshape(6, 28, 28) % 251).astype(np.uint8)\n"
        "r = simulate(images, [0] * 6, '01', list('abcdef'), seed=1, duration_us=30_000)\n"
        "print(r.digest)\n"
    )
    digests = set()
    for threads in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"NUMBA_NUM_THREADS": threads, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"theta_on": 0.0}, "theta_on is 0.0"),
        ({"theta_off": -0.1}, "theta_off is -0.1"),
        ({"ink": float("nan")}, "ink is nan"),
        ({"refractory_us": -1}, "refractory_us is -1"),
        ({"noise_on_hz": float("inf")}, "noise_on_hz is inf"),
        ({"sensor_size": (0, 34)}, "sensor_size"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        Camera(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 0.0},
        {"jitter_px": -1.0},
        {"duration_us": 0},
        {"origin": (float("nan"), 0.0)},
        {"jitter_us": (-1.0, 0.0, 0.0)},
        {"strokes": (Stroke(0, 10, 1, 1, 3),)},
        {"strokes": (Stroke(0, 0, 1, 1),)},
    ],
)
def test_a_motion_that_cannot_be_is_refused(change):
    with pytest.raises(ConfigError, match="expected"):
        Saccades(**change)


def test_bad_images_and_lists_are_refused():
    good = blobs(2)
    for images in (good[0], good.astype(np.float32), good.tolist()):
        with pytest.raises(DataError, match="uint8 array"):
            run(images)
    with pytest.raises(DataError, match="2 images, 2 labels and 1 origins"):
        simulate(good, [0, 0], DIGITS, ["a"], seed=0)
    with pytest.raises(DataError, match="duration_us is 0"):
        run(good, duration_us=0)
    with pytest.raises(DataError, match="shape"):
        watch(np.zeros((5, 2, 2)), 1_000, camera=IDEAL, seed=0)
    with pytest.raises(DataError, match="step_us is 0"):
        watch(np.zeros((5, 1, 1)), 0, camera=IDEAL, seed=0)


def test_no_images_give_no_recordings():
    assert len(run(np.zeros((0, 28, 28), np.uint8))) == 0


# --- real N-MNIST --------------------------------------------------------------------------------


@pytest.mark.data
def test_simulated_n_mnist_is_like_the_real_one():
    """The camera's defaults against 100 real recordings of the same images, within 15 %."""
    archive = DATA / "nmnist" / "N-MNIST-small.zip"
    if not archive.exists():
        pytest.skip(f"no real recordings at {archive}")
    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
    try:
        from calibrate_camera import cosine, measure, read_images, spread
    finally:
        sys.path.pop(0)
    everything = read_nmnist(archive)
    pick = range(0, len(everything), len(everything) // 100)[:100]
    real = gather_recordings(
        [everything[i] for i in pick],
        [int(everything.labels[i]) for i in pick],
        everything.classes,
        [everything.origins[i] for i in pick],
        everything.sensor_size,
    )
    images = read_images(DATA / "mnist", real.origins)
    fake = simulate(images, real.labels.tolist(), real.classes, real.origins, seed=0)
    r, f = measure(real, Saccades()), measure(fake, Saccades())
    assert f.counts.mean() == pytest.approx(r.counts.mean(), rel=0.15)
    assert f.on_share == pytest.approx(r.on_share, rel=0.15)
    np.testing.assert_allclose(f.saccade_shares, r.saccade_shares, rtol=0.15)
    assert spread(f.activity) == pytest.approx(spread(r.activity), rel=0.15)
    first = 10 * 512  # the first 100 ms; two real recordings of one digit reach about 0.41
    assert cosine(r.frames[:, :first], f.frames[:, :first]) > 0.85
