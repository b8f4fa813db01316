"""Choose the champion of a data set, or roll back, as a Prefect flow; from a shell: ``python -m tasks.promote``."""

from __future__ import annotations

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.process import run_command


@flow(name="promote", persist_result=False)
def promote(dataset: str, by: str = "artificial", back: bool = False) -> State:
    """Give the alias ``champion`` of ``dataset`` to the best registered system.

    The comparison is stored as an artifact of this run and as a table of its run in MLflow.

    Args:
        dataset: a data set listed in params.yaml.
        by: ``artificial`` (artificial anomalies in held-out normal clips; uses no test label) or a metric of the test
            footage such as ``auc_micro``.
        back: roll back to the previous champion instead.
    """
    done = run_command("tasks.promote", dataset, *(["--back"] if back else ["--by", by]))
    if done.code:
        return Failed(message=done.reason)
    create_markdown_artifact(
        "\n".join(["```", *done.lines, "```"]), key="promotion", description=f"champion of {dataset}"
    )
    return Completed(message=done.lines[-1])
