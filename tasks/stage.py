"""What every stage program shares: its command line, params, tracking, and how it ends when something is wrong."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.tracking import StageRun, stage_run
from vadcore.errors import VadError

if TYPE_CHECKING:
    from vadcore.config import Params


@dataclass(frozen=True)
class Stage:
    """What a stage is asked to do. ``dataset``, ``model`` and ``flownet`` are empty where the stage has none."""

    params: Params
    run: StageRun
    dataset: str = ""
    model: str = ""
    flownet: str = ""

    def say(self, text: str) -> None:
        """A line for the person who watches."""
        print(text, flush=True)


def stage_main(name: str, work: Callable[[Stage], None], takes: tuple[str, ...], doc: str) -> None:
    """Run ``work`` as the stage ``name``; ``takes`` names its positional arguments: dataset, model, flownet."""
    parser = argparse.ArgumentParser(prog=f"python -m tasks.{name}", description=doc.strip().splitlines()[0])
    for argument in takes:
        parser.add_argument(argument, help=f"a name listed in params.yaml under {argument}s")
    arguments = vars(parser.parse_args())
    try:
        # here, not above: every process of a per-clip pool imports this module, and needs neither models nor torch
        from vadcore.config import load_params

        params = load_params()
        _check(params, **arguments)
        sections = {
            "seed": params.seed,
            "profile": params.profile,
            **{key: getattr(params, key).model_dump() for key in _SECTIONS[name]},
        }
        if "dataset" in arguments:
            sections["dataset"] = params.dataset[arguments["dataset"]].model_dump()
        if "model" in arguments:
            sections["model"] = params.model[arguments["model"]].model_dump()
        named = arguments
        if "flownet" in arguments:
            sections["flownet"] = params.flownet[arguments["flownet"]].model_dump()
            named = {"model": arguments["flownet"]}
        with stage_run(name, **named, params=sections, experiment=params.tracking.experiment) as run:
            work(Stage(params, run, **arguments))
    except VadError as error:
        sys.exit(f"error: {error}")
    except FileNotFoundError as error:
        sys.exit(f"error: {error.filename}: not there; run the stage that makes it, or all: dvc repro")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.exit(f"error: {error.filename or 'disk'}: no space left; free some and run the same command again")
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


# the sections of params.yaml, besides the data set's and the model's, that a stage reads
_SECTIONS = {
    "prepare": (),
    "extract": ("extract",),
    "optical_flow": ("optical_flow",),
    "train": ("train",),
    "train_flownet": ("train",),
    "score": ("calibrate", "score"),
    "report": ("report",),
}


def _check(params: Params, **names: str) -> None:
    for kind, name in names.items():
        sections = getattr(params, kind)
        if name not in sections:
            raise VadError(f"params.yaml: no section {kind}.{name}; there are: {', '.join(sections) or 'none'}")
