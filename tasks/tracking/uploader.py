"""Client of the uploader process, which sends the spools of a project folder to MLflow.

The uploader (:mod:`tasks.tracking.follow`) imports MLflow, which takes seconds, once for many stages. The first stage
starts it, and it ends ``IDLE_SECONDS`` after the last one. Stage and uploader talk over a Unix socket in ``tracking/``:
the stage sends the folder of its spool and, at its end, closes its half of the connection. The uploader answers ``ok``
and a message to print, once everything is sent or MLflow did not answer.
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

PATIENCE_SECONDS = 120  # how long a stage waits at its end for the upload; then it ends without waiting further
ROOT = Path(__file__).resolve().parents[2]  # folder that contains the package `tasks`
LOG = TRACKING / "uploader.log"
LOCK = TRACKING / "uploader.lock"  # held while a socket is created or removed
OK = b"ok\n"  # prefix of every complete answer
# settings of MLflow and of its artifact stores; an uploader is shared only between equal settings
ENVIRONMENT = ("MLFLOW", "AWS", "AZURE", "GOOGLE", "HTTP_", "HTTPS_", "NO_PROXY", "SSL_", "REQUESTS_")


class Uploader:
    """Connection of a stage to the uploader, which is started if none is running.

    The uploader runs in its own session, so that neither Ctrl-C nor a kill of the stage ends it. It imports MLflow at once;
    :meth:`follow` names the spool to send. Leaving the ``with`` block closes an unused connection. If no uploader can be
    started, the stage runs anyway, and :meth:`finish` prints the reason.
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
        """Wait until everything is sent, and print a message if something went wrong."""
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
            return  # everything was sent and the spool removed
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
    """Return a message about a spool that was not sent."""
    return f"kept in {place}; send later with: python -m tasks.tracking send"


def _connect() -> socket.socket:
    """Return a connection to the uploader for this process's settings; start one if none is listening."""
    TRACKING.mkdir(exist_ok=True)
    path = _socket_path()  # relative, because the path of a socket is limited to 107 bytes
    with FileLock(LOCK):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)  # left by a killed process
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()  # stages can connect now; the uploader accepts them once it has imported MLflow
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
    """Return the socket path of this combination of tracking URI, database file, settings and code."""
    uri = wanted_uri()
    database = Path(uri.removeprefix("sqlite:///"))
    code = [(file.name, file.stat().st_mtime_ns) for file in sorted(Path(__file__).parent.glob("*.py"))]
    settings = sorted((name, value) for name, value in os.environ.items() if name.upper().startswith(ENVIRONMENT))
    identity = [uri, database.stat().st_ino if database.exists() else 0, code, settings, sys.executable]
    return TRACKING / f"uploader-{digest_of(identity)[:8]}.sock"
