"""Alert senders as processes: a killed one, and two on the same spool."""

import subprocess
import sys
from pathlib import Path

from tests.helpers.alerts import pending, results_with_alerts
from tests.helpers.hook import Hook
from tests.helpers.project import LONG_ENOUGH, ROOT
from tests.helpers.waiting import wait_until
from vadcore.detection.alerts import queue

SEND = f"""
import sys
from vadcore.detection.alerts import Sender
sender = Sender(sys.argv[1], sys.argv[2], timeout={LONG_ENOUGH}, first_wait=0.05, longest_wait=0.1)
print("ready", flush=True)
sys.stdin.read()
sys.exit(sender.close({LONG_ENOUGH}))
"""


def start_sender(out: Path, url: str) -> subprocess.Popen:
    """Start a process that sends until its standard input is closed and no alert is left."""
    words = [sys.executable, "-c", SEND, str(out), url]
    process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process: subprocess.Popen) -> None:
    process.communicate(timeout=LONG_ENOUGH)
    assert process.returncode == 0


def test_killed_sender_loses_no_alert(tmp_path):
    with Hook(*[500] * 12) as hook:
        queue(results_with_alerts(tmp_path, events=4))
        process = start_sender(tmp_path, hook.url)
        wait_until(lambda: hook.calls >= 6)
        process.kill()
        process.communicate()
        assert len(pending(tmp_path)) + len({alert["id"] for alert in hook.got}) >= 4
        finish(start_sender(tmp_path, hook.url))
    assert {alert["event"]["number"] for alert in hook.got} == {1, 2, 3, 4}
    assert pending(tmp_path) == []


def test_two_senders_send_each_alert_once(tmp_path):
    with Hook() as hook:
        processes = [start_sender(tmp_path, hook.url) for _ in range(2)]
        for number in range(10):
            queue(results_with_alerts(tmp_path, f"gate-{number}"))
        for process in processes:
            finish(process)
    assert len(hook.got) == 20
    assert len({alert["id"] for alert in hook.got}) == 20
