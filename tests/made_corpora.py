"""Small made-up sources of the simulated corpora, in their published layouts."""

import io

import numpy as np
from PIL import Image

SIDE = 105  # pixels of a drawing of Omniglot

MORE = {"Braille": 3, "Greek": 3}  # alphabets that have no timed strokes here
ALPHABETS = {"Balinese": 3, "Latin": 4, "Tagalog": 3}  # one of each split; number of characters
DRAWERS = 4


def drawing(alphabet, character, drawer):
    """Return ink [105, 105]: two lines, placed by the class and a little by the drawer."""
    ink = np.zeros((SIDE, SIDE), bool)
    rng = np.random.default_rng([*alphabet.encode(), character])
    x, y = rng.integers(20, 80, 2) + drawer
    ink[y : y + 4, 15:85] = True
    ink[20 : 20 + 10 * character, x : x + 4] = True
    return ink


def untimed_rows(alphabet, character, drawer):
    """Return the two lines of `drawing` as rows (dx, dy, lifted after), five times as large."""
    ink = drawing(alphabet, character, drawer)
    y = np.flatnonzero(ink[:, 15:85].all(axis=1))[0]
    x = np.flatnonzero(ink[20 : 20 + 10 * character].all(axis=0))[0]
    points = [(15, y), (50, y), (85, y), (x, 20), (x, 20 + 10 * character)]
    steps = 5 * np.diff([points[0], *points], axis=0)
    return np.column_stack([steps, [0, 0, 1, 0, 1]]).astype(np.int16)


def untimed_arrays(alphabets):
    """Return the arrays of a `strokes_background_matched.npz` of some alphabets."""
    drawn = [
        (drawing_name(a, c, d).removesuffix(".png").split("/", 1)[1], untimed_rows(a, c, d))
        for a, n in alphabets.items()
        for c in range(1, n + 1)
        for d in range(1, DRAWERS + 1)
    ]
    return {
        "stroke3": np.concatenate([rows for _, rows in drawn]),
        "offsets": np.cumsum([0, *(len(rows) for _, rows in drawn)]),
        "image": np.array([name for name, _ in drawn]),
        "score": np.ones(len(drawn), np.float32),
    }


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def drawing_name(alphabet, character, drawer, top="images_background"):
    number = 100 * [*ALPHABETS, *MORE].index(alphabet) + character
    return f"{top}/{alphabet}/character{character:02d}/{number:04d}_{drawer:02d}.png"


def omniglot_files(alphabets=None):
    """Return {published name: PNG}, one bit a pixel, ink 0, as published."""
    return {
        drawing_name(a, c, d): png(~drawing(a, c, d))
        for a, n in (alphabets or ALPHABETS).items()
        for c in range(1, n + 1)
        for d in range(1, DRAWERS + 1)
    }


def strokes_text(alphabet, character, drawer):
    """Return a file as published: two strokes, y negative, milliseconds, ended by BREAK."""
    x, y = 20 + 10 * character, -(30 + 5 * drawer)
    first = f"{x},{y},0\n{x + 20},{y},400\n{x + 40},{y - 10},900.5\nBREAK\n"
    end = -20 - 10 * (len(alphabet) - 3)
    return f"START\n{first}30.5,-20,1400\n30.5,{end},2000\nBREAK\n"


def strokes_files(part=1):
    return {
        f"strokes_background_small{part}/{a}/character{c:02d}/{c:04d}_{d:02d}.txt": strokes_text(
            a, c, d
        )
        for a, n in ALPHABETS.items()
        for c in range(1, n + 1)
        for d in range(1, DRAWERS + 1)
    }


SIGNS_PER_DIGIT = 12


def photograph(digit, i):
    """Return [100, 100] grey: a bright ground and a darker hand whose fingers tell the digit."""
    image = np.full((100, 100), 200 - i, np.uint8)
    image[60:, 30:70] = 120
    for finger in range(digit + 1):
        image[20 + i : 60, 8 + 8 * finger : 12 + 8 * finger] = 120
    return image


def jpegs():
    """Return {published name: JPEG}."""
    files = {}
    for digit in range(10):
        for i in range(SIGNS_PER_DIGIT):
            stream = io.BytesIO()
            Image.fromarray(photograph(digit, i)).save(stream, "JPEG", quality=95)
            files[f"Sign-Language/Dataset/{digit}/IMG_{100 * digit + i}.JPG"] = stream.getvalue()
    return files


def write_signs(file):
    """Write the photographs as an .npz of images, labels and names; return its path."""
    images = [photograph(digit, i) for digit in range(10) for i in range(SIGNS_PER_DIGIT)]
    labels = np.repeat(np.arange(10, dtype=np.uint8), SIGNS_PER_DIGIT)
    names = [f"IMG_{100 * d + i}.JPG" for d in range(10) for i in range(SIGNS_PER_DIGIT)]
    np.savez(file, images=np.array(images), labels=labels, names=names)
    return file
