"""Fetching a corpus: its published files, or the words that say how to get them by hand."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from spikeshot.data.corpora import download_folder, get_corpus
from spikeshot.data.download import Fetched, Progress, RemoteFile, fetch
from spikeshot.errors import DataError


def obtain(
    name: str,
    folder: Path | None = None,
    urls: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[Fetched]:
    """Fetch the files of corpus `name` into `folder`, where they are then found without a path.

    `urls`: more addresses, tried first: each a mirror of the file of its name, or a file more.
    Raises `DataError` with the way by hand where nothing can be fetched.
    """
    corpus = get_corpus(name)
    folder = folder or download_folder(name)
    files = _with_mirrors(corpus.facts.files, urls)
    by_hand = corpus.facts.obtain
    if corpus.needs_path:
        by_hand += f" What lies in {folder} is found without --data."
    if not files:
        raise DataError(f"corpus {name!r} is not fetched by a command. {by_hand}")
    try:
        return [fetch(file, folder, progress) for file in files]
    except DataError as error:
        raise DataError(f"{error} {by_hand}") from error


def _with_mirrors(files: Sequence[RemoteFile], urls: Sequence[str]) -> list[RemoteFile]:
    """Add each address to the file of its name, or as a file of its own."""
    by_name = {file.name.lower(): file for file in files}
    for url in urls:
        try:
            name = Path(unquote(urlsplit(url).path)).name
        except ValueError:
            name = ""
        if name in ("", "..") or "\0" in name:
            raise DataError(f"{url!r} names no file; expected an address that ends in a file name.")
        known = by_name.get(name.lower(), RemoteFile(name, ()))
        by_name[name.lower()] = RemoteFile(known.name, (url, *known.urls), known.checksum)
    return list(by_name.values())
