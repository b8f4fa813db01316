"""The uploader process: sends what stages log to MLflow while they run, and the rest when they have ended or were killed."""

from __future__ import annotations

import importlib
import json
import select
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from tasks.tracking.outbox import EventLog, now_ms, spools
from tasks.tracking.send import Sender
from tasks.tracking.server import DATABASES, wanted_uri, why, without_secrets
from tasks.tracking.system import SystemMetrics
from tasks.tracking.uploader import LOCK, OK, kept

SEND_SECONDS = 2.0
SAMPLE_SECONDS = 5.0
RETRY_SECONDS = 30.0  # the longest pause between attempts at a server that does not answer
IDLE_SECONDS = 20.0  # without a stage, after which the process ends
QUICK_SECONDS = 5.0  # a refusal so quick is worth a second attempt when the stage ends


class Follower:
    """Follows one stage, whose end (or death) closes its half of the connection ``stage``."""

    def __init__(self, spool: EventLog, stage: socket.socket):
        self.spool = spool
        self.stage: socket.socket | None = stage
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
        if self.stage is None:
            time.sleep(max(0.0, min(seconds, 0.1)))
        elif select.select([self.stage], [], [], max(0.0, seconds))[0] and not self.stage.recv(1):
            self.stage = None  # closed; a stage that was killed may still take a moment to be gone

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


def send_finished(spool: EventLog) -> Sender | None:
    """Send the spool of a stage that no longer runs; None where another process is sending it or has sent it."""
    with spool.claim() as mine:
        if not mine:
            return None
        if not spool.ended():
            spool.end_as_killed()
        sender = Sender(spool)
        sender.send()
        return sender


def serve(listener: socket.socket, path: Path) -> int:
    """The life of the uploader process: send for every stage that connects to ``listener``, each in a thread of its own,
    until none has been connected for ``IDLE_SECONDS``. ``path``: of the socket, removed at the end."""
    fault = _import_mlflow()
    listener.settimeout(1.0)
    inode = path.stat().st_ino
    threads: list[threading.Thread] = []
    last = time.monotonic()
    while True:
        threads = [thread for thread in threads if thread.is_alive()]
        if threads:
            last = time.monotonic()
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            if time.monotonic() - last > IDLE_SECONDS and _closed(listener, path, inode):
                return 0
            continue
        threads.append(threading.Thread(target=_send_for, args=(connection, fault)))
        threads[-1].start()


def _closed(listener: socket.socket, path: Path, inode: int) -> bool:
    """Remove the socket, unless a stage has just connected: a stage connects, or starts a process, under this lock."""
    with FileLock(LOCK):
        if select.select([listener], [], [], 0)[0]:
            return False
        if path.exists() and path.stat().st_ino == inode:  # not that of a process started since the folder was cleaned
            path.unlink()
        listener.close()
        return True


def _send_for(connection: socket.socket, fault: Exception | None) -> None:
    """Send one stage's spool, whose folder is the first line that comes, and answer."""
    said = ""
    with connection:
        folder = _line(connection)
        if not folder:
            return  # the stage ended before it had anything to log
        try:
            if fault:
                raise fault
            spool = EventLog(Path(folder))
            with spool.claim() as mine:
                if mine:
                    said = Follower(spool, connection).run()
        except Exception as error:  # a defect here must not end the process, which other stages use
            traceback.print_exc()
            place = f"; {kept(folder)}" if Path(folder).exists() else ""
            said = f"sending to MLflow broke off ({type(error).__name__}: {why(error)}){place}"
        with suppress(ConnectionError):  # the stage was killed, or did not wait
            connection.sendall(OK + said.encode())


def _import_mlflow() -> Exception | None:
    """Import what sending needs while the first stage imports what it needs; the error, if there was one."""
    database = wanted_uri().split(":")[0].split("+")[0] in DATABASES
    try:
        for module in ("mlflow.pyfunc", *(["mlflow.store.tracking.sqlalchemy_store"] if database else [])):
            importlib.import_module(module)
    except Exception as error:
        return error
    return None


def _line(connection: socket.socket) -> str:
    """The first line that comes; empty where the connection is closed before. No byte after it is taken."""
    text = b""
    while not text.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            return ""
        text += byte
    return text.decode().rstrip("\n")
