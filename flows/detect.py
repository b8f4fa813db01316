"""Score new footage with the champion of its data set; from a shell: ``python -m tasks.detect --inbox``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from prefect import flow, runtime
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.process import run_command
from flows.recovery import mark_crashed
from flows.stage import NICE, failed
from vadcore.utils.files import write_json
from vadcore.utils.provenance import cores

INBOX, OUT = "inbox", "detections"
HOURS = 12.0  # more than any video needs; without a timeout a hanging decoder would block all later runs
COLUMNS = ("start_seconds", "end_seconds", "peak_score", "p_value", "box")


@flow(name="footage", persist_result=False)
def footage(
    inbox: str = INBOX,
    dataset: str | None = None,
    out: str = OUT,
    fps: float | None = None,
    target_far_per_hour: float | None = None,
    hours: float = HOURS,
) -> State:
    """Score the new videos in the folder ``inbox`` with the champion of ``dataset``, each video once.

    Unreadable videos are set aside with the reason, and the run reports their number. If another run is already working on
    the inbox, this run is skipped. Scoring takes no slot of the concurrency limit ``gpu``, so that a camera does not wait
    hours for a training. It runs with the lowest priority on a quarter of the cores.

    Args:
        inbox: folder that new videos arrive in.
        dataset: data set whose champion is used; required if params.yaml lists several.
        out: folder for the results, one subfolder per video.
        fps: frame rate of the videos, if their headers are wrong.
        target_far_per_hour: false alarms per hour, if other than the rate that the threshold was calibrated for.
        hours: timeout in hours; the next run continues.
    """
    folder, results = Path(inbox), Path(out)
    if hours <= 0:
        return Failed(message=f"hours: {hours:g}: must be above 0")
    if inbox == INBOX:  # the default inbox is missing in a fresh checkout
        folder.mkdir(exist_ok=True)
    if not folder.is_dir():
        return Failed(message=f"{inbox}: no such folder; create it or name another")
    before = _results(results)
    with _alone(folder) as alone:
        if not alone:
            return Completed(name="Skipped", message=f"another run is scoring {inbox}")
        options = {"--fps": fps, "--target-far-per-hour": target_far_per_hour}
        given = [word for option, value in options.items() if value is not None for word in (option, str(value))]
        chosen = ["--champion", *([dataset] if dataset else []), *given]
        words = ["tasks.detect", *chosen, "--inbox", inbox, "--out", out]
        done = run_command(*words, nice=NICE, threads=max(1, cores() // 4), seconds=3600 * hours)
    fresh = sorted(_results(results) - before)
    rows = [row for key in fresh for row in _events(results / key)]
    if rows:
        create_table_artifact(rows, key="events", description=f"Events in {len(fresh)} new videos; results in {out}/")
    aside, other = (sum(line.startswith(said) for line in done.lines) for said in ("set aside: ", "not scored: "))
    text = f"{len(fresh)} videos scored, {len(rows)} events" + (f", {aside} set aside" if aside else "")
    text += f", {other} new files that are no videos" if other else ""
    if done.overdue:
        said = f"stopped after {hours:g} hours (the parameter hours); the next run continues"
        return failed("TimedOut", f"{text}; {said}")
    if done.code:
        return Failed(message=f"{text}; {done.reason}")
    if fresh or aside or other:
        return Completed(message=text)
    return Completed(name="NothingNew", message=f"nothing new in {inbox}")


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Lock the inbox; yield False if another run holds it. Mark a run that was killed while holding it as crashed."""
    holder = folder / ".footage.json"
    try:
        with FileLock(folder / ".footage.lock", timeout=0):
            if holder.exists():
                mark_crashed(json.loads(holder.read_text(encoding="utf-8")))
            write_json(holder, {"flow_run": str(runtime.flow_run.id)})
            yield True
            holder.unlink()
    except Timeout:
        yield False


def _results(out: Path) -> set[str]:
    """Return the videos that have results. Unfinished results are in a folder whose name begins with a dot."""
    return {path.parent.name for path in out.glob("[!.]*/events.json")}


def _events(folder: Path) -> list[dict]:
    about = json.loads((folder / "events.json").read_text(encoding="utf-8"))
    rows = [{key: event.get(key) for key in COLUMNS} for event in about["events"]]
    return [{"video": about["video"], **row, "results": str(folder)} for row in rows]
