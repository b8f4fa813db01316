"""MLflow tracking: every stage is an MLflow run, child of its pipeline's run.

A stage appends what it logs to the outbox (:mod:`~tasks.tracking.outbox`), which takes microseconds. A separate process
(:mod:`~tasks.tracking.uploader`) sends it to MLflow (:mod:`~tasks.tracking.sender`), so that neither ``import mlflow`` nor
a slow server delays the stage. If the server is down, the run stays in the outbox; ``python -m tasks.tracking send`` sends
it later.

::

    with stage_run("train", dataset="street", model="convlstm_ae", params={...}) as run:
        run.metrics({"loss": 0.1}, step=10)
        run.picture("samples/10.png", "samples")
        run.made("models/street/convlstm_ae/weights.safetensors")
"""

from tasks.tracking.run import StageRun, stage_run

__all__ = ["StageRun", "stage_run"]
