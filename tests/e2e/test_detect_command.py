"""``python -m tasks.detect --inbox`` killed at a random moment, then run again."""

import json
import os
import random
import shutil
import signal
import sys
import time

from tasks import scorer
from tests.helpers.project import LONG_ENOUGH, PARAMS, Project
from tests.helpers.videos import Place, events_of
from tests.helpers.waiting import wait_until
from vadcore.detection.inbox import DONE, FAILED

SYSTEM = ("--dataset", "yard", "--model", "frame_diff")
# one file per alert: an alert command of the killed process may still be running
ALERT = """sh -c 'cat > "heard/$$.part" && mv "heard/$$.part" "heard/$$.json"'"""


def test_inbox_scored_once_despite_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(scorer, "PATIENCE_SECONDS", LONG_ENOUGH)
    params = {
        **PARAMS,
        "datasets": ["yard"],
        "models": ["frame_diff"],
        "detect": {"settle_seconds": 0.5},
        "dataset": {"yard": {"format": "videos", "source": str(tmp_path / "footage")}},
        "model": {"frame_diff": {}},
    }
    project, place = Project(tmp_path, params), Place(tmp_path, "frame_diff", {})
    inbox, out, heard = (tmp_path / name for name in ("inbox", "out", "heard"))
    heard.mkdir()
    (inbox / "cam").mkdir(parents=True)
    for number in range(2):
        shutil.copy(place.video, inbox / "cam" / f"{number}.avi")
    (inbox / "broken.mp4").write_bytes(b"no video")
    for path in (*inbox.glob("*/*.avi"), inbox / "broken.mp4"):
        os.utime(path, (time.time() - 60,) * 2)

    chance = random.SystemRandom()
    words = ("--inbox", str(inbox), "--out", str(out), *SYSTEM, "--alert", ALERT)
    process = project.start(sys.executable, "-m", "tasks.detect", *words)
    begun = chance.choice((out / ".cam-0.partial", out / "cam-0"))
    wait_until(lambda: begun.exists() or process.poll() is not None)
    time.sleep(chance.uniform(0, 0.8))
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    said, _ = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), said

    project.detect(*words)
    project.detect(place.video, *SYSTEM, "--out", "whole")
    names = [f"cam-{number}" for number in range(2)]
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) == names
    assert sorted(path.name for path in (inbox / DONE).iterdir()) == [f"{name}.avi" for name in names]
    assert sorted(path.name for path in (inbox / FAILED).iterdir()) == ["broken.mp4", "broken.mp4.reason.txt"]
    assert (inbox / FAILED / "broken.mp4.reason.txt").read_text().startswith("broken.mp4: ")
    for name in names:
        assert json.loads((out / name / "events.json").read_text())["video"] == f"{name.replace('-', '/')}.avi"
        assert events_of(out / name) == events_of(tmp_path / "whole/gate")
    # an alert that was being sent at the kill may arrive twice
    assert {json.loads(path.read_text())["video"] for path in heard.glob("*.json")} == {"cam/0.avi", "cam/1.avi"}
