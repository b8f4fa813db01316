"""Write params.yaml with all defaults, and digests of the code of each stage, to settings.yaml, which the stages depend on.

DVC compares settings as they stand in a file. Through settings.yaml, a section that params.yaml leaves out is the same as
one that repeats the defaults, and a stage runs again when a default or code behind its result has changed.
"""

from typing import Any

import yaml

from tasks import paths
from tasks.stage import Stage
from vadcore.config import Params
from vadcore.models import model_class, system_of
from vadcore.utils.code import code_digest
from vadcore.utils.files import digest_of, write_text

HEADER = (
    "# Generated from params.yaml by the stage configure: all settings, with their defaults. Changes here are lost.\n"
)


def work(stage: Stage) -> None:
    params = stage.params
    settings = {
        **params.model_dump(mode="json"),
        "needs_flow": params.needs_flow,
        "calibrate_of": {name: params.of(name).calibrate.model_dump(exclude={"datasets"}) for name in params.datasets},
        "code": code_of_stages(params),
    }
    write_text(paths.SETTINGS, HEADER + yaml.safe_dump(settings, sort_keys=False))


def code_of_stages(params: Params) -> dict[str, Any]:
    """Return the digest of the code behind each stage; for stages of one data set or model: name -> digest."""

    def digest(stage: str, *modules: str) -> str:
        return code_digest([f"tasks.{stage}", *modules])[:16]

    formats, models = "vadcore.data.formats", "vadcore.models"
    return {
        **{
            stage: {
                name: digest(stage, formats, f"{formats}.base", f"{formats}.{params.dataset[name].format}")
                for name in params.datasets
            }
            for stage in ("prepare", "extract")
        },
        "train": {  # with the text of the model card
            name: digest_of([digest("train", models, f"{models}.{system_of(name)}"), model_class(name).__doc__])
            for name in params.models
        },
        "score": {name: digest("score", models, f"{models}.{system_of(name)}") for name in params.models},
        **{stage: digest(stage) for stage in ("train_flownet", "optical_flow", "report")},
        "fuse": digest("fuse", models),
    }
