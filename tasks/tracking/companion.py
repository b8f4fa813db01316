"""The process beside a stage that sends its spool to MLflow, as the stage sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PATIENCE_SECONDS = 120  # how long the end of a stage waits for the rest to be sent; then it goes on without the stage
ROOT = Path(__file__).resolve().parents[2]  # where the package `tasks` is found


class Companion:
    """A process in a session of its own, so that neither Ctrl-C nor the stage's violent end takes it along.

    It begins to import MLflow at once, and waits to be told which spool to :meth:`follow`; leaving the ``with`` block
    lets it go where it never was. Where no process can be started the stage goes on: it has more important work.
    """

    def __init__(self):
        self._folder: Path | None = None
        self._process: subprocess.Popen | None = None
        self._fault = ""
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tasks.tracking", "follow"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # until it knows the spool: then sender.log there
                text=True,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": path},
            )
        except OSError as error:
            self._fault = f"no process to send with: {error}"

    def __enter__(self) -> Companion:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is None and self._process is not None:
            self._process.stdin.close()

    def follow(self, folder: Path) -> None:
        """Send the spool in ``folder`` while the stage runs."""
        self._folder = folder
        if self._process is None:
            return
        try:
            self._process.stdin.write(f"{folder}\n")
            self._process.stdin.flush()
        except OSError as error:
            self._fault, self._process = f"the process to send with has ended: {error}", None

    def finish(self) -> None:
        """Let it send the rest, and print what the person has to know: nothing, when all was sent."""
        folder, place = self._folder, os.path.relpath(self._folder)
        if self._process is None:
            print(f"{self._fault}; {kept(place)}", flush=True)
            return
        try:
            said, _ = self._process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"MLflow is slow; {place} is still being sent in the background", flush=True)
            return
        if said.strip():
            print(said.strip().replace(str(folder), place), flush=True)
        elif self._process.returncode:
            if not folder.exists():
                return  # all was sent and the spool removed; what went wrong after that concerns nobody
            log = folder / "sender.log"
            lines = log.read_text(encoding="utf-8").strip().splitlines() if log.exists() else []
            reason = lines[-1] if lines else f"exit code {self._process.returncode}"
            print(f"sending to MLflow broke off ({reason}); {kept(place)}", flush=True)


def kept(place: str) -> str:
    """What to tell the person about a spool that stays."""
    return f"kept in {place}; send later with: python -m tasks.tracking send"
