"""Files of a published archive, wherever they are: in an archive, unpacked, or in a folder of zips.

The same file may be there twice (Omniglot's archives overlap, and so do a zip and its unpacked
folder): it is read once, and copies that differ are an error.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from spikeshot.data.samples import Original, Originals
from spikeshot.data.tree import Tree, open_tree
from spikeshot.errors import DataError, LayoutError

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
    for file in _all_files(path, wanted):
        raw = file.read()
        if file.key in found and found[file.key][1] != raw:
            raise two_versions(file.name, found[file.key][0])
        found.setdefault(file.key, (file.name, raw))
    if not found:
        raise _none(path, wanted)
    return dict(sorted(found.items()))


def list_originals(
    path: Path, wanted: Wanted, what: str, decode: Callable[[bytes, str], bytes]
) -> Originals:
    """List the wanted files under `path`, none of them read yet; `decode(raw, name)` reads one.

    An archive in a folder that cannot be opened is one of the problems. Raises `DataError` where
    there is no wanted file, and where `path` itself cannot be opened.
    """

    def original(file: Original) -> Original:
        return Original(file.name, file.key, lambda: decode(file.read(), file.name))

    problems: list[str] = []
    items = tuple(original(file) for file in _all_files(path, wanted, problems.append))
    if not items and not problems:
        raise _none(path, wanted)
    return Originals(what, items, tuple(problems))


def two_versions(name: str, other: str) -> DataError:
    """Return the error of two files that are published as one and differ."""
    return DataError(
        f"{name} and {other} are two versions of one file; expected one. Remove the wrong one."
    )


def _none(path: Path, wanted: Wanted) -> LayoutError:
    return LayoutError(f"{path}: holds no {wanted.what}. {wanted.remedy}")


def _all_files(
    path: Path, wanted: Wanted, refused: Callable[[str], None] | None = None
) -> Iterator[Original]:
    """Yield the wanted files, whose content is their bytes.

    With `refused`, archives in a folder that cannot be opened are told to it and passed over.
    """
    places = [path]
    if path.is_dir():
        archives = (file for file in sorted(path.iterdir()) if file.is_file())
        places += [file for file in archives if wanted.zips.fullmatch(file.name)]
    for place in places:
        try:
            tree = open_tree(place)
        except DataError as error:
            if refused is None:
                raise DataError(f"{error} {wanted.remedy}") from error
            if place == path:
                raise
            refused(f"{error} {wanted.remedy}")
        else:
            yield from _in_tree(tree, wanted)


def _in_tree(tree: Tree, wanted: Wanted) -> Iterator[Original]:
    """Yield files of one tree; a folder's own name may be where the pattern begins."""
    folder = f"{tree.path.absolute().name}/" if tree.path.is_dir() else ""
    for name, _ in tree:
        match = None if _HIDDEN.search(name) else wanted.pattern.search(folder + name)
        if match:
            yield Original(tree.shown(name), tuple(match.groups()), _reader(tree, name, wanted))


def _reader(tree: Tree, name: str, wanted: Wanted) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return tree.read(name, wanted.max_bytes)
        except DataError as error:
            raise DataError(f"{error} {wanted.remedy}") from error

    return read
