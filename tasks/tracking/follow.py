"""The uploader process: sends the logs of running stages to MLflow, and the rest when a stage has ended or was killed."""

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
RETRY_SECONDS = 30.0  # maximum pause between retries while the server does not answer
IDLE_SECONDS = 20.0  # the process ends after this time without a stage
QUICK_SECONDS = 5.0  # at the end of a stage, retry once if sending failed within this time


class Follower:
    """Sends the spool of one stage. The stage closes its end of the connection ``stage`` when it ends or is killed."""

    def __init__(self, spool: EventLog, stage: socket.socket):
        self.spool = spool
        self.stage: socket.socket | None = stage
        self.sender = Sender(spool)
        self.failure: Exception | None = None
        self._system = SystemMetrics()
        self._samples = 0
        self._left = {spool.key}  # spools to skip: this one, and those that could not be sent

    def run(self) -> str:
        """Send until the stage has ended and everything is sent. Return a message for the user; empty if all is well."""
        attempt = sampled = time.monotonic()
        pause = SEND_SECONDS
        while not self.stage_is_over():
            if time.monotonic() - sampled >= SAMPLE_SECONDS:
                sampled = time.monotonic()
                self.sample()
            if time.monotonic() >= attempt:
                if self.try_to_send(finish=False):  # finish only after the last system metrics
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
            time.sleep(1)  # for a busy database or a restarting server; after a slow failure a retry would be slow, too
            self.try_to_send(finish=True)
        return self.last_words()

    def wait(self, seconds: float) -> None:
        """Sleep, but wake up when the stage ends."""
        if self.stage is None:
            time.sleep(max(0.0, min(seconds, 0.1)))
        elif select.select([self.stage], [], [], max(0.0, seconds))[0] and not self.stage.recv(1):
            self.stage = None  # closed; the process of a killed stage may exist for a moment longer

    def stage_is_over(self) -> bool:
        return self.spool.ended() or not self.spool.writer_lives()

    def sample(self) -> None:
        event = {"metrics": self._system.sample(), "step": self._samples, "time": now_ms()}
        self._samples += 1
        with (self.spool.folder / "system.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(event) + "\n")

    def try_to_send(self, finish: bool) -> bool:
        """Send the pending events. Return False if MLflow did not accept them."""
        try:
            self.sender.send(finish)
        except Exception as error:
            self.failure = error
            print(f"{type(error).__name__}: {without_secrets(str(error))}", file=sys.stderr, flush=True)
            return False
        self.failure = None
        return True

    def send_leftover(self) -> None:
        """Send one spool left by a killed stage or a server that was down; spools with the same run name come first."""
        name = self.spool.about["name"]
        for other in sorted(spools(self.spool.folder.parent), key=lambda spool: spool.about["name"] != name):
            if other.key in self._left:
                continue
            try:
                if other.writer_lives():
                    continue
                send_finished(other)
            except Exception as error:  # its server may be down; keep the spool
                print(f"{other.key}: {type(error).__name__}: {why(error)}", file=sys.stderr, flush=True)
                self._left.add(other.key)
            return

    def last_words(self) -> str:
        server, place = without_secrets(self.sender.uri), str(self.spool.folder)
        if self.failure:
            return f"MLflow at {server} did not answer ({why(self.failure)}); {kept(place)}"
        return refusal(self.sender)


def refusal(sender: Sender) -> str:
    """Return a message about events that MLflow rejected for good; empty if there are none."""
    if not sender.refused:
        return ""
    return f"MLflow at {without_secrets(sender.uri)} refused a part of {sender.spool.key}: {sender.refused[0]}"


def send_finished(spool: EventLog) -> Sender | None:
    """Send the spool of an ended stage. Return None if another process is sending it or has sent it."""
    with spool.claim() as mine:
        if not mine:
            return None
        if not spool.ended():
            spool.end_as_killed()
        sender = Sender(spool)
        sender.send()
        return sender


def serve(listener: socket.socket, path: Path) -> int:
    """Main loop of the uploader process: send for every stage that connects to ``listener``, each in its own thread.

    Returns when no stage has been connected for ``IDLE_SECONDS``, and removes the socket ``path``.
    """
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
    """Close and remove the socket, unless a stage has just connected.

    The lock prevents a race: stages connect, or start an uploader, only while they hold it. If the folder was cleaned, the
    path may hold the socket of a newer uploader, which is kept.
    """
    with FileLock(LOCK):
        if select.select([listener], [], [], 0)[0]:
            return False
        if path.exists() and path.stat().st_ino == inode:
            path.unlink()
        listener.close()
        return True


def _send_for(connection: socket.socket, fault: Exception | None) -> None:
    """Send the spool of one stage, whose folder is the first line received, and answer with a message."""
    said = ""
    with connection:
        folder = _line(connection)
        if not folder:
            return  # the stage ended before it logged anything
        try:
            if fault:
                raise fault
            spool = EventLog(Path(folder))
            with spool.claim() as mine:
                if mine:
                    said = Follower(spool, connection).run()
        except Exception as error:  # an error here must not end the process, which other stages use
            traceback.print_exc()
            place = f"; {kept(folder)}" if Path(folder).exists() else ""
            said = f"sending to MLflow broke off ({type(error).__name__}: {why(error)}){place}"
        with suppress(ConnectionError):  # the stage was killed or did not wait
            connection.sendall(OK + said.encode())


def _import_mlflow() -> Exception | None:
    """Import MLflow while the first stage imports its own libraries. Return the error, if there was one."""
    database = wanted_uri().split(":")[0].split("+")[0] in DATABASES
    try:
        for module in ("mlflow.pyfunc", *(["mlflow.store.tracking.sqlalchemy_store"] if database else [])):
            importlib.import_module(module)
    except Exception as error:
        return error
    return None


def _line(connection: socket.socket) -> str:
    """Read the first line, and no byte after it; return "" if the connection is closed before."""
    text = b""
    while not text.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            return ""
        text += byte
    return text.decode().rstrip("\n")
