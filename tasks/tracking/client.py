"""Connect to MLflow: tracking URI, time limits, quiet logs; create a missing database and experiment."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from vadcore.utils.errors import VadError, one_line

DEFAULT_URI = "sqlite:///mlflow.db"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
ARTIFACTS = Path("mlartifacts")  # artifacts of experiments in a database without an MLflow server
# without it, MLflow opens its pages for language models
KIND = {"mlflow.experimentKind": "custom_model_development"}
# Defaults; environment variables that the user has set take precedence.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds until the server answers, not for a whole transfer
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


def is_database(uri: str) -> bool:
    """Return True if ``uri`` is a database, not an MLflow server."""
    return uri.split(":")[0].split("+")[0] in DATABASES


def without_secrets(uri: str) -> str:
    """Return ``uri``, or any text with URIs in it, without user names and passwords."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", uri)


def reason_of(error: BaseException) -> str:
    """Return the reason of an error in one short line without passwords; of chained network errors, the innermost."""
    text = without_secrets(one_line(error, most=2000)) or type(error).__name__
    inner = re.search(r"\[Errno -?\d+\] ([^')\"]+)|(Read timed out[^)'\"]*)", text)
    return next(filter(None, inner.groups())) if inner else text[:200]


def tag_name(text: str) -> str:
    """Return ``text`` with only the characters that MLflow allows in names of params, metrics and tags."""
    return re.sub(r"[^\w\-. :/]", "_", text)[:250]


def quieten() -> None:
    """Set short timeouts and quiet logs for MLflow. Call it before the first import of mlflow."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def connect(uri: str):
    """Return an ``mlflow.MlflowClient`` for ``uri``; create a missing database.

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
    return MlflowClient(uri)


@contextmanager
def answering() -> Iterator:
    """Yield a client for :func:`wanted_uri`. Raises VadError if a request to MLflow in the block fails."""
    uri = wanted_uri()
    try:
        yield connect(uri)
    except VadError:
        raise
    except Exception as error:  # a server, a database and a bucket raise different errors
        raise VadError(
            f"MLflow at {without_secrets(uri)} did not answer ({reason_of(error)}); start it or unset MLFLOW_TRACKING_URI"
        ) from error


def experiment_id(client, uri: str, name: str) -> str:
    """Return the id of the experiment ``name``; create the experiment if it is missing."""
    from mlflow.exceptions import MlflowException

    if (found := client.get_experiment_by_name(name)) is None:
        try:
            place = (ARTIFACTS.resolve() / name).as_uri() if is_database(uri) else None
            return client.create_experiment(name, place, tags=KIND)
        except MlflowException:  # another process may have been faster
            if (found := client.get_experiment_by_name(name)) is None:
                raise
    return found.experiment_id


def search_tag(client, tag: str, most: int = 20) -> list:
    """Return the ``most`` newest runs of all experiments that have the tag ``tag``."""
    experiments = [found.experiment_id for found in client.search_experiments()]
    where = f"tags.`{tag_name(tag)}` LIKE '%'"
    return client.search_runs(experiments, where, order_by=["start_time DESC"], max_results=most)
