"""Archives and folders made up for the tests of trees, and how one is refused."""

import io
import tarfile

import pytest

from fakes import write_folder, write_zip
from spikeshot.data.tree import open_tree
from spikeshot.errors import DataError

FILES = {"b/2.bin": b"two", "a/1.bin": b"one" * 99, "B.txt": b"", "a/ü – 字/é.npy": b"\0\1"}


def add(archive, name, raw=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(raw)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(raw))


def write_tar(file, files, mode="w"):
    with tarfile.open(file, mode) as archive:
        for name, raw in files.items():
            add(archive, name, raw)
    return file


WRITERS = {
    "folder": write_folder,
    "a.zip": write_zip,
    "a.tar": write_tar,
    "a.tar.gz": lambda file, files: write_tar(file, files, "w:gz"),
    "A.TGZ": lambda file, files: write_tar(file, files, "w:gz"),
}


def read_all(path):
    tree = open_tree(path)
    return {name: tree.read(name) for name, _ in tree}


def fails(path, message):
    with pytest.raises(DataError, match=message) as error:
        read_all(path)
    assert str(error.value).startswith(str(path))
    assert str(error.value).isprintable()
    return str(error.value)
