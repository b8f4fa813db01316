"""Inboxes for tests, and a process that works through one: python -m tests.helpers.inbox_worker INBOX RESULTS."""

import json
import os
import sys
import time
from pathlib import Path

from vadcore.detection.alerts import QUEUE, READY, queue, write_ready
from vadcore.detection.inbox import DONE, FAILED, WORK, Claim, Inbox, work_off
from vadcore.detection.output import EVENTS, making
from vadcore.detection.source import UnreadableVideo
from vadcore.utils.files import sha256_files, write_json

PAUSE = 0.01  # seconds; two pauses per video, in which a worker can be killed


def fill(folder: Path, *names: str) -> Path:
    """An inbox of files that are one hour old. Each file contains its name."""
    folder.mkdir(exist_ok=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        os.utime(path, (time.time() - 3600,) * 2)
    return folder


def score(claim: Claim, pause: float = 0.0) -> None:
    """Fake scoring: makes a result folder with an alert."""
    text = claim.path.read_text()
    time.sleep(pause)
    if "broken" in text:
        raise UnreadableVideo(f"{claim.name}: not a readable video; replace it")
    results = claim.inbox.results / claim.key
    with making(results, claim.path) as beside:
        (beside / "video").write_text(text)
        write_json(beside / EVENTS, {"sha256": sha256_files([claim.path])})
        time.sleep(pause)
        about = {
            "video": claim.name,
            "detector": {},
            "threshold": 1.0,
            "target_far_per_hour": 1.0,
            "events": [{"number": 1}],
        }
        write_ready(beside, claim.key, about, results)


def finish(claim: Claim) -> None:
    queue(claim.inbox.results / claim.key)


def work_off_inbox(folder: Path, out: Path, pause: float = 0.0) -> list[tuple[str, str | None]]:
    return list(work_off(Inbox(folder, out), lambda claim: score(claim, pause), finish))


def assert_each_scored_once(folder: Path, out: Path, names: list[str]) -> None:
    """Each file is in done/ and has one result folder and one alert. Broken files are in failed/ with the reason."""
    good, bad = ([name for name in names if ("broken" in name) == is_bad] for is_bad in (False, True))
    results = {path.parent.name: path.read_text() for path in out.glob("*/video")}
    assert sorted(results.values()) == sorted(good)
    done = {path.stem: path.read_text() for path in (folder / DONE).iterdir()}
    assert done == results
    aside = sorted(path for path in (folder / FAILED).iterdir() if path.suffix != ".txt")
    assert sorted(path.read_text() for path in aside) == sorted(bad)
    for path in aside:
        assert "not a readable video" in path.with_name(f"{path.name}.reason.txt").read_text()
    assert len(list((folder / FAILED).iterdir())) == 2 * len(bad)
    alerts = [json.loads(path.read_text())["alert"] for path in (out / QUEUE / "pending").glob("*/*.json")]
    assert sorted(alert["video"] for alert in alerts) == sorted(good)
    assert not list(out.glob(f"*/{READY}"))
    assert Inbox(folder, out).coming() == []
    assert sorted(path.name for path in (folder / WORK).iterdir()) == ["lock"]
    assert not list(out.glob(".*.partial"))


if __name__ == "__main__":
    print("ready", flush=True)
    work_off_inbox(Path(sys.argv[1]), Path(sys.argv[2]), PAUSE)
