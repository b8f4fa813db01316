"""A process that works off an inbox, for tests that kill it: python inbox_worker.py INBOX RESULTS. It scores no pictures."""

import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vadcore.detect.alerts import lay_ready, queue
from vadcore.detect.inbox import Claim, Inbox, work_off
from vadcore.detect.reading import UnreadableVideo


def score(claim: Claim, wait: float = 0.0) -> None:
    """Stands for the scoring of a video: makes a folder of results beside its place, takes a while, renames it."""
    text = claim.path.read_text()
    time.sleep(wait)
    if "broken" in text:
        raise UnreadableVideo(f"{claim.name}: not a readable video; replace it")
    results = claim.inbox.results
    beside = results / f".{claim.key}.partial"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    (beside / "video").write_text(text)
    time.sleep(wait)
    about = {
        "video": claim.name,
        "detector": {},
        "threshold": 1.0,
        "false_alarms_per_hour": 1.0,
        "events": [{"number": 1}],
    }
    lay_ready(beside, claim.key, about, results / claim.key)
    beside.rename(results / claim.key)


def finish(claim: Claim) -> None:
    queue(claim.inbox.results / claim.key)


def sweep(folder: Path, out: Path, wait: float = 0.0) -> list[tuple[str, str | None]]:
    return list(work_off(Inbox(folder, out), lambda claim: score(claim, wait), finish))


if __name__ == "__main__":
    print("ready", flush=True)
    sweep(Path(sys.argv[1]), Path(sys.argv[2]), 0.02)
