"""Retries, time limits and who takes the GPU, by kind of stage (its name in dvc.yaml). One table, with reasons."""

from __future__ import annotations

from dataclasses import dataclass

LIMIT = "gpu"  # the global concurrency limit that heavy stages take one slot of
NICE = 10  # of light stages, and of the scoring of new footage: beside a training they get what it leaves
LIGHT_AT_ONCE = 2  # light stages side by side: each spreads its clips over all cores anyway


@dataclass(frozen=True)
class Kind:
    """How stages of a kind are run.

    heavy: takes a slot of the limit ``gpu``: one such stage has the machine's cores or its GPU to itself (two trainings on
    two cores, with two threads each, are eight times slower side by side than one after another). Light ones run beside
    it, with the lowest priority, one thread each. A run may let several heavy ones run side by side (its parameter
    ``heavy_at_once``): they then share the cores, a few threads each.
    retries: attempts after the first, for a stage that was killed or crashed; one that ended with a line saying what is
    wrong would say so again. stubborn: repeats it all the same.
    pause: seconds before each retry. hours: after which a stage is stopped for good. outside: reads what DVC does not
    watch, a folder of footage or a web site; the parameter ``refresh`` runs it again although nothing seems changed.
    """

    heavy: bool
    hours: float
    retries: int = 1
    pause: tuple[float, ...] = (10,)
    stubborn: bool = False
    outside: bool = False


KINDS = {
    # downloads: a server that stumbles is asked again
    "prepare": Kind(heavy=False, hours=12, retries=2, pause=(15, 60), stubborn=True, outside=True),
    # goes on with the next clip
    "extract": Kind(heavy=False, hours=12),
    "optical_flow": Kind(heavy=True, hours=24),
    # resume from their checkpoints, so a retry costs seconds; GPU jobs can fail transiently
    "train_flownet": Kind(heavy=True, hours=72, retries=2),
    "train": Kind(heavy=True, hours=72, retries=2),
    "score": Kind(heavy=True, hours=24),
    # reads what scoring left
    "fuse": Kind(heavy=False, hours=12),
    # a minute's work
    "report": Kind(heavy=False, hours=1),
}
OTHER = Kind(heavy=True, hours=24)  # a kind that is not in the table might need the GPU


def kind_of(name: str) -> Kind:
    return KINDS.get(name, OTHER)
