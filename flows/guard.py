"""``python guard.py NICE WHOM GRACE COMMAND...``: run a command until it ends or standard input is closed.

The command runs in its own process group. Only the starter of this program holds the other end of its standard input.
When that end closes, because the starter wants to stop the command or because the starter has ended for any reason, the
command gets SIGINT, as from Ctrl-C, and SIGKILL after GRACE seconds. What the command leaves running in its group
is killed at its end. Exit code: the command's; 128 + N after signal N.

WHOM selects who gets SIGINT: ``all`` is the command and its children; ``below`` is its children only, for ``dvc repro``.
DVC writes dvc.lock in place; with ``below`` it ends by itself after the current stage and can finish writing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil

GRACE_SECONDS = 20.0  # less than the 30 after which Prefect kills a cancelled flow


def run(nice: int, whom: str, grace: float, command: list[str]) -> int:
    signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN: the command would inherit it
    signal.signal(signal.SIGTERM, lambda *_: None)
    os.nice(nice)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    threading.Thread(target=_stop_when_closed, args=(child, whom, grace), daemon=True).start()
    code = child.wait()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _stop_when_closed(child: subprocess.Popen, whom: str, grace: float) -> None:
    while os.read(0, 1024):
        pass  # nothing is ever sent
    asked = set() if whom == "all" else {child.pid}
    end = time.monotonic() + grace
    while child.poll() is None and time.monotonic() < end:
        for pid in {child.pid, *_descendants(child.pid)} - asked:
            asked.add(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        time.sleep(0.1)
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)


def _descendants(pid: int) -> set[int]:
    """Return the descendants of ``pid`` in its process group. The MLflow uploader has left the group and ends by itself."""
    found = set()
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        for process in psutil.Process(pid).children(recursive=True):
            if os.getpgid(process.pid) == pid:
                found.add(process.pid)
    return found


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4:]))
