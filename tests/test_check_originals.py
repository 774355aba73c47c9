"""`spikeshot data check` of drawings, strokes and photographs that others are simulated from."""

import json

import numpy as np
import pytest

from fakes import write_folder, write_zip
from made_corpora import (
    ALPHABETS,
    SIGNS_PER_DIGIT,
    drawing,
    drawing_name,
    jpegs,
    omniglot_files,
    png,
    strokes_files,
    untimed_arrays,
    write_signs,
)

UNTIMED = "strokes_background_matched.npz"
ALL = 10 * 4  # characters, drawers


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKESHOT_CACHE", str(tmp_path / "cache"))


def check(cli, place, *more):
    """Return the exit code and the lines of a check of `place`, nothing having gone to stderr."""
    ended = cli("data", "check", place, *more)
    assert ended.err == ""
    return ended.code, ended.out.splitlines()


def bad_drawings():
    return {
        drawing_name("Latin", 1, 1): png(np.zeros((104, 105), np.uint8)),
        drawing_name("Latin", 1, 2): png(np.ones((105, 105), bool)),  # paper without ink
        drawing_name("Latin", 1, 3): b"no picture",
        drawing_name("Tagalog", 3, 4): png(~drawing("Latin", 2, 2)),  # of another class
    }


@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_every_bad_drawing_is_told(cli, tmp_path, write):
    place = write(tmp_path / "images_background.zip", omniglot_files() | bad_drawings())
    code, lines = check(cli, place)
    expected = [
        (drawing_name("Latin", 1, 1), "105 x 104 pixels; expected 105 x 105"),
        (drawing_name("Latin", 1, 2), "every pixel has one grey value"),
        (drawing_name("Latin", 1, 3), "no readable picture"),
        (
            drawing_name("Tagalog", 3, 4),
            f"the same drawing as {place}: {drawing_name('Latin', 2, 2)}",
        ),
    ]
    assert code == 1
    assert lines.pop() == f"{place}: {ALL} drawings read, {len(expected)} bad"
    for line, (name, text) in zip(lines, expected, strict=True):
        assert line.startswith(f"{place}: {name}: ")
        assert text in line
    report = json.loads(cli("data", "check", place, "--json").out)
    assert (report["samples"], report["what"], report["problems"]) == (ALL, "drawing", lines)


def test_good_drawings_strokes_and_photographs(cli, tmp_path):
    drawings = write_zip(tmp_path / "images_background.zip", omniglot_files())
    strokes = write_folder(tmp_path / "strokes", strokes_files_that_differ())
    array = write_signs(tmp_path / "signs.npz")
    photographs = write_folder(tmp_path / "photographs", jpegs())
    signs = 10 * SIGNS_PER_DIGIT
    for place, count in (
        (drawings, f"{ALL} drawings"),
        (strokes, f"{ALL} drawings"),
        (array, f"{signs} photographs"),
        (photographs, f"{signs} photographs"),
    ):
        assert check(cli, place) == (0, [f"{place}: {count} read, 0 bad"])


def strokes_files_that_differ():
    """Return the made-up strokes, each with a pause of its own: those of two classes are alike."""
    return {
        name: text.replace(",1400\n", f",{1400 + i}\n").encode()
        for i, (name, text) in enumerate(strokes_files().items())
    }


def test_every_bad_file_of_strokes_is_told_and_copies_in_two_archives_are_none(cli, tmp_path):
    files = strokes_files_that_differ()
    first, second, third = list(files)[:3]
    bad = {first: files[first][:-6], second: b"", third: files[third].replace(b",400", b",x")}
    place = tmp_path / "both"
    write_zip(place / "strokes_background_small1.zip", files | bad)
    again = {name.replace("small1", "small2"): raw for name, raw in files.items()}
    write_zip(place / "strokes_background_small2.zip", {n: again[n] for n in list(again)[3:]})
    code, lines = check(cli, place)
    assert (code, lines.pop()) == (1, f"{place}: {2 * ALL - 3} drawings read, 3 bad")
    texts = ("has no BREAK", "does not begin with START", "expected x,y,t in numbers")
    for line, name, text in zip(lines, (first, second, third), texts, strict=True):
        assert line.startswith(f"{place / 'strokes_background_small1.zip'}: {name}")
        assert text in line


def write_untimed(place, **changed):
    """Write strokes without time and the images of all their drawings; return the `.npz`."""
    write_zip(place / "images_background.zip", omniglot_files())
    np.savez(place / UNTIMED, **untimed_arrays(ALPHABETS) | changed)
    return place / UNTIMED


def test_strokes_without_time_by_path_and_by_name(cli, tmp_path):
    file = write_untimed(tmp_path / "both")
    downloads = tmp_path / "cache" / "downloads"
    assert check(cli, file) == (0, [f"{file}: {ALL} drawings read, 0 bad"])
    write_untimed(downloads / "omniglot-untimed")
    name = "omniglot-untimed"
    assert check(cli, name) == (0, [f"{name}: {ALL} drawings read, 0 bad"])
    assert check(cli, file.parent)[1][-1].endswith(f"{ALL} drawings read, 0 bad")  # the images
    again = [f"{file.parent}: {ALL} drawings read, 0 bad"]
    assert check(cli, file.parent, "--corpus", name) == (0, again)
    for target, more in ((name, ()), (file, ()), (file.parent, ("--corpus", name))):
        packed = cli("data", "pack", target, *more).out
        assert f"/{name}-" in packed
        assert f": {ALL} recordings, digest " in packed
        picture = tmp_path / "one.png"
        assert cli("data", "show", target, *more, "--index", "3", "--out", picture).code == 0
        assert picture.read_bytes().startswith(b"\x89PNG")
        picture.unlink()
    for target in (name, file):
        summary = json.loads(cli("data", "stats", target, "--json").out)
        assert (summary["recordings"], summary["sensor_size"]) == (ALL, [68, 68])
        assert summary["per_class"]["Tagalog/character03"] == 4
    listed = {c["name"]: c for c in json.loads(cli("data", "list", "--json").out)}
    assert "not published elsewhere" in listed[name]["obtain"]


def test_every_drawing_of_strokes_without_time_that_cannot_be_placed_is_told(cli, tmp_path):
    """An image that is missing, one without ink, one in two versions; strokes that are a copy."""
    arrays = untimed_arrays(ALPHABETS)
    arrays["stroke3"][arrays["offsets"][9] :][:5] = arrays["stroke3"][arrays["offsets"][4] :][:5]
    file = write_untimed(tmp_path / "both", **arrays)
    files = omniglot_files()
    names = [drawing_name("Balinese", 1, drawer) for drawer in (1, 2, 3)]
    del files[names[0]]
    files[names[1]] = png(np.ones((105, 105), bool))
    write_zip(file.parent / "images_background.zip", files)
    write_zip(file.parent / "images_again.zip", {names[2]: png(~drawing("Latin", 1, 3))})
    code, lines = check(cli, file)
    assert (code, lines.pop()) == (1, f"{file}: {ALL} drawings read, 4 bad")
    starts = (
        f"{file}: drawing 0 (Balinese/character01/01): its image is missing in {file.parent}; ",
        f"{file.parent}/images_background.zip: {names[1]}: every pixel has one grey value",
        f"{file.parent}/images_background.zip: {names[2]} and {file.parent}/images_again.zip: ",
        f"{file}: drawing 9 (Balinese/character03/02): holds the same drawing as {file}: drawing 4",
    )
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start)


def test_strokes_without_time_that_are_damaged_or_without_images_are_one_message(cli, tmp_path):
    file = write_untimed(tmp_path / "both", offsets=np.array([0, 5]))
    ended = cli("data", "check", file, "--corpus", "omniglot-untimed")
    assert (ended.code, ended.out) == (2, "")
    assert "and names of shape (40,) do not fit" in ended.err
    write_untimed(tmp_path / "both")
    (tmp_path / "both" / "images_background.zip").unlink()
    ended = cli("data", "check", file)
    assert ended.code == 2
    assert "without the images of its drawings" in ended.err
    assert "Download images_background.zip" in ended.err
    file.unlink()
    ended = cli("data", "check", tmp_path / "both", "--corpus", "omniglot-untimed")
    assert ended.code == 2
    assert f"holds no {UNTIMED}" in ended.err
    signs = write_signs(tmp_path / "signs.npz")  # another corpus's .npz is not taken for it
    signs.write_bytes(signs.read_bytes()[:-9])
    assert UNTIMED not in cli("data", "check", signs).err


def test_two_versions_of_one_file_and_an_archive_that_is_none(cli, tmp_path):
    name = drawing_name("Latin", 1, 1)
    place = write_folder(tmp_path / "both", omniglot_files())
    write_zip(place / "images_background.zip", {name: png(~drawing("Latin", 1, 3))})
    (place / "images_evaluation.zip").write_bytes(b"cut short")
    code, lines = check(cli, place, "--corpus", "omniglot")
    assert (code, lines.pop()) == (1, f"{place}: {ALL + 1} drawings read, 2 bad")
    assert "images_evaluation.zip: not a readable zip" in lines[0]
    assert f"{name} are two versions of one file" in lines[1]


def test_photographs_of_an_array_are_named_by_their_number(cli, tmp_path):
    file = write_signs(tmp_path / "signs.npz")
    with np.load(file) as stored:
        arrays = dict(stored)
    arrays["images"][7] = 128
    arrays["images"][30] = arrays["images"][20]
    np.savez(file, **arrays)
    code, lines = check(cli, file)
    assert (code, len(lines)) == (1, 3)
    assert lines[0].startswith(f"{file}: photograph 7 (0/IMG_7): every pixel has one grey value")
    assert lines[1].startswith(f"{file}: photograph 30 (2/IMG_206): holds the same photograph as")
    assert "photograph 20 (1/IMG_108)" in lines[1]


def test_a_folder_is_shown_and_counted_without_naming_its_corpus(cli, tmp_path):
    place = write_zip(tmp_path / "images_background.zip", omniglot_files())
    summary = json.loads(cli("data", "stats", place, "--json").out)
    assert (summary["recordings"], summary["per_class"]["Latin/character01"]) == (ALL, 4)


@pytest.mark.data
def test_the_published_strokes_and_photographs_are_sound(cli, shared_data):
    """Counts from the READMEs beside them."""
    for name, corpus, count in (
        ("omniglot/strokes_background_small1.zip", "omniglot-strokes", "2,720 drawings"),
        ("sign_language_digits/sign_language_digits_gray100.npz", "signs", "2,062 photographs"),
    ):
        place = shared_data / name
        assert check(cli, place, "--corpus", corpus) == (0, [f"{place}: {count} read, 0 bad"])


@pytest.mark.data
def test_the_strokes_without_time_are_sound_and_each_has_its_image(cli, shared_data):
    place = shared_data / "omniglot" / UNTIMED
    assert check(cli, place) == (0, [f"{place}: 16,447 drawings read, 0 bad"])


@pytest.mark.data
def test_two_of_the_published_drawings_are_alike(cli, shared_data):
    """One pair of PNGs of 19,280 has the same bytes (md5 over the archive): a single dot."""
    place = shared_data / "omniglot" / "images_background.zip"
    code, lines = check(cli, place)
    assert (code, lines.pop()) == (1, f"{place}: 19,280 drawings read, 1 bad")
    assert len(lines) == 1
    for drawer in ("03", "19"):
        assert f"images_background/Braille/character01/0192_{drawer}.png" in lines[0]
