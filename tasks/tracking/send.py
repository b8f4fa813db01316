"""Send a spool to MLflow. Sending resumes after the last confirmed event, in this process or a later one.

A crash between a confirmation and its entry in ``state.json`` sends up to one batch again. Params, tags, artifacts and
data sets stay the same, and MLflow's SQL stores drop a duplicate metric point (another backend may show it twice). Nothing
is lost.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

import cv2

from tasks.tracking import pipeline
from tasks.tracking.log_model import create_model, upload_model
from tasks.tracking.outbox import LOGS, EventLog
from tasks.tracking.server import connect, experiment_id, reach, wanted_uri, why, without_secrets

# error codes of requests that MLflow will never accept; after other errors, a retry may succeed
REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
METRICS, TEXTS = 1000, 100  # MLflow's limits for one log_batch
BATCH = 1000  # number of values that are sent, and noted as sent, together


@dataclass
class _Batch:
    """Events that are sent in one or a few ``log_batch`` calls."""

    metrics: list = field(default_factory=list)
    params: list = field(default_factory=list)
    tags: list = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.metrics) + len(self.params) + len(self.tags)

    def take(self, event: dict) -> bool:
        """Add ``event``; return False if its kind cannot be sent in batches."""
        from mlflow.entities import Metric, Param, RunTag

        if "metrics" in event:
            self.metrics += [Metric(k, v, event["time"], event["step"]) for k, v in event["metrics"].items()]
        elif "params" in event:
            self.params += [Param(k, v) for k, v in event["params"].items()]
        elif "tags" in event:
            self.tags += [RunTag(k, v) for k, v in event["tags"].items()]
        else:
            return False
        return True


class Sender:
    """Sends one spool, which the caller has claimed. ``refused`` lists what MLflow rejected for good."""

    def __init__(self, spool: EventLog):
        self.spool = spool
        self.state = spool.state
        self.uri = spool_uri(spool)
        self.refused: list[str] = []
        self._client = None

    def send(self, finish: bool = True) -> bool:
        """Send all pending events. With ``finish``, and if the stage has ended, also end the run and remove the spool.

        Returns True if the spool was removed. Raises any error of MLflow if it does not answer; call again later.
        """
        from mlflow.exceptions import MlflowException

        if self._client is None:
            self._client = connect(self.uri)
        else:
            reach(self._client)
        if "run_id" not in self.state:
            self._create_run()
        try:
            end = self._send_logs()
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self.state = {"anew": True}  # the database was replaced: the spool is complete, so start again, once
            self._create_run()
            end = self._send_logs()
        if end is None or not finish:
            return False
        run_id, experiment = self.state["run_id"], self.state["experiment_id"]
        self._unless_refused(lambda: self._client.set_terminated(run_id, end["end"], end_time=end["time"]))
        self._unless_refused(lambda: pipeline.settle(self._client, experiment, self.state["parent"], self._pipelines))
        self.spool.remove()
        return True

    @property
    def _pipelines(self):
        return self.spool.folder.parents[1] / "pipelines"

    def _create_run(self) -> None:
        """Create the run once. A run created by a sender that crashed is found by its tag ``vad.spool``."""
        about = self.spool.about
        experiment = experiment_id(self._client, self.uri, about["experiment"])
        parent = pipeline.attach(self._client, self.uri, experiment, about, self._pipelines)
        found = []
        if self.state.get("creating"):
            found = self._client.search_runs([experiment], f"tags.`vad.spool` = '{self.spool.key}'", max_results=1)
        else:
            self.state["creating"] = True
            self.spool.save_state(self.state)
        tags = {**about["tags"], "mlflow.parentRunId": parent, "vad.spool": self.spool.key}
        run = found[0] if found else self._client.create_run(experiment, about["start"], tags, about["name"])
        self.state = {
            **self.state,
            "uri": without_secrets(self.uri),
            "experiment_id": experiment,
            "parent": parent,
            "run_id": run.info.run_id,
            "sent": dict.fromkeys(LOGS, 0),
            "models": {},
        }
        self.spool.save_state(self.state)

    def _send_logs(self) -> dict | None:
        """Send the new events of the logs. Return the ``end`` event once it is reached."""
        end = None
        for name in LOGS:
            batch, reached = _Batch(), self.state["sent"][name]
            for event, offset in self.spool.events(name, reached):
                if "end" in event:
                    end = event  # never noted as sent: the spool is removed after it
                    break
                if not batch.take(event):
                    self._flush(batch)
                    self._unless_refused(lambda event=event, offset=offset: self._send_one(event, offset))
                    self._note(name, offset)
                elif len(batch) >= BATCH:
                    self._flush(batch)
                    self._note(name, offset)
                reached = offset
            self._flush(batch)
            self._note(name, reached)
        return end

    def _note(self, name: str, offset: int) -> None:
        if offset != self.state["sent"][name]:
            self.state["sent"][name] = offset
            self.spool.save_state(self.state)

    def _flush(self, batch: _Batch) -> None:
        run_id = self.state["run_id"]
        for kind, limit in (("params", TEXTS), ("tags", TEXTS), ("metrics", METRICS)):
            items = getattr(batch, kind)
            for first in range(0, len(items), limit):
                part = {kind: items[first : first + limit]}
                self._unless_refused(lambda part=part: self._client.log_batch(run_id, **part))
            items.clear()

    def _send_one(self, event: dict, offset: int) -> None:
        run_id = self.state["run_id"]
        if "artifact" in event:
            kept = self.spool.folder / event["artifact"]
            self._client.log_artifact(run_id, str(kept), event["folder"] or None)
        elif "image" in event:
            picture = cv2.imread(str(self.spool.folder / event["image"]), cv2.IMREAD_COLOR_RGB)
            self._client.log_image(run_id, picture, key=event["key"], step=event["step"], synchronous=True)
        elif "dataset" in event:
            self._client.log_inputs(run_id, [_dataset_input(event["dataset"])])
        else:
            models = self.state["models"]
            if str(offset) not in models:
                models[str(offset)] = create_model(self._client, self.spool, self.state, offset)
                self.spool.save_state(self.state)
            upload_model(self._client, self.spool, run_id, models[str(offset)], event["model"])

    def _unless_refused(self, call) -> None:
        """Call ``call``; record what MLflow will never accept, so that it does not block later events."""
        from mlflow.exceptions import MlflowException

        try:
            call()
        except MlflowException as error:
            gone = error.error_code == "RESOURCE_DOES_NOT_EXIST" and not self.state.get("anew")
            if error.error_code not in REFUSALS or gone:
                raise
            self.refused.append(why(error))


def spool_uri(spool: EventLog) -> str:
    """Return the URI that a spool is sent to.

    That is the server that already has its run, else ``MLFLOW_TRACKING_URI``, else the URI at the start of the stage.
    """
    wanted = wanted_uri()
    begun = spool.state.get("uri")
    chosen = begun or (without_secrets(wanted) if os.environ.get("MLFLOW_TRACKING_URI") else spool.about["uri"])
    return wanted if without_secrets(wanted) == chosen else chosen


def _dataset_input(event: dict):
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = (event["dvc"] or event["digest"])[:36]  # MLflow's limit, and the length of DVC's digests
    tags = {"mlflow.data.context": event["context"], "vad.digest": event["digest"], "vad.dvc": event["dvc"] or ""}
    dataset = Dataset(event["name"], digest, "local", json.dumps({"uri": event["source"]}))
    return DatasetInput(dataset, [InputTag(name, value[:500]) for name, value in tags.items() if value])
