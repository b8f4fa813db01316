"""Downloads from an HTTP server on the loopback interface: verified, resumed, refused when they fail."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vadcore.data import download
from vadcore.data.download import Published, fetch
from vadcore.utils.errors import VadError

CONTENT = bytes(range(256)) * 4000  # 1 024 000 bytes
PAGE = "http://example.org/dataset.html"


class Server:
    """Serves ``content`` at any path; ``breaks``: bytes after which each of the next responses ends early."""

    def __init__(self):
        self.content, self.etag, self.ranges, self.status = CONTENT, '"v1"', True, None
        self.breaks: list[int] = []
        self.requests: list[str | None] = []  # the Range header of every request
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *arguments):
                """Print nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.requests.append(asked)
        if self.status:
            request.send_error(self.status)
            return
        start = 0
        if asked and self.ranges and request.headers.get("If-Range", self.etag) == self.etag:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        if start >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.end_headers()
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        request.send_header("Content-Length", str(len(body)))
        request.send_header("ETag", self.etag)
        request.end_headers()
        request.wfile.write(body[: self.breaks.pop(0)] if self.breaks else body)

    def published(self, sha256: str | None = hashlib.sha256(CONTENT).hexdigest()) -> Published:
        return Published(f"http://127.0.0.1:{self.http.server_port}/set.tar.gz", sha256, PAGE)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setattr(download, "BLOCK", 10_000)
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def test_download_verifies_and_reports_progress(server, tmp_path):
    lines = []
    path = fetch(server.published(), tmp_path, lines.append)
    assert path == tmp_path / "set.tar.gz"
    assert path.read_bytes() == CONTENT
    assert [file.name for file in tmp_path.iterdir()] == ["set.tar.gz"]
    # 1.024 MB in blocks of 10 kB: one line for every tenth
    assert [line[-4:].strip() for line in lines if line.endswith("%")] == [
        f"{10 * i} %"[-4:].strip() for i in range(1, 11)
    ]
    assert "set.tar.gz" in lines[-1]
    assert "sha256" in lines[-1]


def test_broken_download_resumes(server, tmp_path):
    server.breaks = [300_000, 200_000]
    assert fetch(server.published(), tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", "bytes=500000-"]


def test_next_call_requests_only_the_rest(server, tmp_path):
    server.breaks = [400_000, 0, 0, 0, 0, 0]
    with pytest.raises(VadError, match=r"set\.tar\.gz.*0\.4 MB"):
        fetch(server.published(), tmp_path)
    server.breaks, server.requests = [], []
    lines = []
    assert fetch(server.published(), tmp_path, lines.append).read_bytes() == CONTENT
    assert server.requests == ["bytes=400000-"]
    assert "0.4 MB" in lines[0]


def test_server_without_ranges_sends_all_again(server, tmp_path):
    server.breaks, server.ranges = [300_000], False
    assert fetch(server.published(), tmp_path).read_bytes() == CONTENT


def test_versions_are_never_mixed(server, tmp_path):
    server.breaks = [300_000, 0, 0, 0, 0, 0]
    with pytest.raises(VadError, match=r"set\.tar\.gz"):
        fetch(server.published(), tmp_path)
    server.breaks, server.content, server.etag = [], CONTENT[::-1], '"v2"'
    assert fetch(server.published(None), tmp_path).read_bytes() == CONTENT[::-1]


def test_complete_part_is_not_downloaded_again(server, tmp_path):
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENT)
    assert fetch(server.published(), tmp_path).read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT)}-"]


def test_overlong_part_is_restarted(server, tmp_path):
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENT + b"more")
    assert fetch(server.published(), tmp_path).read_bytes() == CONTENT


def test_existing_file_is_not_downloaded_again(server, tmp_path):
    fetch(server.published(), tmp_path)
    fetch(server.published(), tmp_path)
    assert len(server.requests) == 1


def test_wrong_checksum_removes_the_file(server, tmp_path):
    with pytest.raises(VadError, match=f"{hashlib.sha256(CONTENT).hexdigest()}.*{'00' * 32}") as caught:
        fetch(server.published("00" * 32), tmp_path)
    assert PAGE in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_checksum_is_reported(server, tmp_path):
    lines = []
    fetch(server.published(None), tmp_path, lines.append)
    assert "set.tar.gz: not verified" in lines[-1]


def test_dead_link_fails_at_once(server, tmp_path):
    server.status = 404
    with pytest.raises(VadError, match=r"set\.tar\.gz.*404") as caught:
        fetch(server.published(), tmp_path)
    assert PAGE in str(caught.value)
    assert "dataset.*.source" in str(caught.value)
    assert len(server.requests) == 1


def test_server_errors_are_retried_five_times(server, tmp_path):
    server.status = 503
    with pytest.raises(VadError, match="503"):
        fetch(server.published(), tmp_path)
    assert len(server.requests) == 5


def test_error_without_network(server, tmp_path):
    published = server.published()
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(VadError, match=re.escape(PAGE)) as caught:
        fetch(published, tmp_path)
    assert "\n" not in str(caught.value)
