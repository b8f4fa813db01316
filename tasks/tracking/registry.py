"""The MLflow model registry: a registered model per data set, a version per scoring, and the alias of the champion."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tasks.tracking.client import answering, reason_of, wanted_uri
from vadcore.utils.errors import VadError

CHAMPION, PREVIOUS = "champion", "previous"
DETECTORS = Path("detectors")  # downloaded champions


@dataclass(frozen=True)
class Version:
    """A version of a data set's registered model.

    Attributes
    ----------
    run: id of the MLflow run that made it.
    tags: its figures, as text.
    """

    name: str
    number: int
    model: str  # name of the system in params.yaml
    run: str
    tags: dict = field(compare=False)

    def __str__(self) -> str:
        return f"{self.model} (version {self.number})"


def registered_name(dataset: str) -> str:
    """Return the name of the registered model of a data set."""
    return f"vad-{dataset}"


def register(client, run_id: str, model_id: str, name: str, tags: dict[str, str]) -> None:
    """Make a logged model a new version of the registered model ``name``. Repeating it changes nothing."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if not any(found.model_id == model_id for found in client.search_model_versions(f"name = '{name}'")):
        client.create_model_version(name, f"models:/{model_id}", run_id, tags, model_id=model_id)


def _version(found) -> Version:
    tags = dict(found.tags)
    return Version(found.name, int(found.version), tags.get("vad.model", "unknown"), found.run_id, tags)


def latest_versions(client, dataset: str) -> list[Version]:
    """Return the newest version of every system that was scored on ``dataset``, oldest first."""
    found = map(_version, client.search_model_versions(f"name = '{registered_name(dataset)}'"))
    newest = {version.model: version for version in sorted(found, key=lambda version: version.number)}
    return sorted(newest.values(), key=lambda version: version.number)


def aliased(client, dataset: str, alias: str) -> Version | None:
    """Return the version that has the alias ``alias``; None if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return _version(client.get_model_version_by_alias(registered_name(dataset), alias))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no such model; no such alias
            return None
        raise


def move_aliases(client, dataset: str, champion: Version, before: Version | None) -> None:
    """Give ``champion`` the alias. The previous champion gets its alias first, so that a rollback is always possible."""
    name = registered_name(dataset)
    if before is not None:
        client.set_registered_model_alias(name, PREVIOUS, str(before.number))
    client.set_registered_model_alias(name, CHAMPION, str(champion.number))


def fetch_champion(dataset: str, folder: Path = DETECTORS) -> tuple[Version, Path]:
    """Return the champion of ``dataset`` and a folder with its detector, downloaded once.

    Raises :class:`VadError` if there is no champion or MLflow does not answer.
    """
    with answering() as client:
        version = aliased(client, dataset, CHAMPION)
    if version is None:
        raise VadError(f"{registered_name(dataset)}: has no champion; choose one: python -m tasks.promote {dataset}")
    kept = folder / f"{version.name}-{version.number}-{version.run}"  # version numbers restart in every new database
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            try:
                download(version, Path(beside)).rename(kept)
            except OSError:  # another process was faster
                if not kept.exists():
                    raise
    return version, kept


def download(version: Version, folder: Path) -> Path:
    """Download the files of a version to ``folder``: weights, configuration, calibration.

    Raises :class:`VadError` if they cannot be downloaded.
    """
    import mlflow

    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.set_tracking_uri(wanted_uri())  # models:/ URIs use the global tracking URI
    try:
        mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.number}", dst_path=str(folder))
    except Exception as error:  # a disk, a server and a bucket raise different errors
        raise VadError(f"{version}: cannot be downloaded ({reason_of(error)}); promote another") from error
    return folder / "data" / "trained"
