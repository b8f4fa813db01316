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
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from filelock import FileLock
from packaging.requirements import Requirement
from packaging.version import Version

from tasks.tracking.client import connect, experiment_id, reason_of, wanted_uri, without_secrets
from tasks.tracking.outbox import EventLog
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

    def send(self, before_end: Callable[[str, str], None] = lambda uri, run_id: None) -> bool:
        """Send all pending events; if the stage has ended or was killed, also end the run.

        Returns True if the run is done: remove it from the outbox then. Raises any error of MLflow if it does not answer;
        call again later. One process at a time sends from an outbox; others wait here. ``before_end`` is called with the
        URI and the id of the run before it may end.
        """
        with FileLock(self.events.folder.parents[1] / "sender.lock"):
            killed = not self.events.writer_lives()  # before the log is read, because the stage may end during reading
            self.state = self.events.state
            self.state.pop("fault", None)
            if "done" in self.state:
                return True
            self._client = connect(self.uri)
            self._run = self._find_run() or self._create_run()
            run_id, end = self._run.info.run_id, self._send_events()
            self._unless_refused(lambda: before_end(self.uri, run_id))
            if end is None and killed:
                end = {"end": "KILLED", "time": self.events.last_written()}
            if end is None:
                return False
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
        self.state = {"uri": without_secrets(self.uri), "run_id": run.info.run_id}
        self.events.save_state(self.state)
        return run

    def _begin_pipeline(self, experiment: str) -> str:
        """Return the run id of the stage's pipeline, which is RUNNING now; create the run if it is missing."""
        client, tags, pipeline = self._client, self.events.about["tags"], self.events.about["pipeline"]
        where = f"tags.`vad.pipeline` = '{pipeline['key']}' and tags.`vad.stage` = 'pipeline'"
        run = next(iter(client.search_runs([experiment], where, max_results=1)), None)
        if run is None:
            shared = {name: tags[name] for name in PIPELINE_TAGS if name in tags}
            shared |= {"vad.stage": "pipeline", "mlflow.source.name": "dvc.yaml", "mlflow.source.type": "LOCAL"}
            run = client.create_run(experiment, pipeline["start"], shared, _pipeline_name(pipeline["start"], []))
        run_id, datasets = run.info.run_id, run.data.tags.get("vad.dataset", "").split()
        if (dataset := tags.get("vad.dataset")) and dataset not in datasets:
            datasets.append(dataset)
            client.set_tag(run_id, "vad.dataset", " ".join(datasets))
            client.update_run(run_id, name=_pipeline_name(run.info.start_time, datasets))
        if run.info.status != "RUNNING":
            client.update_run(run_id, status="RUNNING")
        return run_id

    def _end_pipeline(self) -> None:
        """Set the status of the pipeline's run from the runs of its stages.

        RUNNING while one runs; else FAILED or KILLED if the last run of a stage has that status; else FINISHED. Only the
        last run of a repeated stage counts.
        """
        parent, experiments = self._run.data.tags["mlflow.parentRunId"], [self._run.info.experiment_id]
        where = f"tags.`mlflow.parentRunId` = '{parent}'"
        children = self._client.search_runs(experiments, where, max_results=1000, order_by=["start_time ASC"])
        last = {child.info.run_name: child.info for child in children}.values()
        statuses = {info.status for info in last}
        status = next(status for status in ("RUNNING", "FAILED", "KILLED", "FINISHED") if status in statuses)
        if status != "RUNNING":
            self._client.set_terminated(parent, status, end_time=max(info.end_time for info in last))

    def _send_events(self) -> dict | None:
        """Send the new events. Return the ``end`` event once it is reached."""
        from mlflow.entities import Metric

        metrics, reached, end = [], self.state.get("confirmed", 0), None

        def send_metrics() -> None:
            if metrics:
                self._unless_refused(lambda: self._client.log_batch(self._run.info.run_id, metrics))
                metrics.clear()
                self._note(reached)

        for event, offset in self.events.events(reached):
            if "end" in event:
                end = event  # never noted as sent: the run is removed from the outbox after it
                break
            if "metrics" not in event:
                send_metrics()
                self._unless_refused(lambda event=event: self._send_one(event))
                self._note(offset)
            else:
                metrics += [Metric(key, x, event["time"], event["step"]) for key, x in event["metrics"].items()]
            reached = offset
            if len(metrics) >= BATCH:
                send_metrics()
        send_metrics()
        return end

    def _note(self, reached: int) -> None:
        self.state["confirmed"] = reached
        self.events.save_state(self.state)

    def _send_one(self, event: dict) -> None:
        from mlflow.entities import Param, RunTag

        client, run_id = self._client, self._run.info.run_id
        if "params" in event:
            client.log_batch(run_id, params=[Param(*pair) for pair in event["params"].items()])
        elif "tags" in event:
            client.log_batch(run_id, tags=[RunTag(*pair) for pair in event["tags"].items()])
        elif "artifact" in event:
            client.log_artifact(run_id, str(self.events.folder / event["artifact"]), event["folder"] or None)
        elif "image" in event:
            import cv2

            picture = cv2.imread(str(self.events.folder / event["image"]), cv2.IMREAD_COLOR_RGB)
            client.log_image(run_id, picture, key=event["key"], step=event["step"], synchronous=True)
        elif "dataset" in event:
            client.log_inputs(run_id, [_dataset_input(event["dataset"])])
        else:
            self._send_model(event["model"])

    def _send_model(self, event: dict) -> None:
        """Log a model: signature, weights, loader code and pinned requirements. Repeating it changes nothing.

        MLflow's own ``log_model`` attaches only metrics of one step, after it has read the whole history of each, and sends
        all again when it is repeated after a crash.
        """
        from mlflow.entities import LoggedModelOutput, Metric

        client, run, tags = self._client, self._run.info, self.events.about["tags"]
        if "model" not in self.state:
            shown = {name: tags[name] for name in ("vad.dataset", "vad.model", "vad.pipeline") if name in tags}
            name = tags.get("vad.model") or tags["vad.stage"]
            created = (run.experiment_id, name, run.run_id, shown, event["params"], "vad")
            self.state["model"] = client.create_logged_model(*created).model_id
            self.events.save_state(self.state)
        model_id = self.state["model"]
        client.log_outputs(run.run_id, [LoggedModelOutput(model_id, step=0)])
        last = [Metric(key, *point, model_id=model_id, run_id=run.run_id) for key, point in event["metrics"].items()]
        client.log_batch(run.run_id, last)
        with tempfile.TemporaryDirectory() as scratch:
            client.log_model_artifacts(model_id, str(self._pack_model(event, model_id, Path(scratch))))
        client.finalize_logged_model(model_id, "READY")
        if event["register"]:
            register(client, run.run_id, model_id, event["register"], event["tags"])
        del self.state["model"]

    def _pack_model(self, event: dict, model_id: str, scratch: Path) -> Path:
        """Write the folder of an MLflow model without importing torch."""
        import mlflow.pyfunc
        from mlflow.models import Model, ModelSignature

        data, packed = scratch / "trained", scratch / "model"
        data.mkdir()
        for source in (self.events.folder / file for file in event["files"]):
            (shutil.copytree if source.is_dir() else shutil.copy)(source, data / source.name)
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

    def _unless_refused(self, call: Callable[[], object]) -> None:
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
