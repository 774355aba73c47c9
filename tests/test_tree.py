"""Folders, zips and tars as one tree: what they list, and what leads out of them."""

import os
import random
import socket
import stat
import subprocess
import sys
import tarfile
import zipfile

import pytest

from fakes import write_folder, write_zip
from made_archives import FILES, WRITERS, add, fails
from spikeshot.data.tree import open_tree

# --- what is listed ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WRITERS)
def test_all_kinds_list_and_read_the_same(tmp_path, kind):
    tree = open_tree(WRITERS[kind](tmp_path / kind, FILES))
    assert list(tree) == sorted((name, len(raw)) for name, raw in FILES.items())
    assert {name: tree.read(name) for name, _ in tree} == FILES


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
def test_an_archive_is_known_by_its_content_too(tmp_path, kind):
    place = WRITERS[kind](tmp_path / kind, FILES).rename(tmp_path / "data")
    assert list(open_tree(place)) == sorted((name, len(raw)) for name, raw in FILES.items())


@pytest.mark.parametrize("kind", WRITERS)
def test_what_operating_systems_drop_is_left_out(tmp_path, kind):
    junk = ["__MACOSX/a/1.bin", "a/.DS_Store", "a/._1.bin", "Thumbs.db", "b/desktop.ini"]
    place = WRITERS[kind](tmp_path / kind, FILES | dict.fromkeys(junk, b"junk"))
    assert [name for name, _ in open_tree(place)] == sorted(FILES)


def test_a_zip_made_on_windows_has_forward_slashes(tmp_path):
    place = write_zip(tmp_path / "a.zip", {"x": b"12"})
    place.write_bytes(place.read_bytes().replace(b"\x01\0x", b"\x01\0x"))
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        info = zipfile.ZipInfo("a/1.bin")
        info.filename = "a\\1.bin"  # ZipInfo itself would not take it
        archive.writestr(info, b"one")
    assert list(open_tree(tmp_path / "w.zip")) == [("a/1.bin", 3)]
    assert open_tree(tmp_path / "w.zip").read("a/1.bin") == b"one"


def test_links_inside_are_followed(tmp_path):
    place = write_folder(tmp_path / "folder", FILES)
    (place / "link.bin").symlink_to(place / "a" / "1.bin")
    (place / "again").symlink_to("a")  # a folder: its files are there already
    tree = open_tree(place)
    assert tree.read("link.bin") == FILES["a/1.bin"]
    assert len(list(tree)) == len(FILES) + 1
    outside = tmp_path / "elsewhere"
    outside.symlink_to(place)
    assert [name for name, _ in open_tree(outside)] == [name for name, _ in tree]

    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "a/1.bin", b"one")
        add(archive, "b/soft.bin", type=tarfile.SYMTYPE, linkname="../a/1.bin")
        add(archive, "b/hard.bin", type=tarfile.LNKTYPE, linkname="a/1.bin")
        add(archive, "c", type=tarfile.SYMTYPE, linkname="a")
    tree = open_tree(tmp_path / "a.tar")
    assert list(tree) == [("a/1.bin", 3), ("b/hard.bin", 3), ("b/soft.bin", 3)]
    assert tree.read("b/soft.bin") == tree.read("b/hard.bin") == b"one"


@pytest.mark.parametrize("kind", ["a.zip", "a.tar", "a.tar.gz"])
def test_threads_and_forked_processes_may_share_an_archive(tmp_path, kind):
    files = {f"{i}.bin": random.Random(i).randbytes(5000) for i in range(40)}
    WRITERS[kind](tmp_path / kind, files)
    program = f"""
import os, random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from spikeshot.data.tree import open_tree
tree = open_tree(Path({str(tmp_path / kind)!r}))
def right(i):
    return tree.read(f"{{i % 40}}.bin") == random.Random(i % 40).randbytes(5000)
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        os._exit(0 if all(map(right, range(200))) else 1)
    children.append(child)
assert all(ThreadPoolExecutor(4).map(right, range(200)))
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


# --- what leaves the folder ----------------------------------------------------------------------

LEAVING = ["../x.bin", "a/../../x.bin", "/etc/x.bin", "C:/x.bin", "c:\\x.bin", "..\\x.bin", "a/.."]


@pytest.mark.parametrize("name", LEAVING)
@pytest.mark.parametrize("kind", ["a.zip", "a.tar", "a.tar.gz"])
def test_names_that_leave_the_folder(tmp_path, name, kind):
    place = WRITERS[kind](tmp_path / kind, FILES | {name: b"x"})
    text = fails(place, "leads out of its folder; .* Do not trust this archive")
    assert ascii(name) in text


@pytest.mark.parametrize("name", ["a\nb.bin", "a\x1b[31m.bin", "\x7f"])
@pytest.mark.parametrize("kind", WRITERS)
def test_names_that_cannot_be_shown(tmp_path, name, kind):
    fails(WRITERS[kind](tmp_path / kind, {name: b"x"}), "bytes in its name that are no text")


@pytest.mark.parametrize("kind", ["a.zip", "a.tar", "a.tar.gz"])
def test_names_that_are_too_long(tmp_path, kind):
    place = WRITERS[kind](tmp_path / kind, {"a/" * 300 + "1.bin": b"x"})
    assert len(fails(place, "has a name of 605 characters; expected at most 500")) < 700


def test_names_of_undecodable_bytes(tmp_path):
    (tmp_path / "f").mkdir()
    with open(os.fsencode(tmp_path / "f") + b"/\xff.bin", "wb"):
        pass
    fails(tmp_path / "f", "bytes in its name that are no text")
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        add(archive, "\udcff.bin", b"x")
    fails(tmp_path / "a.tar", "bytes in its name that are no text")


@pytest.mark.parametrize("target", ["/etc/passwd", "../../x", "a/../../../x", "C:/x"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_that_leave_a_tar(tmp_path, target, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "a/link.bin", type=kind, linkname=target)
    fails(tmp_path / "a.tar", "link 'a/link.bin' leads to .* outside of it")


def zip_link(file, target):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/1.bin", b"one")
        info = zipfile.ZipInfo("b/link.bin")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, target)
    return file


def test_links_in_a_zip(tmp_path):
    tree = open_tree(zip_link(tmp_path / "in.zip", "../a/1.bin"))
    assert tree.read("b/link.bin") == b"one"
    fails(zip_link(tmp_path / "out.zip", "../../x"), "link 'b/link.bin' leads to .* outside of it")
    fails(zip_link(tmp_path / "no.zip", "x"), "link 'b/link.bin' leads to 'b/x', which is not in")


def test_links_that_leave_a_folder_or_lead_nowhere(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    for i, target in enumerate(["../secret", str(tmp_path / "secret"), "..", "/dev/null"]):
        place = write_folder(tmp_path / str(i), FILES)
        (place / "link.bin").symlink_to(target)
        fails(place, "link 'link.bin' leads to .* outside of it; .* Put the file itself")
    place = write_folder(tmp_path / "nowhere", FILES)
    (place / "link.bin").symlink_to("gone")
    fails(place, "link 'link.bin' leads nowhere; .* Remove the link")
    (place / "link.bin").unlink()
    (place / "link.bin").symlink_to("link.bin")
    fails(place, "link 'link.bin' leads nowhere")


def test_links_in_a_circle(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "a", type=tarfile.SYMTYPE, linkname="b")
        add(archive, "b", type=tarfile.SYMTYPE, linkname="a")
    fails(tmp_path / "a.tar", "link 'a' leads to .* which is not in it")


# --- what is no file -----------------------------------------------------------------------------


def test_pipes_and_sockets_in_a_folder(tmp_path):
    place = write_folder(tmp_path / "pipe", FILES)
    os.mkfifo(place / "p.bin")
    fails(place, "member 'p.bin' is a device, pipe or socket; .* Remove it")
    place = write_folder(tmp_path / "s", {})
    place.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(place / "s.bin"))
        fails(place, "member 's.bin' is a device, pipe or socket")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_in_a_tar(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "d.bin", type=kind)
    fails(tmp_path / "a.tar", "member 'd.bin' is a device, pipe or socket")


def test_two_members_of_one_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/1.bin", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/1.bin", b"y")
    fails(tmp_path / "a.zip", "two members are called 'a/1.bin'; expected one")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "a/1.bin", b"x")
        add(archive, "./a//1.bin", b"y")
    fails(tmp_path / "a.tar", "two members are called 'a/1.bin'; expected one")
    two_spellings = {"caf\u00e9.bin": b"x", "cafe\u0301.bin": b"y"}
    for kind, write in WRITERS.items():
        fails(write(tmp_path / f"u-{kind}", two_spellings), "two members are called")
