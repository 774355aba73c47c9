"""Files of a published archive, wherever they are: in an archive, unpacked, or in a folder of zips.

The same file may be there twice (Omniglot's archives overlap, and so do a zip and its unpacked
folder): it is read once, and copies that differ are an error.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spikeshot.data.tree import Tree, open_tree
from spikeshot.errors import DataError

_HIDDEN = re.compile(r"(?:^|/)\.")


@dataclass(frozen=True)
class Wanted:
    """Which files are wanted.

    `pattern` is searched in a file's path (forward slashes), and its groups are the file's key;
    `zips` matches the names of archives looked for in a folder; a file has at most `max_bytes`;
    `what` and `remedy` end the messages (`layout ...`, `Fetch ...`).
    """

    pattern: re.Pattern[str]
    zips: re.Pattern[str]
    max_bytes: int
    what: str
    remedy: str


def read_files(path: Path, wanted: Wanted) -> dict[tuple[str, ...], tuple[str, bytes]]:
    """Return {key: (where it was, bytes)} of the wanted files under `path`, in order of key.

    Raises `DataError` where there is none, where one cannot be read or is too large, and where two
    files of one key differ.
    """
    found: dict[tuple[str, ...], tuple[str, bytes]] = {}
    for key, name, raw in _all_files(path, wanted):
        if key in found and found[key][1] != raw:
            raise DataError(
                f"{name} and {found[key][0]} are two versions of one file; expected one. Remove "
                "the wrong one."
            )
        found.setdefault(key, (name, raw))
    if not found:
        raise DataError(f"{path}: holds no {wanted.what}. {wanted.remedy}")
    return dict(sorted(found.items()))


def _all_files(path: Path, wanted: Wanted) -> Iterator[tuple[tuple[str, ...], str, bytes]]:
    places = [path]
    if path.is_dir():
        archives = (file for file in sorted(path.iterdir()) if file.is_file())
        places += [file for file in archives if wanted.zips.fullmatch(file.name)]
    for place in places:
        try:
            yield from _in_tree(open_tree(place), wanted)
        except DataError as error:
            raise DataError(f"{error} {wanted.remedy}") from error


def _in_tree(tree: Tree, wanted: Wanted) -> Iterator[tuple[tuple[str, ...], str, bytes]]:
    """Yield (key, name, bytes); a folder's own name may be where the pattern begins."""
    folder = f"{tree.path.absolute().name}/" if tree.path.is_dir() else ""
    for name, _ in tree:
        match = None if _HIDDEN.search(name) else wanted.pattern.search(folder + name)
        if match:
            yield tuple(match.groups()), tree.shown(name), tree.read(name, wanted.max_bytes)
