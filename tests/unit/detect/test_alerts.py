"""An alert reaches its command or URL once an event, whatever breaks, and never holds up scoring."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from tests.helpers.project import ROOT
from vadcore.detect import alerts
from vadcore.detect.alerts import READY, SPOOL, Sender, any_left, lay_ready, queue, queue_left
from vadcore.detect.calls import call, target_of
from vadcore.errors import VadError

QUICK = {"timeout": 5.0, "first_wait": 0.05, "longest_wait": 0.2}


class Server:
    """Answers POSTs on the loopback: the given codes first, then 200. ``got``: the JSON of each call that it took."""

    def __init__(self, *codes: int, slow: float = 0.0):
        codes = list(codes)
        self.got, self.calls = [], 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                server.calls += 1
                text = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(slow)
                code = codes.pop(0) if codes else 200
                if code == 200:
                    assert self.headers["Content-Type"] == "application/json"
                    server.got.append(json.loads(text))
                self.send_response(code)
                if code in (301, 302):
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook/secret"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def results(out: Path, key: str = "gate", events: int = 2) -> Path:
    """A folder of results with alerts laid ready."""
    folder = out / key
    folder.mkdir(parents=True)
    about = {
        "video": f"{key}.mp4",
        "detector": {"dataset": "yard", "model": "conv_ae"},
        "threshold": 1.5,
        "false_alarms_per_hour": 12.0,
        "events": [{"number": n + 1, "start_seconds": 3.0 * n, "peak_score": 2.0, "box": None} for n in range(events)],
    }
    lay_ready(folder, key, about, folder)
    return folder


def pending(out: Path) -> list[Path]:
    return sorted((out / SPOOL / "pending").glob("*/*.json"))


def test_each_event_is_one_call_with_its_json(tmp_path):
    with Server() as server:
        queue(results(tmp_path))
        with Sender(tmp_path, server.url, **QUICK):
            pass
    assert [alert["event"]["number"] for alert in server.got] == [1, 2]
    assert len({alert["id"] for alert in server.got}) == 2
    assert server.got[0]["video"] == "gate.mp4"
    assert server.got[0]["results"] == str((tmp_path / "gate").resolve())
    assert server.got[0]["detector"]["model"] == "conv_ae"
    assert pending(tmp_path) == []
    assert list((tmp_path / SPOOL / "pending").iterdir()) == []


def test_a_server_that_fails_twice_is_asked_a_third_time(tmp_path):
    with Server(500, 503) as server:
        queue(results(tmp_path, events=1))
        with Sender(tmp_path, server.url, **QUICK) as sender:
            assert sender.close(10) == 0
    assert server.calls == 3
    assert len(server.got) == 1


def test_waits_between_calls_double(tmp_path):
    times = []
    with Server(500, 500, 500) as server:
        queue(results(tmp_path, events=1))
        sender = Sender(tmp_path, server.url, timeout=5, first_wait=0.1, longest_wait=10)
        while len(times) < 4:
            if server.calls > len(times):
                times.append(time.monotonic())
            time.sleep(0.002)
        sender.close(5)
    waits = [b - a for a, b in pairwise(times)]
    assert waits[0] >= 0.08
    assert waits[1] >= 0.18
    assert waits[2] >= 0.38


def test_a_command_gets_the_json_on_its_standard_input(tmp_path):
    program = "import sys, pathlib; pathlib.Path(sys.argv[1]).open('a').write(sys.stdin.read() + '\\n')"
    heard = tmp_path / "heard with spaces; and more"
    queue(results(tmp_path))
    with Sender(tmp_path, (sys.executable, "-c", program, str(heard)), **QUICK):
        pass
    assert [json.loads(line)["event"]["number"] for line in heard.read_text().splitlines()] == [1, 2]


def test_what_is_given_up_lies_there_with_the_reason(tmp_path):
    said = []
    queue(results(tmp_path, events=1))
    with Sender(tmp_path, ("false",), give_up=0.3, say=said.append, **QUICK) as sender:
        assert sender.close(10) == 0
    (failed,) = (tmp_path / SPOOL / "failed").glob("*/00001.json")
    assert json.loads(failed.read_text())["alert"]["event"]["number"] == 1
    assert failed.with_name("00001.reason.txt").read_text() == "false ended with 1: without a word\n"
    assert said[-1] == f"{failed}: alert given up: false ended with 1: without a word"


def test_what_was_given_up_is_sent_once_more_when_it_is_moved_back(tmp_path):
    queue(results(tmp_path, events=1))
    with Sender(tmp_path, ("false",), give_up=0.0, say=lambda text: None, **QUICK) as sender:
        assert sender.close(10) == 0
    (failed,) = (tmp_path / SPOOL / "failed").iterdir()
    failed.rename(tmp_path / SPOOL / "pending" / failed.name)
    with Server() as server, Sender(tmp_path, server.url, **QUICK):
        pass
    assert len(server.got) == 1
    assert list((tmp_path / SPOOL / "pending").iterdir()) == []


def test_why_an_alert_waits_is_said_at_once_and_not_at_every_call(tmp_path):
    said = []
    queue(results(tmp_path, events=1))
    sender = Sender(tmp_path, ("/no/such/hook",), say=said.append, **QUICK)
    time.sleep(1)
    assert sender.close(0) == 1
    (path,) = pending(tmp_path)
    fault = "/no/such/hook cannot be started (No such file or directory)"
    assert said == [f"{path}: alert not sent yet: {fault}; it is tried again"]


def test_a_command_may_say_anything_and_the_next_alerts_are_sent(tmp_path):
    """Bytes that are no UTF-8 on its standard error output, whether it succeeds or not."""
    heard = tmp_path / "heard"
    program = (
        "import sys, json; number = json.load(sys.stdin)['event']['number']; "
        f"open({str(heard)!r}, 'a').write(f'{{number}}\\n'); "
        "sys.stderr.buffer.write(b'ung\\xfcltig'); sys.exit(number == 2)"
    )
    said = []
    queue(results(tmp_path, events=3))
    with Sender(tmp_path, (sys.executable, "-c", program), give_up=0.0, say=said.append, **QUICK) as sender:
        assert sender.close(20) == 0
    assert heard.read_text().split() == ["1", "2", "3"]
    assert len(said) == 1
    assert said[0].endswith(": ung\ufffdltig")


def test_a_call_that_breaks_in_an_unforeseen_way_is_a_fault_of_its_alert_only(tmp_path, monkeypatch):
    def odd(target, text, timeout):
        if json.loads(text)["event"]["number"] == 1:
            raise RuntimeError("nobody foresaw this")
        return call(target, text, timeout)

    monkeypatch.setattr(alerts, "call", odd)
    said = []
    queue(results(tmp_path, events=3))
    with Server() as server, Sender(tmp_path, server.url, say=said.append, **QUICK) as sender:
        limit = time.monotonic() + 20
        while len(pending(tmp_path)) > 1 and time.monotonic() < limit:
            time.sleep(0.02)
        assert sender.close(0) == 1
    assert [alert["event"]["number"] for alert in server.got] == [2, 3]
    assert any("alert not sent yet: RuntimeError: nobody foresaw this" in line for line in said)


def test_nobody_who_listens_is_no_reason_to_send_nothing(tmp_path):
    def gone(text):
        raise BrokenPipeError(32, "Broken pipe")

    queue(results(tmp_path, events=2))
    with Server(500) as server, Sender(tmp_path, server.url, say=gone, **QUICK) as sender:
        assert sender.close(20) == 0
    assert len(server.got) == 2


@pytest.mark.parametrize("start", ["", "setsid "])
def test_a_command_is_over_when_it_ends_though_it_has_started_something(tmp_path, start):
    heard, pid = tmp_path / "heard", tmp_path / "pid"
    started = time.monotonic()
    words = ("sh", "-c", f"cat >> {heard}; {start}sleep 60 & echo $! > {pid}; exit 0")
    try:
        assert call(words, "{}\n", timeout=10) is None
        assert time.monotonic() - started < 5
        assert heard.read_text() == "{}\n"
        os.kill(int(pid.read_text()), 0)  # is still there
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_a_command_that_hangs_holds_the_sender_up_no_longer_though_something_of_it_lives_on(tmp_path):
    pid = tmp_path / "pid"
    started = time.monotonic()
    words = ("sh", "-c", f"setsid sleep 60 & echo $! > {pid}; sleep 30")
    try:
        assert call(words, "{}", timeout=1) == "sh took more than 1 s"
        assert time.monotonic() - started < 5
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_of_results_in_the_making_nothing_is_sent(tmp_path):
    """Who is killed there makes them again, with other alerts."""
    whole = results(tmp_path)
    whole.rename(tmp_path / ".gate.partial")
    assert not any_left(tmp_path)
    queue_left(tmp_path)
    assert pending(tmp_path) == []


def test_an_alert_that_waited_too_long_for_a_sender_is_still_tried_once(tmp_path):
    folder = results(tmp_path, events=1)
    (laid,) = (folder / READY).iterdir()
    laid.write_text(json.dumps({**json.loads(laid.read_text()), "queued": time.time() - 10_000}))
    queue(folder)
    with Server() as server, Sender(tmp_path, server.url, give_up=60, **QUICK):
        pass
    assert len(server.got) == 1


def test_one_alert_that_fails_holds_up_no_other(tmp_path):
    program = "import sys, json; sys.exit(json.load(sys.stdin)['event']['number'] == 1)"
    queue(results(tmp_path, events=5))
    sender = Sender(tmp_path, (sys.executable, "-c", program), **QUICK)
    limit = time.monotonic() + 20
    while len(pending(tmp_path)) > 1 and time.monotonic() < limit:
        time.sleep(0.02)
    assert [path.stem for path in pending(tmp_path)] == ["00001"]
    assert sender.close(0) == 1


def test_a_server_that_hangs_holds_up_nobody(tmp_path):
    with Server(slow=2) as server:
        queue(results(tmp_path, events=1))
        started = time.monotonic()
        sender = Sender(tmp_path, server.url, timeout=0.3, first_wait=0.05)
        queue(results(tmp_path, "yard"))
        sender.wake()
        assert time.monotonic() - started < 0.2
        assert sender.close(0.1) == 3
        assert time.monotonic() - started < 2


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path):
    mark = f"sleep 61.{os.getpid()}"
    assert call(("sh", "-c", f"{mark} & wait"), "{}", timeout=0.3) == "sh took more than 0.3 s"
    time.sleep(0.2)
    assert mark not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_what_goes_wrong_is_said_without_the_secret_part_of_a_url():
    with Server(404, 302) as server:
        assert call(server.url, "{}", 5) == "127.0.0.1 answered 404 Not Found"
        assert call(server.url, "{}", 5) == "127.0.0.1 answered 302 Found"  # would go on as a GET, without the JSON
        assert server.calls == 2
        url = server.url
    assert call(url, "{}", 5).startswith("no answer from 127.0.0.1 (")
    assert call(("/no/such/program",), "{}", 5) == "/no/such/program cannot be started (No such file or directory)"


def test_alerts_that_a_killed_process_laid_ready_are_queued_once(tmp_path):
    results(tmp_path)
    results(tmp_path, "quiet", events=0)
    assert not (tmp_path / "quiet" / READY).exists()
    queue_left(tmp_path)
    queue_left(tmp_path)
    queue(tmp_path / "gate")
    assert len(pending(tmp_path)) == 2
    assert not (tmp_path / "gate" / READY).exists()


SEND = """
import sys, time
from vadcore.detect.alerts import Sender
sender = Sender(sys.argv[1], sys.argv[2], timeout=5, first_wait=0.05, longest_wait=0.1)
print("ready", flush=True)
sys.stdin.read()
sender.close(20)
"""


def start_sender(out: Path, url: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", SEND, str(out), url],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_sender_that_is_killed_loses_nothing(tmp_path):
    with Server(*[500] * 40) as server:
        queue(results(tmp_path, events=4))
        process = start_sender(tmp_path, server.url)
        while server.calls < 6:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert server.got == []
        assert len(pending(tmp_path)) == 4
        process = start_sender(tmp_path, server.url)
        process.communicate()
        assert sorted(alert["event"]["number"] for alert in server.got) == [1, 2, 3, 4]


def test_of_two_senders_one_sends(tmp_path):
    with Server(slow=0.02) as server:
        processes = [start_sender(tmp_path, server.url) for _ in range(2)]
        for number in range(10):
            queue(results(tmp_path, f"gate-{number}"))
        for process in processes:
            process.communicate()
    assert len(server.got) == 20
    assert len({alert["id"] for alert in server.got}) == 20


def test_a_damaged_alert_stops_no_other(tmp_path):
    folder = results(tmp_path, events=2)
    (folder / READY / "00001.json").write_text("{")
    queue(folder)
    with Server() as server, Sender(tmp_path, server.url, say=lambda text: None, **QUICK):
        pass
    assert [alert["event"]["number"] for alert in server.got] == [2]
    assert len(list((tmp_path / SPOOL / "failed").glob("*/00001.json"))) == 1


@pytest.mark.parametrize("wrong", ["ftp://host/x", "http://", "file:///etc/passwd", [], ["curl", ""]])
def test_a_target_that_is_none_is_refused(wrong):
    with pytest.raises(VadError, match=r"^alert: "):
        target_of(wrong)


def test_a_target_is_a_url_or_a_command():
    assert target_of("https://example.org/hook") == "https://example.org/hook"
    assert target_of(["notify", "--now"]) == ("notify", "--now")
    assert target_of("notify") == ("notify",)


def test_a_line_is_split_as_a_shell_would_and_a_list_is_taken_as_it_is():
    assert target_of("./hook.sh --loud 'to all'") == ("./hook.sh", "--loud", "to all")
    assert target_of(["./my hook.sh", "--loud"]) == ("./my hook.sh", "--loud")
    assert target_of("forward --to https://example.org/hook") == ("forward", "--to", "https://example.org/hook")
    with pytest.raises(
        VadError, match=r"alert: \"notify 'all\" is no command \(No closing quotation\); correct it, or give"
    ):
        target_of("notify 'all")
    with pytest.raises(VadError, match=r"alert: ' ' is no command; name a program or a URL, or leave it out"):
        target_of(" ")
