"""The process beside a stage: sends what the stage logs while it runs, and the rest when it has ended or was killed."""

from __future__ import annotations

import importlib
import json
import os
import select
import sys
import time
from pathlib import Path

from tasks.tracking.companion import kept
from tasks.tracking.outbox import Spool, now_ms, spools
from tasks.tracking.send import Sender
from tasks.tracking.server import DATABASES, wanted_uri, why, without_secrets
from tasks.tracking.system import SystemMetrics

SEND_SECONDS = 2.0
SAMPLE_SECONDS = 5.0
RETRY_SECONDS = 30.0  # the longest pause between attempts at a server that does not answer
QUICK_SECONDS = 5.0  # a refusal so quick is worth a second attempt when the stage ends


class Follower:
    """Follows one stage, whose end (or death) closes the pipe ``ends``."""

    def __init__(self, spool: Spool, ends: int):
        self.spool = spool
        self.ends: int | None = ends
        self.sender = Sender(spool)
        self.failure: Exception | None = None
        self._system = SystemMetrics()
        self._samples = 0
        self._left = {spool.key}  # what is not a leftover, or did not go

    def run(self) -> str:
        """Send until the stage is over and all is sent. Returns what to tell the person: nothing when all is well."""
        attempt = sampled = time.monotonic()
        pause = SEND_SECONDS
        while not self.stage_is_over():
            if time.monotonic() - sampled >= SAMPLE_SECONDS:
                sampled = time.monotonic()
                self.sample()
            if time.monotonic() >= attempt:
                if self.try_to_send(finish=False):  # not before the last system metrics are in
                    pause = SEND_SECONDS
                    self.send_leftover()
                else:
                    pause = min(2 * pause, RETRY_SECONDS)
                attempt = time.monotonic() + pause
            self.wait(min(attempt, sampled + SAMPLE_SECONDS) - time.monotonic())
        if not self.spool.ended():
            self.spool.end_as_killed()
        self.sample()
        asked = time.monotonic()
        if not self.try_to_send(finish=True) and time.monotonic() - asked < QUICK_SECONDS:
            time.sleep(1)  # a busy database, a server that restarts; who has kept us waiting will do so again
            self.try_to_send(finish=True)
        return self.last_words()

    def wait(self, seconds: float) -> None:
        """Sleep, but wake up when the stage ends."""
        if self.ends is None:
            time.sleep(max(0.0, min(seconds, 0.5)))
        elif select.select([self.ends], [], [], max(0.0, seconds))[0] and not os.read(self.ends, 1):
            self.ends = None  # closed; a stage that was killed may still take a moment to be gone

    def stage_is_over(self) -> bool:
        return self.spool.ended() or not self.spool.writer_lives()

    def sample(self) -> None:
        event = {"metrics": self._system.sample(), "step": self._samples, "time": now_ms()}
        self._samples += 1
        with (self.spool.folder / "system.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(event) + "\n")

    def try_to_send(self, finish: bool) -> bool:
        """Whether MLflow took what there was."""
        try:
            self.sender.send(finish)
        except Exception as error:
            self.failure = error
            print(f"{type(error).__name__}: {without_secrets(str(error))}", file=sys.stderr, flush=True)
            return False
        self.failure = None
        return True

    def send_leftover(self) -> None:
        """Send one spool that a killed stage, or a server that was down, has left behind; this stage's own kind first."""
        name = self.spool.about["name"]
        for other in sorted(spools(self.spool.folder.parent), key=lambda spool: spool.about["name"] != name):
            if other.key in self._left:
                continue
            try:
                if other.writer_lives():
                    continue
                send_finished(other)
            except Exception as error:  # its own server may be down; it stays where it is
                print(f"{other.key}: {type(error).__name__}: {why(error)}", file=sys.stderr, flush=True)
                self._left.add(other.key)
            return

    def last_words(self) -> str:
        server, place = without_secrets(self.sender.uri), str(self.spool.folder)
        if self.failure:
            return f"MLflow at {server} did not answer ({why(self.failure)}); {kept(place)}"
        return refusal(self.sender)


def refusal(sender: Sender) -> str:
    """What to tell the person about what MLflow would never take; nothing when it took all."""
    if not sender.refused:
        return ""
    return f"MLflow at {without_secrets(sender.uri)} refused a part of {sender.spool.key}: {sender.refused[0]}"


def send_finished(spool: Spool) -> Sender | None:
    """Send the spool of a stage that no longer runs; None where another process is sending it or has sent it."""
    with spool.claim() as mine:
        if not mine:
            return None
        if not spool.ended():
            spool.end_as_killed()
        sender = Sender(spool)
        sender.send()
        return sender


def follow() -> int:
    """The whole life of the process. The stage writes its spool's folder to standard input, and closes it at its end.

    What the process says to the stage goes to standard output, everything else to ``sender.log`` in that folder.
    """
    to_stage = sys.stdout
    sys.stdout = sys.stderr
    fault = _import_mlflow()
    folder = _line(sys.stdin.fileno())
    if not folder:
        return 0  # the stage has ended before it had anything to log
    with (Path(folder) / "sender.log").open("w") as log:
        os.dup2(log.fileno(), sys.stderr.fileno())
    if fault:
        raise fault
    spool = Spool(Path(folder))
    with spool.claim() as mine:
        if mine:
            said = Follower(spool, sys.stdin.fileno()).run()
            if said:
                print(said, file=to_stage, flush=True)
    return 0


def _import_mlflow() -> Exception | None:
    """Import what sending needs, which takes seconds, while the stage imports what it needs. What went wrong, if it did:
    there is no place yet to say it."""
    database = wanted_uri().split(":")[0].split("+")[0] in DATABASES
    try:
        for module in ("mlflow.pyfunc", *(["mlflow.store.tracking.sqlalchemy_store"] if database else [])):
            importlib.import_module(module)
    except Exception as error:
        return error
    return None


def _line(pipe: int) -> str:
    """The first line that comes; empty where the pipe is closed before. No byte after it is taken."""
    text = b""
    while not text.endswith(b"\n"):
        byte = os.read(pipe, 1)
        if not byte:
            return ""
        text += byte
    return text.decode().rstrip("\n")
