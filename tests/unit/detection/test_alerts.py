"""The alert queue, its sender, and calls of a command or a URL."""

import json
import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.helpers.alerts import pending, results_with_alerts
from tests.helpers.hook import Hook
from tests.helpers.processes import running
from tests.helpers.project import LONG_ENOUGH
from tests.helpers.waiting import wait_until
from vadcore.detection import alerts
from vadcore.detection.alerts import QUEUE, READY, Clock, Sender, any_left, call, queue, queue_left
from vadcore.utils.errors import VadError
from vadcore.utils.targets import target_of

BEGIN = 1000.0  # seconds since the epoch at which simulated time begins


class SimulatedClock(Clock):
    """A clock that advances only when the sender waits, without a real wait."""

    def __init__(self):
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def date(self) -> float:
        return BEGIN + self.seconds

    def wait(self, event, seconds):
        self.seconds += seconds
        time.sleep(0.0001)  # lets other threads run


class Calls:
    """A fake of :func:`vadcore.detection.alerts.call`. ``faults``: the answers of the first calls, or a function of the
    event's number; other calls succeed."""

    def __init__(self, *faults, clock: Clock | None = None):
        self.faults, self.clock = list(faults), clock
        self.times, self.numbers = [], []

    def __call__(self, target, text, timeout):
        number = json.loads(text)["event"]["number"]
        self.numbers.append(number)
        if self.clock:
            self.times.append(self.clock.now())
        answer = self.faults[0] if self.faults and callable(self.faults[0]) else None
        if answer:
            return answer(number)
        return self.faults.pop(0) if self.faults else None


@pytest.fixture
def clock():
    return SimulatedClock()


@pytest.fixture
def patch_call(monkeypatch):
    """Patches the sender's calls with a :class:`Calls`."""

    def patch(*faults, clock=None) -> Calls:
        calls = Calls(*faults, clock=clock)
        monkeypatch.setattr(alerts, "call", calls)
        return calls

    return patch


def send_all(out: Path, target="hook", **more) -> None:
    """Run a sender until the queue is empty."""
    assert Sender(out, target, timeout=LONG_ENOUGH, **more).close(LONG_ENOUGH) == 0


def test_url_gets_json_once_per_event(tmp_path):
    queue(results_with_alerts(tmp_path))
    with Hook() as hook:
        send_all(tmp_path, hook.url)
    assert [alert["event"]["number"] for alert in hook.got] == [1, 2]
    assert len({alert["id"] for alert in hook.got}) == 2
    assert hook.got[0]["video"] == "gate.mp4"
    assert hook.got[0]["results"] == str((tmp_path / "gate").resolve())
    assert hook.got[0]["detector"]["model"] == "conv_ae"
    assert list((tmp_path / QUEUE / "pending").iterdir()) == []


def test_command_gets_json_once_per_event(tmp_path):
    heard = tmp_path / "heard"
    queue(results_with_alerts(tmp_path))
    send_all(tmp_path, ("sh", "-c", 'cat >> "$0"; echo >> "$0"', str(heard)))
    assert [json.loads(line)["event"]["number"] for line in heard.read_text().splitlines()] == [1, 2]


def test_failed_call_is_retried_with_backoff(tmp_path, patch_call, clock):
    calls = patch_call(*["busy"] * 5, clock=clock)
    queue(results_with_alerts(tmp_path, events=1))
    send_all(tmp_path, first_wait=2, longest_wait=10, give_up=1e12, log=lambda text: None, clock=clock)
    waits = [later - earlier for earlier, later in zip(calls.times, calls.times[1:], strict=False)]
    assert waits == pytest.approx([2, 4, 8, 10, 10])


def test_alert_fails_after_time_limit(tmp_path, patch_call, clock):
    calls = patch_call(lambda number: "busy", clock=clock)
    folder = results_with_alerts(tmp_path, events=1)
    (laid,) = (folder / READY).iterdir()
    laid.write_text(json.dumps({**json.loads(laid.read_text()), "queued": BEGIN}))
    queue(folder)
    said = []
    send_all(tmp_path, first_wait=1, longest_wait=1, give_up=5, log=said.append, clock=clock)
    assert calls.times == pytest.approx([0, 1, 2, 3, 4, 5], abs=0.1)
    (failed,) = (tmp_path / QUEUE / "failed").glob("*/00001.json")
    assert json.loads(failed.read_text())["alert"]["event"]["number"] == 1
    assert failed.with_name("00001.reason.txt").read_text() == "busy\n"
    assert str(failed) in said[-1]
    assert "busy" in said[-1]


def test_failed_alert_can_be_sent_again(tmp_path, patch_call):
    calls = patch_call("busy")
    queue(results_with_alerts(tmp_path, events=1))
    send_all(tmp_path, give_up=0.0, log=lambda text: None)
    (failed,) = (tmp_path / QUEUE / "failed").iterdir()
    failed.rename(tmp_path / QUEUE / "pending" / failed.name)
    send_all(tmp_path)
    assert calls.numbers == [1, 1]
    assert list((tmp_path / QUEUE / "pending").iterdir()) == []


def test_repeated_fault_is_reported_once(tmp_path, patch_call, clock):
    calls = patch_call(lambda number: "busy")
    said = []
    queue(results_with_alerts(tmp_path, events=1))
    sender = Sender(tmp_path, "hook", give_up=1e12, log=said.append, clock=clock)
    wait_until(lambda: len(calls.numbers) > 4)
    assert sender.close(0) == 1
    (path,) = pending(tmp_path)
    (line,) = said
    assert str(path) in line
    assert "busy" in line


def test_unexpected_error_does_not_stop_sending(tmp_path, patch_call, clock):
    def answer(number):
        if number == 1:
            raise RuntimeError("nobody foresaw this")

    patch_call(answer)
    said = []
    queue(results_with_alerts(tmp_path, events=3))
    sender = Sender(tmp_path, "hook", give_up=1e12, log=said.append, clock=clock)
    wait_until(lambda: len(pending(tmp_path)) == 1)
    assert sender.close(0) == 1
    assert [path.stem for path in pending(tmp_path)] == ["00001"]
    assert "RuntimeError: nobody foresaw this" in said[0]


def test_failing_alert_does_not_delay_others(tmp_path, patch_call, clock):
    patch_call(lambda number: "busy" if number == 1 else None)
    queue(results_with_alerts(tmp_path, events=5))
    sender = Sender(tmp_path, "hook", give_up=1e12, log=lambda text: None, clock=clock)
    wait_until(lambda: len(pending(tmp_path)) == 1)
    assert [path.stem for path in pending(tmp_path)] == ["00001"]
    assert sender.close(0) == 1


def test_alerts_are_sent_without_output(tmp_path, patch_call, clock):
    def closed(text):
        raise BrokenPipeError(32, "Broken pipe")

    calls = patch_call("busy")
    queue(results_with_alerts(tmp_path))
    send_all(tmp_path, give_up=1e12, log=closed, clock=clock)
    assert sorted(calls.numbers) == [1, 1, 2]


def test_unfinished_results_send_no_alerts(tmp_path):
    """After a kill the results are made again, with new alerts."""
    results_with_alerts(tmp_path).rename(tmp_path / ".gate.partial")
    assert not any_left(tmp_path)
    queue_left(tmp_path)
    assert pending(tmp_path) == []


def test_overdue_alert_is_tried_once(tmp_path, patch_call):
    calls = patch_call()
    folder = results_with_alerts(tmp_path, events=1)
    (laid,) = (folder / READY).iterdir()
    laid.write_text(json.dumps({**json.loads(laid.read_text()), "queued": time.time() - 10_000}))
    queue(folder)
    send_all(tmp_path, give_up=60)
    assert calls.numbers == [1]


def test_hanging_url_does_not_block(tmp_path):
    with Hook(held=True) as hook:
        queue(results_with_alerts(tmp_path, events=1))
        sender = Sender(tmp_path, hook.url, timeout=LONG_ENOUGH)
        queue(results_with_alerts(tmp_path, "yard"))
        sender.wake()
        wait_until(lambda: hook.calls == 1)  # and the call goes on until the hook is released
        hook.release()
        assert sender.close(LONG_ENOUGH) == 0


def test_close_with_hanging_url(tmp_path):
    with Hook(held=True) as hook:
        queue(results_with_alerts(tmp_path, events=3))
        sender = Sender(tmp_path, hook.url, timeout=0.1, log=lambda text: None)
        wait_until(lambda: hook.calls)
        assert sender.close(0) == 3


def test_leftover_alerts_are_queued_once(tmp_path):
    results_with_alerts(tmp_path)
    results_with_alerts(tmp_path, "quiet", events=0)
    assert not (tmp_path / "quiet" / READY).exists()
    assert any_left(tmp_path)
    queue_left(tmp_path)
    queue_left(tmp_path)
    queue(tmp_path / "gate")
    assert len(pending(tmp_path)) == 2
    assert not (tmp_path / "gate" / READY).exists()


def test_damaged_alert_does_not_stop_others(tmp_path, patch_call):
    calls = patch_call()
    folder = results_with_alerts(tmp_path)
    (folder / READY / "00001.json").write_text("{")
    queue(folder)
    send_all(tmp_path, log=lambda text: None)
    assert calls.numbers == [2]
    assert len(list((tmp_path / QUEUE / "failed").glob("*/00001.json"))) == 1


def test_queue_emptied_by_another_process(tmp_path, patch_call, clock, monkeypatch):
    patch_call()
    for key in ("one", "two"):
        queue(results_with_alerts(tmp_path, key))
    iterdir = Path.iterdir

    def late(folder):
        if folder.name.startswith("one."):
            shutil.rmtree(folder, ignore_errors=True)
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", late)
    assert any_left(tmp_path)
    assert [path.parent.name.split(".")[0] for path in alerts._pending(tmp_path)] == ["two", "two"]
    send_all(tmp_path, clock=clock)


def test_alert_queued_before_close_is_sent(tmp_path, patch_call, monkeypatch):
    """Also if the sender has just read the queue and is about to end."""
    calls = patch_call()
    looked, closed = threading.Event(), threading.Event()
    looks, look = [], alerts._pending

    def slow(out):
        found = look(out)
        if threading.current_thread().name == "alerts":
            looks.append(found)
            if len(looks) == 2:
                looked.set()
                closed.wait()
        return found

    monkeypatch.setattr(alerts, "_pending", slow)
    sender = Sender(tmp_path, "hook", timeout=LONG_ENOUGH)
    looked.wait()
    queue(results_with_alerts(tmp_path, events=1))
    closer = threading.Thread(target=sender.close, args=(LONG_ENOUGH,))
    closer.start()
    wait_until(lambda: sender._until < float("inf"))
    closed.set()
    closer.join()
    assert calls.numbers == [1]


def test_second_sender_takes_over(tmp_path, patch_call, clock):
    hold = threading.Event()
    calls = patch_call(lambda number: hold.wait() and None)
    queue(results_with_alerts(tmp_path, "one", events=1))
    first = Sender(tmp_path, "hook", timeout=LONG_ENOUGH)
    wait_until(lambda: calls.numbers)
    second = Sender(tmp_path, "hook", timeout=LONG_ENOUGH, clock=clock)
    wait_until(lambda: clock.now() > 10)  # it waits for the lock
    assert calls.numbers == [1]
    hold.set()
    assert first.close(LONG_ENOUGH) == 0
    queue(results_with_alerts(tmp_path, "two", events=3))
    assert second.close(LONG_ENOUGH) == 0
    assert calls.numbers == [1, 1, 2, 3]


def shell(script: str, *arguments: str | Path) -> tuple[str, ...]:
    """A command; the script sees ``arguments`` as $0, $1, ..."""
    return ("sh", "-c", script, *map(str, arguments))


def time_out(script: str, pid: Path) -> tuple[str, int]:
    """Call a script that writes a process id to the file ``pid`` and hangs. Returns the message of the call and the id."""
    seconds = 0.1
    while True:  # on a busy machine the script may need longer than the first limits to write the file
        said = call(shell(script, pid), "{}", timeout=seconds)
        if pid.exists() and (text := pid.read_text()).endswith("\n"):
            return said, int(text)
        seconds *= 2
        assert seconds < LONG_ENOUGH


def test_command_gets_json_on_stdin(tmp_path):
    heard = tmp_path / "heard with spaces; and more"
    assert call(shell('cat > "$0"', heard), '{"event": 1}', LONG_ENOUGH) is None
    assert heard.read_text() == '{"event": 1}'


@pytest.mark.parametrize("start", ["", "setsid "])
def test_command_may_leave_a_background_process(tmp_path, start):
    """The call ends with the command, even if a process that it started keeps its files open."""
    heard, pid = tmp_path / "heard", tmp_path / "pid"
    assert call(shell(f'cat >> "$0"; {start}sleep 3600 & echo $! > "$1"', heard, pid), "{}\n", LONG_ENOUGH) is None
    left = int(pid.read_text())
    try:
        assert heard.read_text() == "{}\n"
        assert running(left)
    finally:
        os.kill(left, signal.SIGKILL)


def test_hanging_command_and_children_are_killed(tmp_path):
    said, child = time_out('sleep 3600 & echo $! > "$0"; wait', tmp_path / "pid")
    assert said.startswith("sh took more than ")
    wait_until(lambda: not running(child))


def test_escaped_child_does_not_block_call(tmp_path):
    """A child in a session of its own is not killed, and the call does not wait for it."""
    child = 'echo $$ > "$0"; exec sleep 3600'  # in its own session by the time it writes its id
    said, child = time_out(f"setsid sh -c '{child}' \"$0\" & sleep 3600", tmp_path / "pid")
    try:
        assert said.startswith("sh took more than ")
        assert running(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_message_of_failed_command():
    assert call(("/no/such/program",), "{}", LONG_ENOUGH).startswith("/no/such/program cannot be started")
    assert call(("false",), "{}", LONG_ENOUGH).startswith("false ended with 1")
    said = call(shell(r"echo first >&2; printf 'ung\374ltig' >&2; exit 3"), "{}", LONG_ENOUGH)  # not UTF-8
    assert said == "sh ended with 3: ung\ufffdltig"
    assert call(shell(r"printf 'ung\374ltig' >&2"), "{}", LONG_ENOUGH) is None


def test_message_of_failed_url():
    """The path of a URL may be a secret. A redirect counts as a fault: it would arrive as a GET, without the JSON."""
    with Hook(404, 302) as hook:
        for status in ("404", "302"):
            said = call(hook.url, "{}", LONG_ENOUGH)
            assert said.startswith(f"127.0.0.1 answered {status}")
            assert "secret" not in said
        assert hook.calls == 2
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # bound, but not listening
        said = call(f"http://127.0.0.1:{deaf.getsockname()[1]}/hook/secret", "{}", LONG_ENOUGH)
    assert said.startswith("no answer from 127.0.0.1")
    assert "secret" not in said


def test_silent_url_times_out():
    with Hook(held=True) as hook:
        assert call(hook.url, "{}", timeout=0.1).startswith("no answer from 127.0.0.1")


def test_target_is_url_or_command():
    assert target_of("https://example.org/hook") == "https://example.org/hook"
    assert target_of(["notify", "--now"]) == ("notify", "--now")
    assert target_of("notify") == ("notify",)


def test_command_line_is_split():
    assert target_of("./hook.sh --loud 'to all'") == ("./hook.sh", "--loud", "to all")
    assert target_of(["./my hook.sh", "--loud"]) == ("./my hook.sh", "--loud")
    assert target_of("forward --to https://example.org/hook") == ("forward", "--to", "https://example.org/hook")


@pytest.mark.parametrize("wrong", ["ftp://host/x", "http://", "file:///etc/passwd", "notify 'all", " "])
def test_wrong_target_is_refused_and_named(wrong):
    with pytest.raises(VadError, match=r"^alert: ") as refused:
        target_of(wrong)
    assert wrong in str(refused.value)


@pytest.mark.parametrize("wrong", [[], ["curl", ""]])
def test_empty_list_is_refused(wrong):
    with pytest.raises(VadError, match=r"^alert: .*list of words"):
        target_of(wrong)
