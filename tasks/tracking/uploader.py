"""The uploader: a process in the background that sends what the stages of a project folder log.

``import mlflow`` takes seconds, so one process does it for many stages, while the first one imports its own libraries. It
ends ``IDLE_SECONDS`` after the last stage. It samples the machine's load with MLflow's monitor, but not in that monitor's
thread, which gives up when a server does not answer and logs nothing for a run shorter than its interval.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

from tasks.tracking.client import is_database, reason_of, wanted_uri, without_secrets
from tasks.tracking.outbox import TRACKING, EventLog, lock, waiting_runs
from tasks.tracking.sender import Sender
from vadcore.utils.files import digest_of

PATIENCE_SECONDS = 120  # how long a stage waits at its end for the upload; then it ends without waiting further
POLL_SECONDS = 0.1
SEND_SECONDS = 5.0  # between samples of the system metrics, too
RETRY_SECONDS = 30.0  # between retries while the server does not answer
IDLE_SECONDS = 20.0
LOG = "uploader.log"
# settings of MLflow and of its artifact stores; an uploader is shared only between equal settings
SETTINGS = ("MLFLOW", "AWS", "AZURE", "GOOGLE", "HTTP_", "HTTPS_", "NO_PROXY", "SSL_", "REQUESTS_")


def settings_digest() -> str:
    """Return a digest of the tracking URI, the database file, settings and code, 8 hex digits."""
    uri = wanted_uri()
    database = Path(uri.removeprefix("sqlite:///"))
    code = [(file.name, file.stat().st_mtime_ns) for file in sorted(Path(__file__).parent.glob("*.py"))]
    settings = sorted((name, value) for name, value in os.environ.items() if name.upper().startswith(SETTINGS))
    return digest_of([uri, database.stat().st_ino if database.exists() else 0, code, settings, sys.executable])[:8]


def start_uploader(settings: str) -> None:
    """Start the uploader for ``settings`` unless it runs. If it cannot be started, print a message.

    It runs in its own session, so that neither Ctrl-C nor a kill of the stage ends it.
    """
    TRACKING.mkdir(exist_ok=True)
    with _lock_file(TRACKING, settings).open("w") as file:
        if not lock(file):
            return
        # the new process inherits the lock and holds it until it ends
        words = [sys.executable, "-m", "tasks.tracking", "follow", settings, str(file.fileno())]
        try:
            with (TRACKING / LOG).open("w") as log:
                pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
                subprocess.Popen(words, **pipes, pass_fds=[file.fileno()], start_new_session=True)
        except OSError as error:
            print(f"cannot start the MLflow uploader: {error}", flush=True)


def wait_for_upload(run: EventLog) -> None:
    """Wait at the end of a stage until everything is sent, and print a message if something went wrong."""
    tracking, place = run.folder.parents[1], os.path.relpath(run.folder)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (state := run.state).get("done"):
        said = state.get("fault")
        if not said and not _is_running(tracking, run.about["uploader"]):
            lines = (
                (tracking / LOG).read_text(encoding="utf-8").strip().splitlines() if (tracking / LOG).exists() else []
            )
            said = f"the MLflow uploader stopped ({lines[-1] if lines else 'it was killed'})"
        if said:
            print(f"{said}; kept in {place}; send later with: python -m tasks.tracking send", flush=True)
            return
        if time.monotonic() > deadline:
            print(f"MLflow is slow; {place} is still being uploaded in the background", flush=True)
            return
        time.sleep(POLL_SECONDS)
    if "refused" in state:
        print(f"MLflow refused a part of {run.key}: {state['refused'][0]}", flush=True)
    run.remove()


def _lock_file(tracking: Path, settings: str) -> Path:
    return tracking / f"uploader-{settings}.lock"


def _is_running(tracking: Path, settings: str) -> bool:
    with _lock_file(tracking, settings).open("w") as file:
        return not lock(file)


class Uploader:
    """Sends for the stages that have ``settings``, and what killed stages and servers that were down have left."""

    def __init__(self, settings: str):
        self.settings = settings
        self._due: dict[tuple[str, bool], float] = {}  # when to send next, by run and whether its stage is over
        self._monitors: dict[str, object] = {}  # MLflow's, by id of the run

    def step(self) -> bool:
        """Send what is due. Return True if a stage with these settings runs."""
        running = False
        for run in sorted(waiting_runs(), key=lambda run: run.about["uploader"] != self.settings):
            try:
                mine, lives = run.about["uploader"] == self.settings, run.writer_lives()
                if lives and not mine:
                    continue
                over = not lives or run.ended()
                running |= not over
                if time.monotonic() >= self._due.get((run.key, over), 0):
                    self._send(run, over)
                    if not lives:
                        break  # running stages take precedence over further runs of stages that have ended
            except FileNotFoundError:  # another process has sent it
                continue
        return running

    def _send(self, run: EventLog, over: bool) -> None:
        """Send the pending events of a run. If MLflow does not answer at the end of a stage, note this in its state."""
        sender, fault = Sender(run), ""
        try:
            done = sender.send(self._sample)
        except Exception as error:  # an error must not end this process, which other stages use
            print(f"{run.key}: {type(error).__name__}: {without_secrets(str(error))}", file=sys.stderr, flush=True)
            fault, done = f"MLflow at {without_secrets(sender.uri)} did not answer ({reason_of(error)})", False
        self._due[run.key, over] = time.monotonic() + (RETRY_SECONDS if fault else SEND_SECONDS)
        if over and fault and run.folder.exists():  # else its stage has just removed it
            run.save_state({**run.state, "fault": fault})
        if done and not run.writer_lives():
            run.remove()

    def _sample(self, uri: str, run_id: str) -> None:
        """Log MLflow's system metrics. CPU utilisation is the mean since the previous sample."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        if run_id not in self._monitors:
            self._monitors[run_id] = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=uri)
        monitor = self._monitors[run_id]
        monitor.collect_metrics()
        monitor.publish_metrics(monitor.aggregate_metrics())
        monitor.mlflow_logger.flush()


def follow(settings: str, lock: int) -> None:
    """Main loop of the uploader process, which holds the locked file descriptor ``lock``.

    Returns when no stage has run for ``IDLE_SECONDS``.
    """
    importlib.import_module("mlflow.pyfunc")
    if is_database(wanted_uri()):
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
    uploader = Uploader(settings)
    busy = time.monotonic()
    while time.monotonic() - busy < IDLE_SECONDS:
        if uploader.step():
            busy = time.monotonic()
        time.sleep(POLL_SECONDS)
    _lock_file(TRACKING, settings).unlink(missing_ok=True)
    os.close(lock)
    if any(run.about["uploader"] == settings and run.writer_lives() and not run.ended() for run in waiting_runs()):
        start_uploader(settings)  # a stage began before the lock was free
