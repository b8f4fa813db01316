"""Several processes on one inbox, killed at random moments: each video is scored once."""

import random
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers.inbox_worker import assert_each_scored_once, fill
from tests.helpers.project import LONG_ENOUGH, ROOT
from vadcore.detection.inbox import Inbox


def start_worker(folder: Path, out: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "tests.helpers.inbox_worker", folder, out]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(worker: subprocess.Popen) -> None:
    said, _ = worker.communicate(timeout=LONG_ENOUGH)
    assert worker.returncode == 0, said


def test_processes_killed_at_random_moments(tmp_path):
    names = [f"{number:02d}{'-broken' if number % 7 == 3 else ''}.mp4" for number in range(24)]
    folder, out = fill(tmp_path / "inbox", *names), tmp_path / "out"
    chance = random.SystemRandom()
    for _ in range(4):
        workers = [start_worker(folder, out) for _ in range(2)]
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            time.sleep(chance.uniform(0, 0.15))
            worker.kill()
        for worker in workers:
            worker.communicate()
    finish(start_worker(folder, out))
    assert_each_scored_once(folder, out, names)


def test_three_processes_share_an_inbox(tmp_path):
    names = [f"{number:02d}.mp4" for number in range(20)]
    folder, out = fill(tmp_path / "inbox", *names), tmp_path / "out"
    for worker in [start_worker(folder, out) for _ in range(3)]:
        finish(worker)
    assert Inbox(folder, out).empty
    assert_each_scored_once(folder, out, names)
