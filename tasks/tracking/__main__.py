"""``python -m tasks.tracking``: create the MLflow database, send the outbox, find the run that made a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tasks.tracking.client import answering, experiment_id, quieten, reason_of, wanted_uri, without_secrets
from tasks.tracking.lineage import lineage
from tasks.tracking.outbox import waiting_runs
from tasks.tracking.sender import Sender
from tasks.tracking.uploader import follow
from vadcore.utils.errors import VadError


def init(experiment: str) -> int:
    """Create the MLflow database and the experiment if they are missing. Safe to repeat and to run concurrently."""
    uri = wanted_uri()
    with answering() as client:
        experiment_id(client, uri, experiment)
    print(f"MLflow at {without_secrets(uri)} is ready, experiment {experiment}")
    return 0


def send() -> int:
    """Send every run whose stage has ended. Return 1 if one could not be sent, else 0."""
    failed = 0
    runs = waiting_runs()
    for run in runs:
        if run.writer_lives():
            print(f"{run.key}: its stage is still running and sends by itself")
            continue
        sender = Sender(run)
        try:
            sender.send()
        except Exception as error:
            failed = 1
            print(f"{run.key}: not sent ({type(error).__name__}: {reason_of(error)})", file=sys.stderr)
            continue
        print(f"{run.key}: sent to {without_secrets(sender.uri)}")
        for refused in run.state.get("refused", []):
            print(f"MLflow refused a part of it: {refused}")
        run.remove()
    if not runs:
        print("nothing to send")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.tracking", description=__doc__.split(": ", 1)[1])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("init", help="create the database and the experiment")
    command.add_argument("--experiment", default="vad")
    commands.add_parser("send", help="send runs that are not in MLflow yet, after an outage or a kill")
    command = commands.add_parser("lineage", help="print the runs that made a file or folder")
    command.add_argument("path", type=Path)
    command = commands.add_parser("follow", help="used by the stages: send what running stages log")
    command.add_argument("settings", help="digest of the stages' settings")
    command.add_argument("lock", type=int, help="descriptor of the locked file")
    arguments = parser.parse_args()
    quieten()
    try:
        if arguments.command == "init":
            return init(arguments.experiment)
        if arguments.command == "send":
            return send()
        if arguments.command == "follow":
            follow(arguments.settings, arguments.lock)
            return 0
        lines = lineage(arguments.path)
    except VadError as error:
        sys.exit(f"error: {error}")
    print("\n".join(lines) or f"{arguments.path}: no run is known to have made it")
    return 0 if lines else 1


if __name__ == "__main__":
    sys.exit(main())
