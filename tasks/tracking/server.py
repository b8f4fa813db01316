"""Connect to MLflow: choose the tracking URI, set short timeouts and quiet logs, create the database once."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from filelock import FileLock

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACTS = Path("mlartifacts")  # artifacts of experiments in a database without an MLflow server
# without it, MLflow opens its pages for language models
KIND = {"mlflow.experimentKind": "custom_model_development"}
ANSWER_SECONDS = "10"  # timeout of the first answer; transfers use MLflow's own timeouts
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
# Defaults; environment variables that the user has set take precedence.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # failed requests are retried later, from the outbox
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_PRINT_MODEL_URLS_ON_CREATION": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
}


def wanted_uri() -> str:
    """Return ``MLFLOW_TRACKING_URI``, else the URI of the database in the project folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def without_secrets(uri: str) -> str:
    """Return ``uri``, or any text with URIs in it, without user names and passwords."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", uri)


def quieten() -> None:
    """Set short timeouts and quiet logs for MLflow. Call it before the first import of mlflow."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def connect(uri: str):
    """Return an ``mlflow.MlflowClient`` for ``uri`` after a successful request; create a missing database.

    A new sqlite database is built under another name and then renamed, by one process at a time. MLflow corrupts a database
    that several processes create at once, and cannot repair one whose creation was interrupted.
    """
    quieten()
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    if uri.startswith("sqlite"):
        from sqlalchemy import make_url

        database = Path(make_url(uri).database)
        if not database.exists():
            database.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{database}.lock"):
                if not database.exists():
                    fresh = database.with_name(f"{database.name}.partial")
                    fresh.unlink(missing_ok=True)
                    MlflowClient(f"sqlite:///{fresh}").search_experiments(max_results=1)
                    fresh.rename(database)
    client = MlflowClient(uri)
    reach(client)
    return client


def reach(client) -> None:
    """Raise an error within seconds, not minutes, if MLflow does not answer."""
    limit = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    users = limit in os.environ
    os.environ.setdefault(limit, ANSWER_SECONDS)
    try:
        client.search_experiments(max_results=1)
    finally:
        if not users:
            os.environ.pop(limit, None)


def experiment_id(client, uri: str, name: str) -> str:
    """Return the id of the experiment ``name``; create the experiment if it is missing."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        local = uri.split(":")[0].split("+")[0] in DATABASES
        try:
            place = (ARTIFACTS.resolve() / name).as_uri() if local else None
            return client.create_experiment(name, place, tags=KIND)
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
            # another process was faster
    return found.experiment_id


def why(error: BaseException) -> str:
    """Return the reason of an error in one short line without passwords; of chained network errors, the innermost."""
    text = without_secrets(" ".join(str(error).split())) or type(error).__name__
    inner = re.search(r"\[Errno -?\d+\] ([^')\"]+)|(Read timed out[^)'\"]*)", text)
    return next(filter(None, inner.groups())) if inner else text[:200]
