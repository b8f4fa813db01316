"""Send a run of the outbox to MLflow. Sending resumes after the last confirmed event, in this process or a later one.

A crash between a confirmation and its entry in ``state.json`` sends up to one batch again. Params, tags, artifacts and
data sets stay the same, and MLflow's SQL stores drop a duplicate metric point (another backend may show it twice). Nothing
is lost.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import tempfile
import tomllib
from datetime import datetime
from pathlib import Path

from filelock import FileLock
from packaging.requirements import Requirement
from packaging.version import Version

from tasks.tracking.client import connect, experiment_id, reason_of, wanted_uri, without_secrets
from tasks.tracking.outbox import LOGS, EventLog
from tasks.tracking.registry import register

# error codes of requests that MLflow will never accept; after other errors, a retry may succeed
REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
BATCH = 1000  # metrics that are sent, and noted as sent, together
ROOT = Path(__file__).resolve().parents[2]  # folder that contains the packages `tasks` and `vadcore`
LOADER = Path(__file__).with_name("vad_pyfunc.py")
PIPELINE_TAGS = ("vad.pipeline", "vad.host", "mlflow.user", "mlflow.source.git.commit", "mlflow.source.git.dirty")


class Sender:
    """Sends one run of the outbox."""

    def __init__(self, events: EventLog):
        self.events = events

    @property
    def uri(self) -> str:
        """The URI that the run is sent to.

        That is the server that already has it, else ``MLFLOW_TRACKING_URI``, else the URI at the start of the stage.
        """
        wanted = wanted_uri()
        set_now = without_secrets(wanted) if os.environ.get("MLFLOW_TRACKING_URI") else None
        chosen = self.events.state.get("uri") or set_now or self.events.about["uri"]
        return wanted if without_secrets(wanted) == chosen else chosen

    def send(self) -> bool:
        """Send all pending events; if the stage has ended or was killed, also end the run.

        Returns True if the run is done: remove it from the outbox then. Raises any error of MLflow if it does not answer;
        call again later. One process at a time sends from an outbox; others wait here.
        """
        with FileLock(self.events.folder.parents[1] / "sender.lock"):
            killed = not self.events.writer_lives()  # asked before the logs are read: a stage may end meanwhile
            self.state = self.events.state
            self.state.pop("fault", None)
            if "done" in self.state:
                return True
            self._client = connect(self.uri)
            self._run = self._find_run() or self._create_run()
            end = self._send_log("events.jsonl")
            self._send_log("system.jsonl")
            if end is None and killed:
                last = (self.events.folder / "events.jsonl").stat().st_mtime
                end = {"end": "KILLED", "time": int(last * 1000)}
            if end is None:
                return False
            run_id = self._run.info.run_id
            self._unless_refused(lambda: self._client.set_terminated(run_id, end["end"], end_time=end["time"]))
            self._unless_refused(self._end_pipeline)
            self.events.save_state({**self.state, "done": True})
            return True

    def _find_run(self):
        """Return the MLflow run that was begun; None if there is none. A replaced database gets the whole run again."""
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_run(self.state["run_id"]) if "run_id" in self.state else None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _create_run(self):
        """Create the run once. A run created by a sender that crashed is found by its tag ``vad.outbox``."""
        about, key = self.events.about, self.events.key
        experiment = experiment_id(self._client, self.uri, about["experiment"])
        tags = {**about["tags"], "mlflow.parentRunId": self._begin_pipeline(experiment), "vad.outbox": key}
        found = self._client.search_runs([experiment], f"tags.`vad.outbox` = '{key}'", max_results=1)
        run = found[0] if found else self._client.create_run(experiment, about["start"], tags, about["name"])
        self.state = {"uri": without_secrets(self.uri), "run_id": run.info.run_id, "sent": dict.fromkeys(LOGS, 0)}
        self.events.save_state(self.state)
        return run

    def _begin_pipeline(self, experiment: str) -> str:
        """Return the run id of the stage's pipeline, which is RUNNING now; create the run if it is missing."""
        about = self.events.about
        key, start, dataset = about["pipeline"]["key"], about["pipeline"]["start"], about["tags"].get("vad.dataset")
        where = f"tags.`vad.pipeline` = '{key}' and tags.`vad.stage` = 'pipeline'"
        found = self._client.search_runs([experiment], where, max_results=1)
        if found:
            run = found[0]
        else:
            tags = {name: about["tags"][name] for name in PIPELINE_TAGS if name in about["tags"]}
            tags |= {"vad.stage": "pipeline", "mlflow.source.name": "dvc.yaml", "mlflow.source.type": "LOCAL"}
            run = self._client.create_run(experiment, start, tags, _pipeline_name(start, []))
        datasets = run.data.tags.get("vad.dataset", "").split()
        if dataset and dataset not in datasets:
            datasets.append(dataset)
            self._client.set_tag(run.info.run_id, "vad.dataset", " ".join(datasets))
            self._client.update_run(run.info.run_id, name=_pipeline_name(run.info.start_time, datasets))
        if run.info.status != "RUNNING":
            self._client.update_run(run.info.run_id, status="RUNNING")
        return run.info.run_id

    def _end_pipeline(self) -> None:
        """Set the status of the pipeline's run from the runs of its stages.

        RUNNING while one runs; else FAILED or KILLED if the last run of a stage has that status; else FINISHED. Only the
        last run of a repeated stage counts.
        """
        parent = self._run.data.tags["mlflow.parentRunId"]
        where = f"tags.`mlflow.parentRunId` = '{parent}'"
        children = self._client.search_runs(
            [self._run.info.experiment_id], where, max_results=1000, order_by=["start_time ASC"]
        )
        last = {child.info.run_name: child.info for child in children}
        statuses = {info.status for info in last.values()}
        status = next(status for status in ("RUNNING", "FAILED", "KILLED", "FINISHED") if status in statuses)
        if status != "RUNNING":
            self._client.set_terminated(parent, status, end_time=max(info.end_time for info in last.values()))

    def _send_log(self, name: str) -> dict | None:
        """Send the new events of a log. Return the ``end`` event once it is reached."""
        from mlflow.entities import Metric

        metrics, reached = [], self.state["sent"][name]
        for event, offset in self.events.events(name, reached):
            if "end" in event:
                self._send_metrics(name, metrics, reached)
                return event  # never noted as sent: the run is removed from the outbox after it
            reached = offset
            if "metrics" in event:
                metrics += [Metric(key, x, event["time"], event["step"]) for key, x in event["metrics"].items()]
                if len(metrics) >= BATCH:
                    self._send_metrics(name, metrics, reached)
            else:
                self._send_metrics(name, metrics, reached)
                self._unless_refused(lambda event=event: self._send_one(event))
                self._note(name, reached)
        self._send_metrics(name, metrics, reached)
        return None

    def _send_metrics(self, name: str, metrics: list, reached: int) -> None:
        if metrics:
            self._unless_refused(lambda: self._client.log_batch(self._run.info.run_id, metrics))
            metrics.clear()
            self._note(name, reached)

    def _note(self, name: str, reached: int) -> None:
        self.state["sent"][name] = reached
        self.events.save_state(self.state)

    def _send_one(self, event: dict) -> None:
        from mlflow.entities import Param, RunTag

        run_id = self._run.info.run_id
        if "params" in event:
            self._client.log_batch(run_id, params=[Param(key, value) for key, value in event["params"].items()])
        elif "tags" in event:
            self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in event["tags"].items()])
        elif "artifact" in event:
            self._client.log_artifact(run_id, str(self.events.folder / event["artifact"]), event["folder"] or None)
        elif "image" in event:
            import cv2

            picture = cv2.imread(str(self.events.folder / event["image"]), cv2.IMREAD_COLOR_RGB)
            self._client.log_image(run_id, picture, key=event["key"], step=event["step"], synchronous=True)
        elif "dataset" in event:
            self._client.log_inputs(run_id, [_dataset_input(event["dataset"])])
        else:
            self._send_model(event["model"])

    def _send_model(self, event: dict) -> None:
        """Log a model: signature, weights, loader code and pinned requirements. Repeating it changes nothing.

        MLflow's own ``log_model`` attaches only metrics of one step, after it has read the whole history of each, and sends
        all again when it is repeated after a crash.
        """
        from mlflow.entities import LoggedModelOutput, Metric

        run, tags = self._run.info, self.events.about["tags"]
        if "model" not in self.state:
            shown = {name: tags[name] for name in ("vad.dataset", "vad.model", "vad.pipeline") if name in tags}
            name = tags.get("vad.model") or tags["vad.stage"]
            model = self._client.create_logged_model(
                run.experiment_id, name, run.run_id, shown, event["params"], model_type="vad"
            )
            self.state["model"] = model.model_id
            self.events.save_state(self.state)
        model_id = self.state["model"]
        self._client.log_outputs(run.run_id, [LoggedModelOutput(model_id, step=0)])
        last = [Metric(key, *point, model_id=model_id, run_id=run.run_id) for key, point in event["metrics"].items()]
        self._client.log_batch(run.run_id, last)
        with tempfile.TemporaryDirectory() as scratch:
            packed = self._pack_model(event, model_id, Path(scratch))
            self._client.log_model_artifacts(model_id, str(packed))
        self._client.finalize_logged_model(model_id, "READY")
        if event["register"]:
            register(self._client, run.run_id, model_id, event["register"], event["tags"])
        del self.state["model"]

    def _pack_model(self, event: dict, model_id: str, scratch: Path) -> Path:
        """Write the folder of an MLflow model without importing torch."""
        import mlflow.pyfunc
        from mlflow.models import Model, ModelSignature

        data, packed = scratch / "trained", scratch / "model"
        data.mkdir()
        for file in event["files"]:
            source = self.events.folder / file
            if source.is_dir():
                shutil.copytree(source, data / source.name)
            else:
                shutil.copy(source, data)
        mlflow.pyfunc.save_model(
            str(packed),
            loader_module=LOADER.stem,
            data_path=str(data),
            code_paths=[str(ROOT / "vadcore"), str(LOADER)],
            mlflow_model=Model(
                run_id=self._run.info.run_id,
                model_id=model_id,
                model_uuid=model_id,
                artifact_path=self._client.get_logged_model(model_id).artifact_location,
                signature=ModelSignature.from_dict(event["signature"]),
            ),
            pip_requirements=_requirements(),
        )
        return packed

    def _unless_refused(self, call) -> None:
        """Call ``call``; record what MLflow will never accept, so that it does not block later events."""
        from mlflow.exceptions import MlflowException

        try:
            call()
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            self.state.setdefault("refused", []).append(reason_of(error))


def _pipeline_name(start: int, datasets: list[str]) -> str:
    return " ".join(["pipeline", f"{datetime.fromtimestamp(start / 1000):%Y-%m-%d %H:%M}", *datasets])


def _dataset_input(event: dict):
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = (event["dvc"] or event["digest"])[:36]  # MLflow's limit, and the length of DVC's digests
    tags = {"mlflow.data.context": event["context"], "vad.digest": event["digest"], "vad.dvc": event["dvc"] or ""}
    dataset = Dataset(event["name"], digest, "local", json.dumps({"uri": event["source"]}))
    return DatasetInput(dataset, [InputTag(name, value[:500]) for name, value in tags.items() if value])


def _requirements() -> list[str]:
    """Return the dependencies of vadcore from pyproject.toml, and mlflow, pinned to the installed versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [Requirement(line).name for line in project["dependencies"]] + ["mlflow"]
    return [f"{name}=={Version(importlib.metadata.version(name)).public}" for name in names]
