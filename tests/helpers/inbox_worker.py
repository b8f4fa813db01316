"""Scores an inbox in a process of its own, for tests that kill it: python -m tests.helpers.inbox_worker INBOX RESULTS."""

import sys
import time
from pathlib import Path

from vadcore.detect.alerts import lay_ready, queue
from vadcore.detect.inbox import Claim, Inbox, work_off
from vadcore.detect.making import EVENTS, making
from vadcore.detect.reading import UnreadableVideo
from vadcore.files import sha256_files, write_json


def score(claim: Claim, wait: float = 0.0) -> None:
    """Stands for the scoring of a video: makes a folder of results, and takes a while."""
    text = claim.path.read_text()
    time.sleep(wait)
    if "broken" in text:
        raise UnreadableVideo(f"{claim.name}: not a readable video; replace it")
    results = claim.inbox.results / claim.key
    with making(results, claim.path) as beside:
        (beside / "video").write_text(text)
        write_json(beside / EVENTS, {"sha256": sha256_files([claim.path])})
        time.sleep(wait)
        about = {
            "video": claim.name,
            "detector": {},
            "threshold": 1.0,
            "false_alarms_per_hour": 1.0,
            "events": [{"number": 1}],
        }
        lay_ready(beside, claim.key, about, results)


def finish(claim: Claim) -> None:
    queue(claim.inbox.results / claim.key)


def sweep(folder: Path, out: Path, wait: float = 0.0) -> list[tuple[str, str | None]]:
    return list(work_off(Inbox(folder, out), lambda claim: score(claim, wait), finish))


if __name__ == "__main__":
    print("ready", flush=True)
    sweep(Path(sys.argv[1]), Path(sys.argv[2]), 0.02)
