"""The registry of scored models: a registered model a data set, a version a scoring, and who is champion."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tasks.tracking.server import connect, wanted_uri, why, without_secrets
from vadcore.utils.errors import VadError

CHAMPION, PREVIOUS = "champion", "previous"
DETECTORS = Path("detectors")  # champions that were fetched


@dataclass(frozen=True)
class Version:
    """A version of a data set's registered model. run: the MLflow run that made it. tags: its figures, as text."""

    name: str
    number: int
    model: str  # the system, as params.yaml calls it
    run: str
    tags: dict = field(compare=False)

    def __str__(self) -> str:
        return f"{self.model} (version {self.number})"


def registered_name(dataset: str) -> str:
    """What the registry calls the models of a data set."""
    return f"vad-{dataset}"


def _version(found) -> Version:
    return Version(
        found.name, int(found.version), found.tags.get("vad.model", "unknown"), found.run_id, dict(found.tags)
    )


def latest_versions(client, dataset: str) -> list[Version]:
    """The newest version of every system that was scored on ``dataset``."""
    newest: dict[str, Version] = {}
    for version in map(_version, client.search_model_versions(f"name = '{registered_name(dataset)}'")):
        if version.model not in newest or newest[version.model].number < version.number:
            newest[version.model] = version
    return sorted(newest.values(), key=lambda version: version.number)


def aliased(client, dataset: str, alias: str) -> Version | None:
    """The version that carries ``alias``; None where none does."""
    from mlflow.exceptions import MlflowException

    try:
        return _version(client.get_model_version_by_alias(registered_name(dataset), alias))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no such model; no such alias
            return None
        raise


def move_aliases(client, dataset: str, champion: Version, before: Version | None) -> None:
    """Give ``champion`` the alias; who had it is remembered, first, so that the way back is never lost."""
    name = registered_name(dataset)
    if before is not None:
        client.set_registered_model_alias(name, PREVIOUS, str(before.number))
    client.set_registered_model_alias(name, CHAMPION, str(champion.number))


def fetch_champion(dataset: str, folder: Path = DETECTORS) -> tuple[Version, Path]:
    """The champion of ``dataset`` and a folder with all that detection needs, fetched once. Raises :class:`VadError` when
    nobody was promoted, or MLflow does not answer."""
    uri = wanted_uri()
    try:
        version = aliased(connect(uri), dataset, CHAMPION)
    except Exception as error:
        raise VadError(
            f"MLflow at {without_secrets(uri)} did not answer ({why(error)}); start it or unset MLFLOW_TRACKING_URI"
        ) from error
    if version is None:
        raise VadError(f"{registered_name(dataset)}: has no champion; choose one: python -m tasks.promote {dataset}")
    kept = folder / f"{version.name}-{version.number}-{version.run}"  # numbers begin anew with every database
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            try:
                download(version, Path(beside)).rename(kept)
            except OSError:  # another process was quicker
                if not kept.exists():
                    raise
    return version, kept


def download(version: Version, folder: Path) -> Path:
    """The version's files in ``folder``: weights, configuration, calibration. Raises :class:`VadError` when it is gone."""
    import mlflow

    folder.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(wanted_uri())  # what models:/ is looked up with
    try:
        mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.number}", dst_path=str(folder))
    except Exception as error:  # the store may be a disk, a server or a bucket, each with errors of its own
        raise VadError(f"{version}: cannot be fetched ({why(error)}); promote another") from error
    return folder / "data" / "trained"
