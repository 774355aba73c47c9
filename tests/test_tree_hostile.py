"""Archive bombs, damaged and locked archives: each is refused with its remedy, within bounds."""

import gzip
import os
import random
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes import write_folder, write_zip
from made_archives import FILES, WRITERS, add, fails, write_tar
from spikeshot.data import members
from spikeshot.data.tree import open_tree
from spikeshot.errors import DataError

# --- bombs ---------------------------------------------------------------------------------------


def test_a_zip_that_expands_by_too_much(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(4):
            archive.writestr(f"{i}.bin", b"\0" * (8 << 20))
    fails(tmp_path / "a.zip", "archive bomb. Unpack it yourself if you trust it")


def test_a_zip_whose_members_share_their_bytes(tmp_path):
    """Fifield's bomb: many entries of the directory point to one member."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.bin", random.Random(0).randbytes(500_000))
        first = archive.getinfo("0.bin")
        for i in range(1, 500):
            twin = zipfile.ZipInfo(f"{i}.bin")
            for field in ("CRC", "compress_size", "file_size", "header_offset", "compress_type"):
                setattr(twin, field, getattr(first, field))
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
    fails(tmp_path / "a.zip", "archive bomb|not a readable")


def test_a_tar_gz_that_expands_by_too_much(tmp_path):
    with gzip.open(tmp_path / "a.tar.gz", "wb") as stream:
        for _ in range(40):
            stream.write(b"\0" * (1 << 20))
    fails(tmp_path / "a.tar.gz", "archive bomb")


@pytest.mark.parametrize("kind", ["a.zip", "a.tar", "a.tar.gz"])
def test_an_archive_that_expands_beyond_the_total(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(members, "MAX_TOTAL_BYTES", 20_000)
    files = {f"{i}.bin": random.Random(i).randbytes(5000) for i in range(9)}
    fails(WRITERS[kind](tmp_path / kind, files), r"expands to \d+ bytes; expected at most 20000")


@pytest.mark.parametrize("kind", ["a.zip", "a.tar", "a.tar.gz"])
def test_an_archive_of_too_many_members(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(members, "MAX_MEMBERS", 8)
    place = WRITERS[kind](tmp_path / kind, {f"{i}.bin": b"x" for i in range(20)})
    fails(place, "more than 8 members; expected fewer")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_member_beyond_the_limit_is_refused_when_read(tmp_path, kind):
    tree = open_tree(WRITERS[kind](tmp_path / kind, {"1.bin": b"x" * 1000}))
    assert len(tree.read("1.bin", 1000)) == 1000
    with pytest.raises(DataError, match=r"1.bin: 1000 bytes; expected at most 999"):
        tree.read("1.bin", 999)


def test_a_file_that_grows_after_listing_is_read_up_to_the_limit(tmp_path):
    place = write_folder(tmp_path / "f", {"1.bin": b"x"})
    tree = open_tree(place)
    (place / "1.bin").write_bytes(b"x" * 1000)
    with pytest.raises(DataError, match=r"1.bin: 11 bytes; expected at most 10"):
        tree.read("1.bin", 10)


def test_a_zip_that_lies_about_a_size(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.bin", b"\0" * (8 << 20))
        archive.getinfo("1.bin").file_size = 100
    fails(tmp_path / "a.zip", "1.bin: not a readable member of a zip")


def test_a_zip_that_claims_a_giant_directory(tmp_path):
    place = write_zip(tmp_path / "a.zip", FILES)
    raw = bytearray(place.read_bytes())
    end = raw.rfind(b"PK\5\6")
    struct.pack_into("<L", raw, end + 12, 0xFFFFFFF0)
    place.write_bytes(raw)
    fails(place, "not a readable zip")


# --- damaged and locked --------------------------------------------------------------------------


def test_an_encrypted_zip(tmp_path):
    place = write_zip(tmp_path / "a.zip", {"1.bin": b"one"})
    raw = bytearray(place.read_bytes())
    raw[raw.find(b"PK\1\2") + 8] |= 1
    place.write_bytes(raw)
    fails(place, "member '1.bin' is encrypted; .* Unpack it with its password")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zips_of_methods_that_cannot_be_bounded(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("1.bin", b"one")
    fails(tmp_path / "a.zip", "packed by method .* Unpack the archive and give the folder")


@pytest.mark.parametrize("kind", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.9])
def test_an_archive_cut_short(tmp_path, kind, part):
    files = {f"{i}.bin": random.Random(i).randbytes(3000) for i in range(9)}
    place = WRITERS[kind](tmp_path / kind, files)
    raw = place.read_bytes()[: int(part * 29_000)]
    place.write_bytes(raw)
    fails(place, "not a readable (zip|tar) .* Fetch it again")


def test_a_tar_cut_between_two_members(tmp_path):
    """It has no end, and nothing else tells that recordings are missing."""
    place = write_tar(tmp_path / "a.tar", {"1.bin": b"x" * 512, "2.bin": b"x" * 512})
    place.write_bytes(place.read_bytes()[:1024])
    fails(place, "no member and no end at byte 1024")


def test_a_tar_whose_members_go_back(tmp_path):
    """A negative size in an extended header made Python's tarfile read one header for ever."""
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("1.bin")
        info.pax_headers = {"size": "-1024"}
        archive.addfile(info)
        add(archive, "2.bin", b"x")
    fails(tmp_path / "a.tar", "not a readable tar")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz"])
@pytest.mark.parametrize("raw", [b"", b"x" * 2000, b"\x1f\x8b", b"PK\5\6"])
def test_files_that_are_no_archives(tmp_path, name, raw):
    (tmp_path / name).write_bytes(raw)
    fails(tmp_path / name, "not a readable (zip|tar) .* Fetch it again")


def test_what_is_neither_folder_nor_archive(tmp_path):
    fails(tmp_path / "gone", "no such file or folder; .* Check --data")
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    fails(tmp_path / "a.rar", "neither a folder nor an archive; .* Unpack it")
    tree = open_tree(write_folder(tmp_path / "f", FILES))
    with pytest.raises(DataError, match="holds no 'c'"):
        tree.read("c")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_listed(tmp_path):
    place = write_folder(tmp_path / "f", FILES)
    (place / "a").chmod(0)
    fails(place, "cannot be listed .* Check its permissions")
    (place / "a").chmod(0o700)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    found = {}
    for kind in ("a.zip", "a.tar", "a.tar.gz"):
        found[kind] = WRITERS[kind](folder / kind, FILES).read_bytes()[:4096]
    zipped = zipfile.ZipFile(folder / "d.zip", "w", zipfile.ZIP_DEFLATED)
    with zipped:
        for name, raw in FILES.items():
            zipped.writestr(name, raw * 50)
    return found | {"d.zip": (folder / "d.zip").read_bytes()}


def bend_archives(archives, folder: Path, examples):
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(kind=st.sampled_from(sorted(archives)), seed=st.integers(0, 1 << 32))
    def battery(kind, seed):
        rng = random.Random(seed)
        raw = bytearray(archives[kind])
        if kind == "a.tar.gz" and rng.random() < 0.7:  # beyond its checksum
            raw = bytearray(gzip.decompress(raw)) if rng.random() < 0.5 else raw
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(len(raw))
            raw[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 4))
        place = folder / kind
        place.write_bytes(raw)
        try:
            tree = open_tree(place)
            sizes = {name: len(tree.read(name)) for name, _ in tree}
        except DataError as error:
            message = str(error)
        else:
            message = None
            assert sum(sizes.values()) <= 4 * len(raw) + (1 << 24)
        assert message is None or (message.startswith(str(place)) and message.isprintable())

    battery()


def test_bent_archives(archives, tmp_path):
    bend_archives(archives, tmp_path, 150)


@pytest.mark.slow
def test_bent_archives_long(archives, tmp_path):
    bend_archives(archives, tmp_path, 20_000)
