"""Every stage's run as an MLflow run, child of its pipeline's run.

A stage appends what it logs to a spool, ``tracking/outbox/<key>/`` (:mod:`~tasks.tracking.outbox`), which takes
microseconds. A process of its own follows the spool and sends it to MLflow (:mod:`~tasks.tracking.follow`), so that
neither ``import mlflow`` nor a slow server costs the stage anything. What a server that is down did not take stays in
the outbox and is sent by ``python -m tasks.tracking send``.

::

    with stage_run("train", dataset="street", model="convlstm_ae", params={...}) as run:
        run.metrics({"loss": 0.1}, step=10)
        run.picture("samples/10.png", "samples")
        run.made("models/street/convlstm_ae/weights.safetensors")
"""

from tasks.tracking.run import StageRun, stage_run

__all__ = ["StageRun", "stage_run"]
