"""Write the class splits that ship and are not published ready to use (`data/splits/*.json`).

    python scripts/make_splits.py alphabets
    python scripts/make_splits.py tuning
    python scripts/make_splits.py letters PUBLISHED.json NAME

`alphabets`: Omniglot by alphabet. Eight alphabets have published strokes; numpy's generator of
the first seed from 0 that gives validation and test 20 classes or more (so that 20-way tasks can
be drawn) shares them out 5/1/2. The other 22 are shared out 15/3/4 by the same generator, so that
a test alphabet of the strokes is one of the images too, and of 30 alphabets 20/4/6 are for
training, validation and test. Of the strokes the generator then moves one more alphabet from
training to validation, for one alphabet alone says little: 4/2/2.

`tuning`: for choosing settings of Double N-MNIST and double-signs, `double_nmnist` once more within
its training and validation classes: 20 of the 64 training classes are held out, as alike as the
test classes are (of 4,000 draws the first whose pairs have as many digits in common at one place,
35 of 190), and the 16 validation classes are its test. The published validation classes have 15,
and 16-way tasks of them are soon all solved.

`letters`: a published split of Double ASL-DVS, whose pairs are written there as two numbers of
letters (`1.0`), with the pairs written as letters (`ba`).
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[1] / "src" / "spikeshot" / "data" / "splits"
SPLITS = ("train", "val", "test")
EVALUATION = (  # noqa: SIM905
    "Angelic Atemayar_Qelisayer Atlantean Aurek-Besh Avesta Ge_ez Glagolitic Gurmukhi Kannada "
    "Keble Malayalam Manipuri Mongolian Old_Church_Slavonic_(Cyrillic) Oriya Sylheti "
    "Syriac_(Serto) Tengwar Tibetan ULOG"
).split()
STROKES = {  # characters of each alphabet
    "Balinese": 24,
    "Early_Aramaic": 22,
    "Greek": 24,
    "Japanese_(katakana)": 47,
    "Korean": 40,
    "Latin": 26,
    "Sanskrit": 42,
    "Tagalog": 17,
}
OTHERS = (  # noqa: SIM905
    "Alphabet_of_the_Magi Anglo-Saxon_Futhorc Arcadian Armenian Asomtavruli_(Georgian) Bengali "
    "Blackfoot_(Canadian_Aboriginal_Syllabics) Braille Burmese_(Myanmar) Cyrillic Futurama Grantha "
    "Gujarati Hebrew Inuktitut_(Canadian_Aboriginal_Syllabics) Japanese_(hiragana) "
    "Malay_(Jawi_-_Arabic) Mkhedruli_(Georgian) N_Ko Ojibwe_(Canadian_Aboriginal_Syllabics) "
    "Syriac_(Estrangelo) Tifinagh"
).split()


def alphabets():
    """Return {file name: split} of Omniglot by alphabet."""
    for seed in range(1_000):
        rng = np.random.default_rng(seed)
        strokes = share_out(sorted(STROKES), (5, 1, 2), rng)
        if min(sum(STROKES[a] for a in strokes[s]) for s in ("val", "test")) >= 20:
            break
    others = share_out(sorted(OTHERS), (15, 3, 4), rng)
    images = {s: sorted(strokes[s] + others[s]) for s in SPLITS}
    published = {"train": images["train"] + images["test"], "val": images["val"]}
    how = f"scripts/make_splits.py alphabets, seed {seed}"
    moved = strokes["train"].pop(rng.integers(len(strokes["train"])))
    strokes["val"] = sorted([*strokes["val"], moved])
    return {
        "omniglot_strokes": {"about": "the 8 alphabets with strokes", "source": how} | strokes,
        "omniglot": {"about": "the 30 background alphabets", "source": how} | images,
        "omniglot_published": {
            "about": "background alphabets (4 of them for validation) against evaluation alphabets",
            "source": "Lake, Salakhutdinov & Tenenbaum 2015; validation: " + how,
            "train": sorted(published["train"]),
            "val": published["val"],
            "test": EVALUATION,
        },
    }


def tuning():
    """Return {file name: split} for choosing settings of pairs of digits."""
    published = json.loads((FOLDER / "double_nmnist.json").read_text("utf-8"))
    classes, wanted = published["train"], alike(published["test"])
    rng = np.random.default_rng(0)
    draws = [[classes[i] for i in rng.permutation(64)[:20]] for _ in range(4_000)]
    held_out = sorted(min(draws, key=lambda draw: abs(alike(draw) - wanted)))
    return {
        "double_nmnist_tuning": {
            "about": "for choosing settings: no test class of double_nmnist is in it",
            "source": "scripts/make_splits.py tuning, of the published split",
            "train": [c for c in classes if c not in held_out],
            "val": held_out,
            "test": published["val"],
        }
    }


def alike(pairs):
    """Return how many pairs of classes have a digit in common at one place."""
    return sum(a == c or b == d for (a, b), (c, d) in itertools.combinations(pairs, 2))


def share_out(names, sizes, rng):
    """Return {split: names}, drawn at random."""
    order = [names[i] for i in rng.permutation(len(names))]
    cuts = np.cumsum((0, *sizes))
    assert cuts[-1] == len(names)
    return {s: sorted(order[cuts[i] : cuts[i + 1]]) for i, s in enumerate(SPLITS)}


def letters(published):
    """Return a published split with its pairs written as letters."""
    names = published["letters"]
    pairs = {
        s: ["".join(names[int(i)] for i in pair.split(".")) for pair in published[s]]
        for s in SPLITS
    }
    about = "24 x 24 ordered pairs of hand-sign letters, left then right"
    return {"about": about, "source": published["source"], **pairs}


def write(name, split):
    """Write one split file."""
    text = json.dumps(split, indent=1, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    makers = {"alphabets": alphabets, "tuning": tuning}
    if sys.argv[1] in makers:
        for name, split in makers[sys.argv[1]]().items():
            write(name, split)
    else:
        write(sys.argv[3], letters(json.loads(Path(sys.argv[2]).read_text())))
