"""Class splits: shipped, by a file, by fractions; pairs; and what is said of a wrong one."""

import importlib.util
import json
from pathlib import Path

import pytest

from spikeshot.data.class_splits import (
    OWN,
    seeded_classes,
    shipped_classes,
    shipped_splits,
    split_classes,
)
from spikeshot.data.corpora import CORPORA
from spikeshot.data.pairs import all_pairs, pair_name, parts_of
from spikeshot.data.splits import SPLITS
from spikeshot.data.turns import QUARTERS, turned_class
from spikeshot.errors import ConfigError, DataError

FRACTIONS = (0.64, 0.16, 0.2)
DIGITS = tuple("0123456789")
LETTERS = tuple("abcdefghiklmnopqrstuvwxy")  # without j and z, which move
FOLDERS = tuple(f"{a}/character{i:02d}" for a in ("Greek", "Latin", "Tagalog") for i in range(1, 5))


def choose(choice, names=FOLDERS, kind="single", corpus="mine", seed=0):
    return split_classes(choice, corpus, names, kind, FRACTIONS, seed)


def split_file(folder, **parts):
    file = folder / "split.json"
    file.write_text(json.dumps(parts))
    return str(file)


# --- what ships ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_splits())
def test_no_entry_of_a_shipped_split_stands_in_it_twice(name):
    entries = shipped_classes(name)
    everything = [e for s in SPLITS for e in entries[s]]
    assert len(everything) == len(set(everything)) > 2


def test_the_published_split_of_double_digits_has_64_16_20_of_all_pairs():
    classes = choose("double_nmnist", DIGITS, "double")
    assert [len(classes[s]) for s in SPLITS] == [64, 16, 20]
    assert sorted(c for s in SPLITS for c in classes[s]) == [f"{i:02d}" for i in range(100)]


@pytest.mark.parametrize("name", ["double_asl_dvs", "double_asl_dvs_2024"])
def test_the_published_splits_of_double_signs_have_369_92_115_of_all_pairs(name):
    classes = choose(name, LETTERS, "double")
    assert [len(classes[s]) for s in SPLITS] == [369, 92, 115]
    assert sorted(c for s in SPLITS for c in classes[s]) == sorted(all_pairs(LETTERS))


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("double_nmnist", "splits_double_nmnist.json"),
        ("double_asl_dvs", "splits_double_asl_dvs_nmi-lab.json"),
        ("double_asl_dvs_2024", "splits_double_asl_dvs_kennetms.json"),
    ],
)
def test_a_split_in_the_package_is_the_published_one(shared_data, name, published):
    raw = json.loads((shared_data / "splits" / published).read_text())
    names = raw.get("letters", DIGITS)

    def read(pair):  # "12.3" is two numbers of letters, "46" two digits
        return tuple(names[int(i)] for i in (pair.split(".") if "." in pair else pair))

    shipped = shipped_classes(name)
    for s in SPLITS:
        assert [parts_of(pair) for pair in shipped[s]] == [read(pair) for pair in raw[s]]


def test_seeded_splits_are_what_their_seed_gives():
    script = Path(__file__).parents[1] / "scripts" / "make_splits.py"
    spec = importlib.util.spec_from_file_location("make_splits", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.alphabets() | module.tuning()
    assert len(made) == 4
    for name, split in made.items():
        assert shipped_classes(name) == {s: tuple(split[s]) for s in SPLITS}


def test_the_split_for_choosing_settings_has_no_test_class():
    published, tuning = shipped_classes("double_nmnist"), shipped_classes("double_nmnist_tuning")
    assert sorted(tuning["train"] + tuning["val"]) == sorted(published["train"])
    assert tuning["test"] == published["val"]
    assert [len(tuning[s]) for s in SPLITS] == [44, 20, 16]


def test_a_test_alphabet_of_the_strokes_is_one_of_the_images_too():
    """The same drawings are in both corpora: a learner of one may be put to the other."""
    images, strokes = shipped_classes("omniglot"), shipped_classes("omniglot_strokes")
    assert [len(images[s]) for s in SPLITS] == [20, 4, 6]
    assert [len(strokes[s]) for s in SPLITS] == [4, 2, 2]
    assert set(strokes["test"]) <= set(images["test"])
    assert set(strokes["train"]) <= set(images["train"])


@pytest.mark.data
def test_the_published_alphabets_are_n_omniglots(shared_data):
    raw = json.loads((shared_data / "splits" / "splits_n_omniglot.json").read_text())["folders"]
    shipped = shipped_classes("omniglot_published")
    background = raw["dvs_background_1"] + raw["dvs_background_2"]
    assert sorted(shipped["train"] + shipped["val"]) == sorted(background)
    assert list(shipped["test"]) == raw["dvs_evaluation"]
    images = shipped_classes("omniglot")
    assert sorted(e for s in SPLITS for e in images[s]) == sorted(background)


# --- which one is taken --------------------------------------------------------------------------


def test_auto_takes_the_corpus_s_own_split_or_else_fractions():
    assert choose("auto", DIGITS, "double", "nmnist") == choose("double_nmnist", DIGITS, "double")
    assert choose("auto") == seeded_classes(FOLDERS, FRACTIONS, 0)
    pairs = choose("auto", LETTERS, "double")
    assert pairs == seeded_classes(all_pairs(LETTERS), FRACTIONS, 0)
    assert [len(pairs[s]) for s in SPLITS] == [369, 92, 115]  # 576 * (0.64, 0.16, 0.2)


def test_own_splits_are_of_corpora_and_ship():
    assert {corpus for corpus, _ in OWN} <= set(CORPORA)
    assert set(OWN.values()) <= set(shipped_splits())


@pytest.mark.parametrize("seed", range(5))
def test_classes_are_shared_out_once_each(seed):
    names = [f"class{i}" for i in range(25)]
    parts = seeded_classes(names, FRACTIONS, seed)
    assert [len(parts[s]) for s in SPLITS] == [16, 4, 5]  # 25 * (0.64, 0.16, 0.2)
    assert sorted(c for s in SPLITS for c in parts[s]) == sorted(names)
    assert seeded_classes(list(reversed(names)), FRACTIONS, seed) == parts


def test_seeded_classes_depend_on_the_seed():
    names = [f"class{i}" for i in range(25)]
    assert len({seeded_classes(names, FRACTIONS, seed)["test"] for seed in range(5)}) == 5


def test_a_file_names_classes_or_folders_of_them(tmp_path):
    file = split_file(
        tmp_path,
        train=["Greek", "Greek/character01"],
        val=["Latin/character02"],
        test=["Latin/character01", "Tagalog"],
    )
    classes = choose(file)
    assert classes["train"] == FOLDERS[:4]
    assert classes["val"] == ("Latin/character02",)
    assert classes["test"] == ("Latin/character01", *FOLDERS[8:])  # two of Latin are left out


def test_a_folder_is_not_the_beginning_of_a_name(tmp_path):
    names = ("a", "ab", "a/b", "c")
    classes = choose(split_file(tmp_path, train=["a"], val=["ab"], test=["c"]), names)
    assert classes == {"train": ("a", "a/b"), "val": ("ab",), "test": ("c",)}


def test_a_shipped_split_takes_what_is_there_of_a_corpus():
    names = ("Balinese/character01", "Latin/character01", "Tagalog/character01")
    classes = choose("auto", names, corpus="omniglot-strokes")
    assert classes == {"train": names[1:2], "val": names[:1], "test": names[2:]}


# --- wrong ones ----------------------------------------------------------------------------------


def test_an_unknown_split_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'omniglott' \(did you mean 'omniglot'\?\); expected"):
        choose("omniglott")


def test_a_split_of_another_corpus_says_what_is_missing():
    with pytest.raises(DataError, match=r"'omniglot_strokes' has no class for val here; .*Bal"):
        choose("omniglot_strokes")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "'train' is missing"),
        ('{"train": ["Greek"], "val": ["Latin"]}', "'test' is missing"),
        ('{"train": ["Greek"], "val": "Latin", "test": ["a"]}', "'val' is no list of names"),
        ('{"train": ["Greek"], "val": [3], "test": ["a"]}', "'val' is no list of names"),
        ('{"train": ["Greek"], "val": [], "test": ["a"]}', "'val' is empty"),
        ('{"train": ["Greek"], "val": ["Latn"], "test": ["a"]}', "entry 'Latn' of val names no"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    file = tmp_path / "split.json"
    file.write_text(text)
    with pytest.raises(DataError, match=rf"split.json: .*{message}"):
        choose(str(file))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read as JSON"):
        choose(str(tmp_path / "none.json"))


def test_pairs_of_other_classes_are_refused():
    with pytest.raises(DataError, match="class '04' is no pair of this corpus's classes 0, 1"):
        choose("double_nmnist", DIGITS[:3], "double")


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "name"), [("4", "6", "46"), ("yes", "no", "yes+no"), ("a", "bc", "a+bc")]
)
def test_a_pair_is_named_by_its_parts(left, right, name):
    assert pair_name(left, right) == name
    assert parts_of(name) == (left, right)


def test_all_pairs_are_ordered_and_doubles_too():
    assert all_pairs(("a", "bc")) == ("aa", "a+bc", "bc+a", "bc+bc")


@pytest.mark.parametrize("name", ["a+b", ""])
def test_a_name_that_cannot_be_one_of_a_pair_is_refused(name):
    with pytest.raises(DataError, match=r"cannot be one of a pair.* data.classes=single"):
        all_pairs(("a", name))


def test_a_turned_class_has_a_name_of_its_own():
    names = [turned_class("Latin/character01", q) for q in QUARTERS]
    assert names == [f"Latin/character01@{angle}" for angle in (90, 180, 270)]
    assert turned_class("a", 0) == "a"
