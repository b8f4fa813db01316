"""The champion of a data set, chosen anew or given back, as a Prefect flow; at a shell ``python -m tasks.promote``."""

from __future__ import annotations

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.command import run_command


@flow(name="promote", persist_result=False)
def promote(dataset: str, by: str = "artificial", back: bool = False) -> State:
    """Give the alias ``champion`` of ``dataset`` to the best registered system.

    by: ``artificial`` (artificial anomalies put into held-out normal clips; sees no test label) or a figure of the test
    footage such as ``auc_micro``. back: give the alias back to the champion before instead. What was compared is an
    artifact of the run here, and a table of its run in MLflow.
    """
    done = run_command("tasks.promote", dataset, *(["--back"] if back else ["--by", by]))
    if done.code:
        return Failed(message=done.reason)
    create_markdown_artifact(
        "\n".join(["```", *done.said, "```"]), key="promotion", description=f"champion of {dataset}"
    )
    return Completed(message=done.said[-1])
