"""The configuration: presets, files, `--set`, and what is said of every kind of mistake."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fakes import TINY
from spikeshot.assemble_data import frame_spec
from spikeshot.config import Config, NeuronConfig, load_config, preset_names
from spikeshot.errors import ConfigError


def write(folder, text):
    (folder / "my.yaml").write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    return str(folder / "my.yaml")


def problem(source, *overrides):
    """Return the one message that `source` is refused with."""
    with pytest.raises(ConfigError) as error:
        load_config(source, overrides)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


# --- presets and files ---------------------------------------------------------------------------


def test_there_are_presets():
    assert {"quickstart", "double-nmnist", "double-nmnist-fast"} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_loads_and_says_what_it_is(name):
    config = load_config(name)
    assert config.name == name
    assert config.about


def test_the_reference_preset_is_the_papers_configuration():
    """The authors' published code: nmi-lab/snn_maml, "reference configuration"."""
    c = load_config("double-nmnist")
    d, n, learn = c.data, c.network, c.learn
    assert (c.task.ways, c.task.shots, c.task.queries) == (5, 1, 10)
    assert (learn.rule, learn.inner_steps, learn.rate, learn.rates) == ("sgd", 1, 1.0, "fixed")
    assert learn.meta_gradient == "exact"
    assert (c.train.meta_lr, c.train.meta_batch, c.train.iterations) == (2e-3, 1, 20_000)
    shapes = [(layer.units, layer.kernel, layer.pool) for layer in n.layers]
    assert shapes == [(32, 5, 2), (64, 5, 2), (128, 5, 2)]
    assert (n.pool_kind, n.pool_where, n.readout) == ("average", "before", "last")
    assert (d.bins, d.dt_us, n.burn_in, n.input_gain) == (100, 1000, 70, 10)
    assert (frame_spec(c).crop, d.downsample, n.init.activity) == ((1, 1, 32, 32), 2, 0.288)
    assert n.neuron.decays(d.dt_us) == (0.95, 0.9, 0.65)
    assert (n.neuron.threshold, n.neuron.reset) == (0, "refractory")
    assert (n.neuron.surrogate, n.neuron.sharpness) == ("fast_sigmoid", 10)


@pytest.mark.parametrize("name", preset_names())
def test_a_dump_is_complete_and_loads_to_the_same(name, tmp_path):
    config = load_config(name, ["seed=7", "data.crop=null", "network.neuron.tau_synapse_ms=3"])
    dumped = config.to_yaml()
    assert load_config(write(tmp_path, dumped)) == config
    assert yaml.safe_load(dumped).keys() == Config.model_fields.keys()


@given(st.floats(1e-30, 1e30), st.floats(0, 1, exclude_max=True), st.integers(0, 2**63 - 1))
def test_numbers_survive_the_dump_exactly(meta_lr, beta, seed):
    config = Config.model_validate(
        {"seed": seed, "train": {"meta_lr": meta_lr}, "network": {"neuron": {"beta": beta}}}
    )
    assert Config.model_validate(yaml.safe_load(config.to_yaml())) == config


def test_text_beyond_ascii_survives(tmp_path):
    file = tmp_path / "umlaut.yaml"
    file.write_text("name: Übung\nabout: '5 ± 1 [µs]'\n", encoding="utf-8")
    config = load_config(str(file))
    assert config.name == "Übung"
    assert load_config(write(tmp_path, config.to_yaml())) == config


def test_an_empty_file_is_all_defaults(tmp_path):
    assert load_config(write(tmp_path, "# nothing\n")) == Config()


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Config().train.iterations = 5


# --- --set ---------------------------------------------------------------------------------------


def test_set_changes_one_key_and_leaves_the_rest(tmp_path):
    source = write(tmp_path, TINY)
    before = load_config(source).model_dump()
    after = load_config(source, ["train.meta_lr=1e-3", "learn.rates=scalar"]).model_dump()
    assert after["train"].pop("meta_lr") == 1e-3
    assert after["learn"].pop("rates") == "scalar"
    del before["train"]["meta_lr"], before["learn"]["rates"]
    assert after == before


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("seed=5", lambda c: c.seed == 5),
        ("name=a=b", lambda c: c.name == "a=b"),
        ("data.crop=[0, 0, 34, 34]", lambda c: c.data.crop == (0, 0, 34, 34)),
        ("data.crop=null", lambda c: c.data.crop is None),
        ("data.crop=auto", lambda c: c.data.crop == "auto"),
        ("network.layers=[{units: 9}]", lambda c: [x.units for x in c.network.layers] == [9]),
        ("network.layers.1.units=7", lambda c: [x.units for x in c.network.layers] == [16, 7, 32]),
        ("network.layers.2={units: 5}", lambda c: c.network.layers[2].kernel == 0),
        ("data.recording_fractions.0=0.64", lambda c: c.data.recording_fractions[0] == 0.64),
        ("network.neuron.tau_membrane_ms=20", lambda c: c.network.neuron.tau_membrane_ms == 20),
    ],
)
def test_the_forms_of_set(tmp_path, override, read):
    assert read(load_config(write(tmp_path, "name: plain"), [override]))


def test_later_sets_win_and_only_the_whole_must_fit(tmp_path):
    source = write(tmp_path, "name: plain")
    c = load_config(source, ["network.burn_in=20", "data.bins=15", "data.bins=30"])
    assert (c.network.burn_in, c.data.bins) == (20, 30)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.iterations", "expected key=value, as in train.iterations=500"),
        ("=5", "expected key=value"),
        ("train.iterations=[", "the value is not valid YAML"),
        ("train.iterations=2001-99-99", "the value is not valid YAML"),
        ("train.iterations.x=5", "'x' would lie in a value, not in a section"),
        ("network.layers.3.units=5", "'3' is no entry of the list; expected 0 to 2"),
        ("network.layers.one.units=5", "'one' is no entry of the list"),
        ("train=5", "train is 5"),
        ("trian.iterations=5", "key 'trian' is unknown (did you mean 'train'?)"),
        ("iterations=5", "key 'iterations' is unknown (did you mean 'train.iterations'?)"),
        ("train.shots=5", "key 'train.shots' is unknown (did you mean 'task.shots'?)"),
    ],
)
def test_a_set_that_cannot_be_is_explained(tmp_path, override, message):
    assert message in problem(write(tmp_path, "name: plain"), override)


# --- mistakes ------------------------------------------------------------------------------------


def test_an_unknown_preset_is_named_with_the_nearest_and_all():
    message = problem("double-nmnist-fats")
    assert "'double-nmnist-fats' is unknown (did you mean 'double-nmnist-fast'?)" in message
    assert all(name in message for name in preset_names())


def test_a_file_that_is_not_there():
    assert "gone.yaml: cannot be read" in problem("gone.yaml")


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "raw.yaml").write_bytes(b"\xff\xfe\x00name")
    assert "raw.yaml: cannot be read" in problem(str(tmp_path / "raw.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c", "not valid YAML (mapping values are not allowed here"),
        ("name: [a", "not valid YAML"),
        ("name: 2001-99-99", "not valid YAML"),
        ("- 1\n- 2", "holds a list; expected `key: value` lines"),
        ("just words", "holds a str; expected"),
        ("5: 3", "5 is 5; keys should be strings"),
        ("train:", "train is None"),
    ],
)
def test_yaml_that_is_no_configuration(tmp_path, text, message):
    found = problem(write(tmp_path, text))
    assert found.startswith(f"{tmp_path / 'my.yaml'}: ")
    assert message in found


def sections(model=Config, at=()):
    """Yield (path, known keys) of every section of the configuration."""
    yield at, list(model.model_fields)
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
            yield from sections(field.annotation, (*at, name))


SECTIONS = list(sections())


@pytest.mark.parametrize(
    ("path", "known"), SECTIONS, ids=[".".join(p) or "root" for p, _ in SECTIONS]
)
def test_an_unknown_key_anywhere_is_named_with_the_nearest(tmp_path, path, known):
    assert len(SECTIONS) == 14
    for key in known:
        wrong = f"{key}x"
        tree = {wrong: 1}
        for section in reversed(path):
            tree = {section: tree}
        message = problem(write(tmp_path, tree))
        assert f"key '{'.'.join((*path, wrong))}' is unknown (did you mean '{key}'?)" in message
        assert f"expected one of {', '.join(known)}." in message


def test_an_unknown_key_in_a_layer(tmp_path):
    message = problem(write(tmp_path, "network: {layers: [{units: 3}, {units: 3, kernl: 5}]}"))
    assert "key 'network.layers.1.kernl' is unknown (did you mean 'kernel'?)" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.iterations=0", "train.iterations is 0; input should be greater than or equal to 1"),
        ("train.iterations=2.5", "train.iterations is 2.5; input should be a valid integer"),
        ("train.iterations=many", "train.iterations is 'many'; input should be a valid integer"),
        ("task.ways=1", "task.ways is 1; input should be greater than or equal to 2"),
        ("seed=-1", "seed is -1"),
        (f"seed={2**63}", "seed is 9223372036854775808; input should be less than"),
        ("train.meta_lr=.inf", "train.meta_lr is inf; input should be a finite number"),
        ("train.meta_lr=.nan", "train.meta_lr is nan; input should be a finite number"),
        ("network.neuron.alpha=1", "network.neuron.alpha is 1; input should be less than 1"),
        ("network.neuron.alpha=-0.1", "network.neuron.alpha is -0.1"),
        (
            "network.neuron.tau_membrane_ms=0",
            "tau_membrane_ms is 0; input should be greater",
        ),
        ("network.neuron.reset=hard", "reset is 'hard'; input should be 'refractory', 'subtract'"),
        (
            "learn.meta_gradient=second",
            "meta_gradient is 'second'; input should be 'exact', 'first_order' or",
        ),
        ("data.crop=[1, 2, 3]", "data.crop: [1, 2, 3] is no crop; expected auto, null (the whole"),
        ("data.crop=[1, 2, 3, 4.5]", "data.crop: [1, 2, 3, 4.5] is no crop"),
        ("data.crop=whole", "data.crop: 'whole' is no crop; expected auto, null"),
        ("network.layers=[{kernel: 3}]", "network.layers.0.units is missing"),
        ("network.layers.0.kernel=4", "kernel is 4; expected an odd number, or 0"),
        (
            "network.layers=[{units: 3, pool: 2}]",
            "pool is 2 in a fully connected layer",
        ),
        ("network.burn_in=10", "network.burn_in is 10; expected below data.bins=10"),
        ("data.recording_fractions=[0.5, 0.5, 0.5]", "expected three positive, summing to 1"),
        ("data.recording_fractions=[1.2, -0.1, -0.1]", "expected three positive, summing to 1"),
        ("data.augment.drop=1", "data.augment.drop is 1; input should be less than 1"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_expected(tmp_path, override, message):
    assert message in problem(write(tmp_path, "name: plain"), override)


# --- the neuron's time constants -----------------------------------------------------------------


@given(st.integers(1, 100_000), st.floats(0.1, 1000))
def test_a_time_constant_is_a_decay_of_exp_minus_dt_over_tau(dt_us, tau_ms):
    names = ("tau_membrane_ms", "tau_synapse_ms", "tau_reset_ms")
    neuron = NeuronConfig(**{name: k * tau_ms for k, name in enumerate(names, 1)})
    dt_s, tau_s = dt_us * 1e-6, tau_ms * 1e-3
    expected = [math.exp(-dt_s / (k * tau_s)) for k in (1, 2, 3)]
    assert neuron.decays(dt_us) == pytest.approx(expected, rel=1e-9)


def test_decays_without_time_constants_are_those_given():
    neuron = NeuronConfig(alpha=0.5, beta=0.25, reset_decay=0.125, tau_synapse_ms=10)
    assert neuron.decays(10_000) == (0.5, pytest.approx(1 / math.e), 0.125)


def test_subtract_needs_a_threshold_above_zero(tmp_path):
    source = write(tmp_path, "network: {neuron: {reset: subtract}}")
    assert "threshold is 0.0; expected above 0" in problem(source)
    threshold = load_config(source, ["network.neuron.threshold=1"])
    assert threshold.network.neuron.threshold == 1


# --- what only the network can know --------------------------------------------------------------


@pytest.mark.parametrize("meta_gradient", ["exact", "first_order"])
def test_piecewise_linear_is_for_first_order_only(tmp_path, meta_gradient):
    from spikeshot.assemble_network import build_network

    config = load_config(
        write(tmp_path, TINY),
        ["network.neuron.surrogate=piecewise_linear", f"learn.meta_gradient={meta_gradient}"],
    )
    if meta_gradient == "first_order":
        assert build_network(config, (2, 8, 16)).style.neuron.surrogate == "piecewise_linear"
        return
    with pytest.raises(ConfigError, match=r"not twice differentiable.*meta_gradient=first_order"):
        build_network(config, (2, 8, 16))


def test_an_unknown_surrogate_or_rule_is_named_with_the_nearest(tmp_path):
    from spikeshot.assemble import build_learner
    from spikeshot.assemble_network import build_network

    source = write(tmp_path, TINY)
    with pytest.raises(ConfigError, match=r"'arctang' is unknown \(did you mean 'arctan'\?\)"):
        build_network(load_config(source, ["network.neuron.surrogate=arctang"]), (2, 8, 16))
    network = build_network(load_config(source), (2, 8, 16))
    with pytest.raises(ConfigError, match=r"'sgdd' is unknown \(did you mean 'sgd'\?\)"):
        build_learner(load_config(source, ["learn.rule=sgdd"]), network)
