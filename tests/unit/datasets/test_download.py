"""Downloads: whole and verified, resumed where they broke, and a clear line when they cannot be had.

The server is a real HTTP server on the loopback interface that can break off in the middle.
"""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from vadcore.datasets import download
from vadcore.datasets.download import Published, fetch
from vadcore.errors import VadError

CONTENT = bytes(range(256)) * 4000  # 1 024 000 bytes
PAGE = "http://example.org/dataset.html"


class Server:
    """Serves ``content`` at any path; ``breaks`` lists after how many bytes the next answers break off."""

    def __init__(self):
        self.content, self.etag, self.ranges, self.status = CONTENT, '"v1"', True, None
        self.breaks: list[int] = []
        self.requests: list[str | None] = []  # the Range header of every request
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *arguments):
                """Keep the test's output clean."""

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


def test_a_file_is_downloaded_verified_and_its_progress_told(server, tmp_path):
    said = []
    path = fetch(server.published(), tmp_path, said.append)
    assert path == tmp_path / "set.tar.gz"
    assert path.read_bytes() == CONTENT
    assert [file.name for file in tmp_path.iterdir()] == ["set.tar.gz"]
    # 1.024 MB in blocks of 10 kB: one line for every tenth
    assert [line[-4:].strip() for line in said if line.endswith("%")] == [
        f"{10 * i} %"[-4:].strip() for i in range(1, 11)
    ]
    assert said[-1] == "set.tar.gz: sha256 verified"


def test_a_download_that_breaks_goes_on_where_it_broke(server, tmp_path):
    server.breaks = [300_000, 200_000]
    assert fetch(server.published(), tmp_path).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", "bytes=500000-"]


def test_the_next_call_asks_only_for_the_rest(server, tmp_path):
    server.breaks = [400_000, 0, 0, 0, 0, 0]
    with pytest.raises(VadError, match=r"0\.4 MB are kept, the same command goes on from there"):
        fetch(server.published(), tmp_path)
    server.breaks, server.requests = [], []
    said = []
    assert fetch(server.published(), tmp_path, said.append).read_bytes() == CONTENT
    assert server.requests == ["bytes=400000-"]
    assert said[0].endswith("1.0 MB, going on from 0.4 MB")


def test_a_server_that_cannot_resume_sends_it_all_again(server, tmp_path):
    server.breaks, server.ranges = [300_000], False
    assert fetch(server.published(), tmp_path).read_bytes() == CONTENT


def test_halves_of_two_versions_are_never_joined(server, tmp_path):
    server.breaks = [300_000, 0, 0, 0, 0, 0]
    with pytest.raises(VadError, match="cannot be downloaded"):
        fetch(server.published(), tmp_path)
    server.breaks, server.content, server.etag = [], CONTENT[::-1], '"v2"'
    assert fetch(server.published(None), tmp_path).read_bytes() == CONTENT[::-1]


def test_a_part_that_is_already_whole_needs_nothing_more(server, tmp_path):
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENT)
    assert fetch(server.published(), tmp_path).read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_is_started_over(server, tmp_path):
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENT + b"more")
    assert fetch(server.published(), tmp_path).read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_downloaded_again(server, tmp_path):
    fetch(server.published(), tmp_path)
    fetch(server.published(), tmp_path)
    assert len(server.requests) == 1


def test_a_wrong_checksum_removes_the_file_and_says_what_to_do(server, tmp_path):
    with pytest.raises(VadError, match=f"sha256 is {hashlib.sha256(CONTENT).hexdigest()}, expected 00") as caught:
        fetch(server.published("00" * 32), tmp_path)
    assert PAGE in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_a_published_checksum_the_log_says_so(server, tmp_path):
    said = []
    fetch(server.published(None), tmp_path, said.append)
    assert said[-1] == "set.tar.gz: not verified, no checksum of it is published"


def test_a_dead_link_is_reported_at_once_with_the_page_to_go_to(server, tmp_path):
    server.status = 404
    with pytest.raises(VadError, match=r"set\.tar\.gz: cannot be downloaded \(404 Not Found\)") as caught:
        fetch(server.published(), tmp_path)
    assert f"fetch it by hand ({PAGE}) and set dataset.*.source" in str(caught.value)
    assert len(server.requests) == 1


def test_a_server_in_trouble_is_asked_five_times(server, tmp_path):
    server.status = 503
    with pytest.raises(VadError, match="503"):
        fetch(server.published(), tmp_path)
    assert len(server.requests) == 5


def test_no_network_is_one_line(server, tmp_path):
    published = server.published()
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(VadError, match="cannot be downloaded") as caught:
        fetch(published, tmp_path)
    assert "\n" not in str(caught.value)
