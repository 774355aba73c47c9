"""Downloads from a server on this machine that drops connections, forgets ranges and lies."""

import hashlib
import http.server
import io
import re
import socket
import threading
import zipfile

import pytest

from spikeshot.data import download
from spikeshot.data.corpora import CORPORA, Facts
from spikeshot.data.corpora.obtain import obtain
from spikeshot.data.download import RemoteFile, fetch
from spikeshot.errors import DataError

RAW = bytes(range(256)) * 4000  # 1 MB


class Server(http.server.ThreadingHTTPServer):
    """Serves `raw` under every path, as told by its settings; `log` holds (path, range, status)."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.raw, self.tag, self.log = RAW, '"one"', []
        self.drops = []  # bytes after which the next connections end
        self.ranges = self.lengths = True
        self.statuses, self.kind = {}, "application/zip"

    def handle_error(self, request, address):
        pass  # a client that has gone

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        s, wanted = self.server, self.headers.get("Range")
        path = self.path.lstrip("/")
        body, status = s.raw, s.statuses.get(path, 200)
        if callable(status):
            status = status()
        same = self.headers.get("If-Range") in (None, s.tag)
        if status == 200 and wanted and s.ranges and same:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            body, status = body[start:], 206 if start < len(body) else 416
        s.log.append((path, wanted, status))
        self.send_response(status)
        if status == 206:
            total = len(s.raw)
            self.send_header("Content-Range", f"bytes {total - len(body)}-{total - 1}/{total}")
        if status == 416:
            self.send_header("Content-Range", f"bytes */{len(s.raw)}")
        body = body if status in (200, 206) else b""
        self.send_header("Content-Type", s.kind)
        self.send_header("ETag", s.tag)
        if s.lengths:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        keep = s.drops.pop(0) if s.drops and body else len(body)
        self.wfile.write(body[:keep])
        if keep < len(body):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def named(*urls, checksum="", name="data.bin"):
    return RemoteFile(name, urls, checksum)


# --- one file ------------------------------------------------------------------------------------


def test_a_file_comes_whole_with_progress_and_is_not_fetched_twice(server, tmp_path):
    heard = []
    file = named(server.url("a"), checksum=f"md5:{hashlib.md5(RAW).hexdigest()}")
    fetched = fetch(file, tmp_path / "new" / "folder", lambda *told: heard.append(told))
    assert fetched.path.read_bytes() == RAW
    assert fetched.warning == ""
    assert heard[-1] == ("data.bin", len(RAW), len(RAW))
    assert [n for _, n, _ in heard] == sorted(n for _, n, _ in heard)
    assert [f.name for f in fetched.path.parent.iterdir()] == ["data.bin"]
    assert fetch(file, tmp_path / "new" / "folder").path == fetched.path
    assert len(server.log) == 1


def test_dropped_connections_are_taken_up_where_they_ended(server, tmp_path):
    server.drops = [300_000, 0, 300_000, 100_000]
    assert fetch(named(server.url("a")), tmp_path).path.read_bytes() == RAW
    starts = [int(r[6:-1]) if r else 0 for _, r, _ in server.log]
    assert starts == [0, 300_000, 300_000, 600_000, 700_000]


def test_a_later_call_goes_on_where_an_earlier_one_was_stopped(server, tmp_path):
    def stop(name, done, size):
        if done > 500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(named(server.url("a")), tmp_path, stop)
    (part,) = tmp_path.glob(".data.bin.part")
    assert fetch(named(server.url("a")), tmp_path).path.read_bytes() == RAW
    assert server.log[1] == ("a", f"bytes={server.log[1][1][6:-1]}-", 206)
    assert int(server.log[1][1][6:-1]) > 500_000
    assert not part.exists()


def test_a_file_that_has_changed_meanwhile_is_not_spliced(server, tmp_path):
    for change in ("tag", "size"):
        server.raw, server.tag, server.drops = RAW, '"one"', [300_000, 0, 0, 0, 0]
        with pytest.raises(DataError, match="no mirror gives it"):
            fetch(named(server.url("a")), tmp_path)
        server.raw = RAW[::-1] if change == "tag" else RAW[::-1] + b"more"
        server.tag = '"two"' if change == "tag" else '"one"'
        server.drops = []
        fetched = fetch(named(server.url("a")), tmp_path).path
        assert fetched.read_bytes() == server.raw
        fetched.unlink()


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    server.ranges, server.drops = False, [900_000, 500_000]
    assert fetch(named(server.url("a")), tmp_path).path.read_bytes() == RAW
    assert [status for _, _, status in server.log] == [200] * 3


def test_a_part_that_lacks_nothing_is_complete(server, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fetch(named(server.url("a")), tmp_path, stop_at_the_end)
    assert fetch(named(server.url("a")), tmp_path).path.read_bytes() == RAW
    assert server.log[-1][2] == 416


def stop_at_the_end(name, done, size):
    if done == size:
        raise KeyboardInterrupt


def test_a_server_that_does_not_say_how_long_it_is(server, tmp_path):
    server.lengths = False
    assert fetch(named(server.url("a")), tmp_path).path.read_bytes() == RAW


def test_a_checksum_that_does_not_fit_is_a_warning(server, tmp_path):
    for kind, size in (("md5", 32), ("sha256", 64)):
        fetched = fetch(named(server.url("a"), checksum=f"{kind}:{'0' * size}"), tmp_path)
        assert fetched.path.read_bytes() == RAW
        assert (
            f"{kind} is {hashlib.new(kind, RAW).hexdigest()}, was {'0' * size}" in fetched.warning
        )
        assert "The publisher has changed the file, or it is damaged" in fetched.warning


# --- mirrors -------------------------------------------------------------------------------------


def test_the_next_mirror_is_asked_when_one_is_gone_busy_or_a_web_page(server, tmp_path):
    server.statuses = {"gone": 404, "busy": 503}
    urls = [server.url("gone"), server.url("busy"), "ftp://x/y", "http://127.0.0.1:1/", "nonsense"]
    assert fetch(named(*urls, server.url("good")), tmp_path).path.read_bytes() == RAW
    paths = [path for path, _, _ in server.log]
    assert paths == ["gone"] + ["busy"] * download.ATTEMPTS + ["good"]


def test_a_server_that_is_busy_for_a_while_is_asked_again(server, tmp_path):
    states = iter([503, 429, 200])
    server.statuses = {"a": lambda: next(states)}
    assert fetch(named(server.url("a")), tmp_path).path.read_bytes() == RAW


def test_a_web_page_in_the_place_of_a_file_is_refused(server, tmp_path):
    """As a file host answers whose link has died: status 200, and words."""
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(DataError, match="it sent a web page, not the file"):
        fetch(named(server.url("a")), tmp_path)


def test_what_is_called_zip_and_is_none_is_refused(server, tmp_path):
    with pytest.raises(DataError, match=r"d\.zip: no mirror gives it .*what it sent is no zip"):
        fetch(named(server.url("a"), name="d.zip"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", "b")
    server.raw = buffer.getvalue()
    assert fetch(named(server.url("a"), name="d.zip"), tmp_path).path.read_bytes() == server.raw


def test_when_no_mirror_is_left_each_reason_is_told_and_the_part_is_kept(server, tmp_path):
    server.statuses, server.drops = {"gone": 410}, [400_000, 0, 0, 0, 0, 0]
    with pytest.raises(DataError) as error:
        fetch(named(server.url("a"), server.url("gone")), tmp_path)
    assert f"{server.url('gone')}: HTTP status 410" in str(error.value)
    assert re.search(r"/a: .+; http", str(error.value))
    assert (tmp_path / ".data.bin.part").stat().st_size == 400_000
    with pytest.raises(DataError, match="none is known"):
        fetch(named(), tmp_path)


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("words")
    with pytest.raises(DataError, match=r"cannot be written .* choose another folder with --out"):
        fetch(named(server.url("a")), tmp_path / "file")


# --- corpora -------------------------------------------------------------------------------------


def test_a_corpus_is_fetched_and_more_mirrors_come_first(server, tmp_path, monkeypatch):
    facts = Facts(files=(named(server.url("x/one.bin"), name="One.bin"),), obtain="By hand: so.")
    stand_in = type(CORPORA["nmnist"])("nmnist", "a stand-in", True, None, facts)
    monkeypatch.setitem(CORPORA, "nmnist", stand_in)
    mine = [server.url("mine/one.bin?dl=1"), server.url("mine/two%20b.bin")]
    files = [fetched.path.name for fetched in obtain("nmnist", tmp_path, mine)]
    assert files == ["One.bin", "two b.bin"]
    assert [path for path, _, _ in server.log] == ["mine/one.bin?dl=1", "mine/two%20b.bin"]
    server.statuses = {"x/one.bin": 404}
    with pytest.raises(DataError, match=r"HTTP status 404.*By hand: so\. What lies in .*other"):
        obtain("nmnist", tmp_path / "other")


def test_a_corpus_without_addresses_says_how_to_get_it(monkeypatch):
    with pytest.raises(DataError, match=r"'digits' is not fetched by a command. Nothing to fetch"):
        obtain("digits")
    monkeypatch.setattr("spikeshot.data.corpora.obtain.download_folder", lambda name: "/here")
    stand_in = type(CORPORA["nmnist"])("n", "", True, None, Facts(obtain="By hand: from X."))
    monkeypatch.setitem(CORPORA, "n", stand_in)
    with pytest.raises(DataError, match=r"command. By hand: from X. What lies in /here is found"):
        obtain("n")
    for url in ("https://x.org/", "https://x.org/a/..", "https://[", "https://x.org/%00", ""):
        with pytest.raises(DataError, match="names no file"):
            obtain("nmnist", urls=[url])
