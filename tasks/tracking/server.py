"""The way to MLflow: which tracking URI, a quiet client with short patience, and a database that is created once."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from filelock import FileLock

DEFAULT_URI = "sqlite:///mlflow.db"
ARTIFACTS = Path("mlartifacts")  # of experiments in a database that no server stands in front of
# without it MLflow opens with its pages for language models
KIND = {"mlflow.experimentKind": "custom_model_development"}
ANSWER_SECONDS = "10"  # for the first answer; a transfer may take as long as MLflow allows
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
# Holds unless the user has set them.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # what fails is tried again later: it lies in the outbox
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_PRINT_MODEL_URLS_ON_CREATION": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
}


def wanted_uri() -> str:
    """``MLFLOW_TRACKING_URI``, else the database in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def without_secrets(uri: str) -> str:
    """``uri``, or any text with URIs in it, without their users and passwords: for people and for files."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", uri)


def quieten() -> None:
    """Give MLflow short patience and few words; has to happen before mlflow is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def connect(uri: str):
    """An ``mlflow.MlflowClient`` for ``uri`` that has reached its store; a database that is missing is created.

    A fresh sqlite database is built under another name and renamed, by one process at a time: MLflow breaks one that
    several processes create at once, and cannot mend one whose creation was interrupted.
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
    """Raise soon where MLflow does not answer: a server that is down shall be noticed in seconds, not in minutes."""
    limit = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    users = limit in os.environ
    os.environ.setdefault(limit, ANSWER_SECONDS)
    try:
        client.search_experiments(max_results=1)
    finally:
        if not users:
            os.environ.pop(limit, None)


def experiment_id(client, uri: str, name: str) -> str:
    """The id of the experiment ``name``, which is created where it is missing."""
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
            # another process was quicker
    return found.experiment_id


def why(error: BaseException) -> str:
    """The reason in one short line, without passwords: of a chain of network errors the innermost one."""
    text = without_secrets(" ".join(str(error).split())) or type(error).__name__
    inner = re.search(r"\[Errno -?\d+\] ([^')\"]+)|(Read timed out[^)'\"]*)", text)
    return next(filter(None, inner.groups())) if inner else text[:200]
