"""Write params.yaml with all defaults to settings.yaml, which the other stages depend on.

DVC compares settings as they stand in a file. Through settings.yaml, a section that params.yaml leaves out is the same as
one that repeats the defaults, and a changed default in the code reruns the stages that use it.
"""

import yaml

from tasks import paths
from tasks.stage import Stage
from vadcore.utils.files import write_text

HEADER = (
    "# Generated from params.yaml by the stage configure: all settings, with their defaults. Changes here are lost.\n"
)


def work(stage: Stage) -> None:
    params = stage.params
    settings = {**params.model_dump(mode="json"), "needs_flow": params.needs_flow}
    write_text(paths.SETTINGS, HEADER + yaml.safe_dump(settings, sort_keys=False))
