"""``python -m tasks.tracking``: create the MLflow database, send the outbox, find the run that made a file."""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

from tasks.tracking.follow import refusal, send_finished, serve
from tasks.tracking.lineage import lineage
from tasks.tracking.outbox import TRACKING, spools
from tasks.tracking.server import connect, experiment_id, quieten, wanted_uri, why, without_secrets
from vadcore.utils.errors import VadError


def init(experiment: str) -> int:
    """Create the MLflow database and the experiment if they are missing. Safe to repeat and to run concurrently."""
    uri = wanted_uri()
    try:
        experiment_id(connect(uri), uri, experiment)
    except Exception as error:
        raise VadError(
            f"MLflow at {without_secrets(uri)} did not answer ({why(error)}); start it or unset MLFLOW_TRACKING_URI"
        ) from error
    print(f"MLflow at {without_secrets(uri)} is ready, experiment {experiment}")
    return 0


def send() -> int:
    """Send every spool whose stage has ended."""
    failed = 0
    waiting = spools(TRACKING / "outbox")
    for spool in waiting:
        if spool.writer_lives():
            print(f"{spool.key}: its stage is still running and sends by itself")
            continue
        try:
            sender = send_finished(spool)
        except Exception as error:
            failed += 1
            print(f"{spool.key}: not sent ({type(error).__name__}: {why(error)})", file=sys.stderr)
        else:
            said = refusal(sender) or f"{spool.key}: sent to {without_secrets(sender.uri)}" if sender else ""
            print(said or f"{spool.key}: another process is sending it")
    if not waiting:
        print("nothing to send")
    return min(failed, 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.tracking", description=__doc__.split(": ", 1)[1])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("init", help="create the database and the experiment")
    command.add_argument("--experiment", default="vad")
    commands.add_parser("send", help="send what a server that was down, or a stage that was killed, has left")
    command = commands.add_parser("lineage", help="print the runs that made a file or folder")
    command.add_argument("path", type=Path)
    command = commands.add_parser("follow", help="used by the stages: send what running stages log")
    command.add_argument("descriptor", type=int, help="of a listening Unix socket")
    command.add_argument("socket", type=Path, help="its path")
    arguments = parser.parse_args()
    quieten()
    try:
        if arguments.command == "init":
            return init(arguments.experiment)
        if arguments.command == "send":
            return send()
        if arguments.command == "follow":
            return serve(socket.socket(fileno=arguments.descriptor), arguments.socket)
        lines = lineage(arguments.path)
    except VadError as error:
        sys.exit(f"error: {error}")
    print("\n".join(lines) or f"{arguments.path}: no run is known to have made it")
    return 0 if lines else 1


if __name__ == "__main__":
    sys.exit(main())
