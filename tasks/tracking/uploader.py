"""The stage's side of the upload to MLflow: a connection to the uploader process of the project's folder.

The uploader (:mod:`tasks.tracking.follow`) imports MLflow, which takes seconds, once for many stages: the first stage
starts it, and it ends ``IDLE_SECONDS`` after the last one. Stage and uploader talk over a Unix socket in ``tracking/``:
the stage sends the folder of its spool, and at its end closes its half of the connection; the uploader answers ``ok``
and the text to print, once all is sent or MLflow did not answer.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from tasks.tracking.outbox import TRACKING
from tasks.tracking.server import wanted_uri
from vadcore.utils.files import digest_of

PATIENCE_SECONDS = 120  # how long the end of a stage waits for the rest to be sent; then it goes on without
ROOT = Path(__file__).resolve().parents[2]  # where the package `tasks` is found
LOG = TRACKING / "uploader.log"
LOCK = TRACKING / "uploader.lock"  # held while a socket is made or removed
OK = b"ok\n"  # begins every complete answer
# settings of MLflow and of its artifact stores: a process that was started with others is not shared
ENVIRONMENT = ("MLFLOW", "AWS", "AZURE", "GOOGLE", "HTTP_", "HTTPS_", "NO_PROXY", "SSL_", "REQUESTS_")


class Uploader:
    """A stage's connection to the uploader, which is started where none is running.

    The uploader runs in a session of its own: neither Ctrl-C nor a kill of the stage ends it. It starts to import MLflow
    at once; :meth:`follow` names the spool to send. Leaving the ``with`` block closes a connection that was not used.
    Where no process can be started the stage runs on, and :meth:`finish` says so.
    """

    def __init__(self):
        self._folder: Path | None = None
        self._connection: socket.socket | None = None
        self._fault = ""
        try:
            self._connection = _connect()
        except OSError as error:
            self._fault = f"no process to send with: {error}"

    def __enter__(self) -> Uploader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is None and self._connection is not None:
            self._connection.close()

    def follow(self, folder: Path) -> None:
        """Send the spool in ``folder`` while the stage runs."""
        self._folder = folder
        if self._connection is None:
            return
        try:
            self._connection.sendall(f"{folder}\n".encode())
        except OSError as error:
            self._fault, self._connection = f"the process to send with has ended: {error}", None

    def finish(self) -> None:
        """Wait until the rest is sent, and print what the person has to know: nothing when all was sent."""
        folder, place = self._folder, os.path.relpath(self._folder)
        if self._connection is None:
            print(f"{self._fault}; {kept(place)}", flush=True)
            return
        try:
            answer = self._answer()
        except TimeoutError:
            print(f"MLflow is slow; {place} is still being sent in the background", flush=True)
            return
        if answer.startswith(OK):
            said = answer.removeprefix(OK).decode().strip()
        elif folder.exists():
            lines = LOG.read_text(encoding="utf-8").strip().splitlines() if LOG.exists() else []
            said = f"sending to MLflow broke off ({lines[-1] if lines else 'the process was ended'}); {kept(place)}"
        else:
            return  # all was sent and the spool removed
        if said:
            print(said.replace(str(folder), place), flush=True)

    def _answer(self) -> bytes:
        answer = b""
        with self._connection as connection:
            connection.settimeout(PATIENCE_SECONDS)
            try:
                connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(4096):
                    answer += part
            except ConnectionError:  # the uploader was killed
                pass
        return answer


def kept(place: str) -> str:
    """What to tell the person about a spool that stays."""
    return f"kept in {place}; send later with: python -m tasks.tracking send"


def _connect() -> socket.socket:
    """A connection to the uploader for this process's settings; starts one where none listens."""
    TRACKING.mkdir(exist_ok=True)
    path = _socket_path()  # relative: an absolute path may be longer than the 107 bytes that a socket's may have
    with FileLock(LOCK):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)  # left by a process that was killed
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()  # from here on stages can connect; the process accepts them once MLflow is imported
            _start(listener, path)
        connection.connect(str(path))
        return connection


def _start(listener: socket.socket, path: Path) -> None:
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with LOG.open("w") as log:
        subprocess.Popen(
            [sys.executable, "-m", "tasks.tracking", "follow", str(listener.fileno()), str(path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": search},
        )


def _socket_path() -> Path:
    """One socket for each combination of tracking URI, database file, settings and code."""
    uri = wanted_uri()
    database = Path(uri.removeprefix("sqlite:///"))
    code = [(file.name, file.stat().st_mtime_ns) for file in sorted(Path(__file__).parent.glob("*.py"))]
    settings = sorted((name, value) for name, value in os.environ.items() if name.upper().startswith(ENVIRONMENT))
    identity = [uri, database.stat().st_ino if database.exists() else 0, code, settings, sys.executable]
    return TRACKING / f"uploader-{digest_of(identity)[:8]}.sock"
