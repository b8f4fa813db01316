"""New footage, scored with the champion of its data set. ``python -m flows.footage`` is the same for a person at a shell."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from prefect import flow, runtime
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State, StateType
from prefect.states import Completed, Failed

from flows.command import run_command
from flows.killed import close
from flows.kinds import NICE
from flows.own_server import patient
from vadcore.utils.files import write_json
from vadcore.utils.provenance import cores

INBOX, OUT = "inbox", "detections"
HOURS = 12.0  # a video is never so long in the making; a decoder that hangs would keep every later run waiting
COLUMNS = ("start_seconds", "end_seconds", "peak_score", "p_value", "box")


@flow(name="footage", persist_result=False)
def footage(
    inbox: str = INBOX, dataset: str | None = None, out: str = OUT, fps: float | None = None, hours: float = HOURS
) -> State:
    """Score what has come into the folder ``inbox``, once, with the champion of ``dataset``.

    The data set has to be named where params.yaml lists several. fps: the videos' frame rate, where their headers are
    wrong. hours: after which the run is stopped; the next one goes on. Videos that cannot be read are set aside with the
    reason; the run says how many. While another run is at work on the inbox, this one leaves it to that. It takes no slot
    of the limit ``gpu``: a camera shall not wait for a training of hours. Beside one it takes what that leaves: it has the
    lowest priority and a quarter of the cores.
    """
    folder, results = Path(inbox), Path(out)
    if hours <= 0:
        return Failed(message=f"hours: {hours:g}: a time limit is above 0")
    if inbox == INBOX:  # where videos come into when nobody says otherwise; a fresh checkout has none yet
        folder.mkdir(exist_ok=True)
    if not folder.is_dir():
        return Failed(message=f"{inbox}: no such folder; make it, or name the one that videos come into")
    before = _results(results)
    with _alone(folder) as alone:
        if not alone:
            return Completed(name="Skipped", message=f"another run is at work on {inbox}")
        chosen = ["--champion", *([dataset] if dataset else []), *([] if fps is None else ["--fps", str(fps)])]
        done = run_command(
            *("tasks.detect", *chosen, "--inbox", inbox, "--out", out),
            nice=NICE,
            threads=max(1, cores() // 4),
            seconds=3600 * hours,
        )
    fresh = sorted(_results(results) - before)
    rows = [row for key in fresh for row in _events(results / key)]
    if rows:
        create_table_artifact(rows, key="events", description=f"Events in {len(fresh)} new videos; results in {out}/")
    aside = sum(line.startswith("set aside: ") for line in done.said)
    text = f"{len(fresh)} videos scored, {len(rows)} events" + (f", {aside} set aside" if aside else "")
    if done.overdue:
        said = f"stopped after {hours:g} hours (the parameter hours); the next run goes on"
        return State(type=StateType.FAILED, name="TimedOut", message=f"{text}; {said}")
    if done.code:
        return Failed(message=f"{text}; {done.reason}")
    if fresh or aside:
        return Completed(message=text)
    return Completed(name="NothingNew", message=f"nothing new in {inbox}")


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no other run is at work on the inbox. One that was killed there is shown as crashed, not as running."""
    holder, lock = folder / ".footage.json", FileLock(folder / ".footage.lock", timeout=0)
    try:
        held = lock.acquire()
    except Timeout:
        yield False
        return
    with held:
        if holder.exists():
            close(json.loads(holder.read_text(encoding="utf-8"))["flow_run"])
        write_json(holder, {"flow_run": str(runtime.flow_run.id)})
        yield True
        holder.unlink()


def _results(out: Path) -> set[str]:
    """The videos that have results. Those in the making lie in a folder whose name begins with a dot."""
    return {path.parent.name for path in out.glob("[!.]*/events.json")}


def _events(folder: Path) -> list[dict]:
    about = json.loads((folder / "events.json").read_text(encoding="utf-8"))
    return [
        {"video": about["video"], **{key: event.get(key) for key in COLUMNS}, "results": str(folder)}
        for event in about["events"]
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.footage", description=__doc__.split("\n")[0])
    parser.add_argument("--inbox", default=INBOX, help="the folder that videos come into (%(default)s)")
    parser.add_argument("--dataset", help="whose champion scores them; needed where params.yaml lists several")
    parser.add_argument("--out", default=OUT, help="where a folder for each video appears (%(default)s)")
    parser.add_argument("--fps", type=float, help="frame rate of these videos, where their headers are wrong")
    parser.add_argument("--hours", type=float, default=HOURS, help="after which it is stopped (%(default)g)")
    arguments = vars(parser.parse_args())
    with patient():
        state = footage(**arguments, return_state=True)
    print(f"{state.name}: {state.message}")
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    sys.exit(main())
