"""``python -m tasks <stage> ...``: the entry point of every stage in dvc.yaml.

The MLflow uploader process starts before the stage imports its libraries: both take seconds and run in parallel.
"""

from __future__ import annotations

import argparse
import gc
import importlib
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from tasks import processes
from tasks.ending import one_line_errors
from tasks.stage import Stage
from tasks.tracking import StageRun, stage_run
from tasks.tracking.run import wanted
from tasks.tracking.uploader import settings_digest, start_uploader
from vadcore.utils.errors import VadError

if TYPE_CHECKING:
    from vadcore.config import Params


class Program(NamedTuple):
    """A stage: its module in this folder has a function ``work(stage)``.

    Attributes
    ----------
    help: text for ``--help``.
    takes: positional arguments.
    sections: sections of params.yaml that it reads, besides those of the data set and the model.
    tracked: it has an MLflow run.
    """

    help: str
    takes: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    tracked: bool = True


PROGRAMS = {
    "configure": Program("check params.yaml and write it with all defaults to settings.yaml", tracked=False),
    "prepare": Program("bring a data set's footage, as delivered, to data/raw", ("dataset",)),
    "extract": Program("turn footage into chunked arrays", ("dataset",), ("extract",)),
    "train_flownet": Program("train a network for optical flow", ("flownet",), ("train",)),
    "optical_flow": Program("compute the optical flow of every clip", ("dataset",), ("optical_flow",)),
    "train": Program("train a system on a data set's normal footage", ("dataset", "model"), ("train",)),
    "score": Program("score a data set's test footage with a system", ("dataset", "model"), ("calibrate", "score")),
    "fuse": Program("combine systems of a data set into one", ("dataset", "fusion"), ("calibrate", "score")),
    "report": Program("put the results of everything params.yaml lists onto one page", (), ("report",)),
}


def main() -> None:
    gc.disable()  # during imports, see _import
    parser = argparse.ArgumentParser(prog="python -m tasks", description="Run one stage of dvc.yaml.")
    commands = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, program in PROGRAMS.items():
        command = commands.add_parser(name, help=program.help)
        for argument in program.takes:
            command.add_argument(argument, help=f"name of a section {argument}.<name> of params.yaml")
    arguments = vars(parser.parse_args())
    with one_line_errors():
        run(arguments.pop("stage"), arguments)


def run(name: str, arguments: dict[str, str]) -> None:
    """Run the stage ``name``. ``arguments``: its dataset, and its model, fusion or flownet."""
    if PROGRAMS[name].tracked and not processes.rank() and wanted():
        start_uploader(settings_digest())
    params = _params(name, arguments)
    if name == "train" and params.machine.processes > 1 and not processes.launched():
        processes.launch(params.machine.processes, [name, *arguments.values()])
    _work(name, params, arguments)


def _params(name: str, arguments: dict[str, str]) -> Params:
    from vadcore.config import load_params

    params = load_params()
    for kind, section in arguments.items():
        if section not in (sections := getattr(params, kind)):
            raise VadError(f"params.yaml: no section {kind}.{section}; there are: {', '.join(sections) or 'none'}")
    return params.of(arguments["dataset"]) if "dataset" in arguments else params


def _work(name: str, params: Params, arguments: dict[str, str]) -> None:
    work = _import(name).work
    named = {kind if kind == "dataset" else "model": value for kind, value in arguments.items()}
    if processes.rank() or not PROGRAMS[name].tracked:  # of the processes of a training, only the first one logs
        work(Stage(params, StageRun(None), **named, quiet=bool(processes.rank())))
        return
    logged = {
        "seed": params.seed,
        "profile": params.profile,
        **{key: getattr(params, key).model_dump() for key in PROGRAMS[name].sections},
        **{kind: getattr(params, kind)[value].model_dump() for kind, value in arguments.items()},
    }
    with stage_run(name, **named, params=logged, experiment=params.tracking.experiment) as run:
        work(Stage(params, run, **named))


def _import(name: str) -> ModuleType:
    """Import the module of a stage, then turn on the garbage collector, which main() turned off.

    Imported objects live until the process ends. Freezing them excludes them from collection, which saves up to half a
    second at the start and end of a stage.
    """
    module = importlib.import_module(f"tasks.{name}")
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    return module


if __name__ == "__main__":
    main()
