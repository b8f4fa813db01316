"""New footage, scored with the champion of its data set. ``python -m flows.footage`` is the same for a person at a shell."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.orphan import end_with_parent
from flows.process import Process

INBOX, OUT = "inbox", "detections"
COLUMNS = ("start_seconds", "end_seconds", "peak_score", "p_value", "box")


@flow(name="footage", persist_result=False)
def footage(inbox: str = INBOX, dataset: str | None = None, out: str = OUT) -> State:
    """Score what has come into the folder ``inbox``, once, with the champion of ``dataset`` (where params.yaml lists several).

    It takes no slot of the limit ``gpu``: a camera shall not wait for a training of hours. Videos that cannot be read are
    set aside with the reason; the run says how many.
    """
    log = get_run_logger()
    Path(inbox).mkdir(parents=True, exist_ok=True)
    before = _results(Path(out))
    chosen = ["--champion", *([dataset] if dataset else [])]
    command = [sys.executable, "-m", "tasks.detect", *chosen, "--inbox", inbox, "--out", out]
    process = Process(command, Path.cwd(), os.environ, whom="all")
    said = []
    try:
        with end_with_parent(process):
            for line in process.lines():
                log.info(line)
                said.append(line)
    finally:
        process.stop()
        code = process.wait()
    fresh = sorted(_results(Path(out)) - before)
    rows = [row for key in fresh for row in _events(Path(out) / key)]
    if rows:
        create_table_artifact(rows, key="events", description=f"Events in {len(fresh)} new videos; results in {out}/")
    aside = sum(line.startswith("set aside: ") for line in said)
    text = f"{len(fresh)} videos scored, {len(rows)} events" + (f", {aside} set aside" if aside else "")
    if code:
        errors = [line for line in said if line.startswith("error: ")]
        return Failed(message=f"{text}; {errors[-1] if errors else f'exit code {code}'}")
    return (
        Completed(message=text) if fresh or aside else Completed(name="NothingNew", message=f"nothing new in {inbox}")
    )


def _results(out: Path) -> set[str]:
    """The videos that have results."""
    return {path.parent.name for path in out.glob("*/events.json")}


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
    state = footage(**vars(parser.parse_args()), return_state=True)
    print(f"{state.name}: {state.message}")
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    sys.exit(main())
