"""Log the trained model as an MLflow model: signature, weights, loader code, and pinned requirements.

MLflow's own ``log_model`` would load the model to find its imports, and would start a separate run. All of this is
known here, so the model's folder is written and uploaded without importing torch.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from tasks.tracking.outbox import EventLog

ROOT = Path(__file__).resolve().parents[2]
LOADER = Path(__file__).with_name("vad_pyfunc.py")


def requirements() -> list[str]:
    """Return the dependencies of vadcore from pyproject.toml, and mlflow, pinned to the installed versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [Requirement(line).name for line in project["dependencies"]] + ["mlflow"]
    return [f"{name}=={Version(importlib.metadata.version(name)).public}" for name in names]


def create_model(client, spool: EventLog, state: dict, offset: int) -> str:
    """Create a logged model with the name of the system and the params of the run; return its id.

    The last metrics that the run logged before byte ``offset`` of its log are also attached to the model.
    """
    from mlflow.entities import LoggedModelOutput, Metric

    tags = spool.about["tags"]
    params, last = {}, {}
    for event, reached in spool.events():
        if reached > offset:
            break
        params |= event.get("params", {})
        last |= {name: (value, event["time"], event["step"]) for name, value in event.get("metrics", {}).items()}
    shown = {name: tags[name] for name in ("vad.dataset", "vad.model", "vad.pipeline") if name in tags}
    name = tags.get("vad.model") or tags["vad.stage"]
    run_id = state["run_id"]
    model = client.create_logged_model(state["experiment_id"], name, run_id, shown, params, model_type="vad")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    metrics = [Metric(key, *point, model_id=model.model_id, run_id=run_id) for key, point in last.items()]
    client.log_batch(run_id, metrics[:1000])
    return model.model_id


def upload_model(client, spool: EventLog, run_id: str, model_id: str, event: dict) -> None:
    """Upload the folder of the model and mark it as ready. Repeating it changes nothing."""
    import mlflow
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    with tempfile.TemporaryDirectory() as scratch:
        data, packed = Path(scratch) / "trained", Path(scratch) / "model"
        data.mkdir()
        for file in event["files"]:
            source = spool.folder / file
            if source.is_dir():
                shutil.copytree(source, data / source.name)
            else:
                shutil.copy(source, data)
        output = TensorSpec(np.dtype(event["outputs"]["dtype"]), event["outputs"]["shape"])
        inputs = [TensorSpec(np.dtype(spec["dtype"]), spec["shape"], spec["name"]) for spec in event["inputs"]]
        if len(inputs) == 1:  # a single input is a plain array without a name
            inputs = [TensorSpec(inputs[0].type, inputs[0].shape)]
        mlflow.pyfunc.save_model(
            str(packed),
            loader_module=LOADER.stem,
            data_path=str(data),
            code_paths=[str(ROOT / "vadcore"), str(LOADER)],
            mlflow_model=Model(
                run_id=run_id,
                model_id=model_id,
                model_uuid=model_id,
                artifact_path=client.get_logged_model(model_id).artifact_location,
                signature=ModelSignature(Schema(inputs), Schema([output])),
            ),
            pip_requirements=requirements(),
        )
        client.log_model_artifacts(model_id, str(packed))
    client.finalize_logged_model(model_id, "READY")
    if "version" in event:
        register(client, run_id, model_id, **event["version"])


def register(client, run_id: str, model_id: str, name: str, tags: dict[str, str]) -> None:
    """Make the model a new version of the registered model ``name``. Repeating it changes nothing."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if not any(found.model_id == model_id for found in client.search_model_versions(f"name = '{name}'")):
        client.create_model_version(name, f"models:/{model_id}", run_id, tags, model_id=model_id)
