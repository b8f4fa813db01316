"""One call of a command or a URL."""

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.helpers.hook import Hook
from tests.helpers.processes import running
from tests.helpers.project import LONG_ENOUGH
from tests.helpers.waiting import wait_until
from vadcore.detection.calls import call
from vadcore.utils.errors import VadError
from vadcore.utils.targets import target_of


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
