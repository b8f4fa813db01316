"""Retries, timeouts and GPU use of each kind of stage (its name in dvc.yaml), in one table."""

from __future__ import annotations

from dataclasses import dataclass

LIMIT = "gpu"  # the global concurrency limit; a heavy stage takes one slot
NICE = 10  # niceness of light stages and of scoring new footage, so that they do not slow down a training
LIGHT_AT_ONCE = 2  # number of light stages at a time; each already spreads its clips over all cores


@dataclass(frozen=True)
class Kind:
    """How stages of a kind are run.

    Attributes
    ----------
    heavy: takes a slot of the limit ``gpu``, so that it has all cores or the GPU to itself: on two cores, two trainings with
        two threads each are eight times slower side by side than one after the other. Light stages run at the same time,
        with the lowest priority and one thread each. With the run parameter ``heavy_at_once`` > 1, several heavy stages run
        at a time and share the cores.
    hours: timeout; it is final, without a retry.
    retries: number of retries of a stage that crashed or was killed. A stage that ended with an error message is not
        retried, because the error would occur again.
    pause: seconds before each retry.
    stubborn: also retry a stage that ended with an error message.
    outside: reads data that DVC does not track, a folder of footage or a web site; the parameter ``refresh`` runs it again
        although nothing seems changed.
    """

    heavy: bool
    hours: float
    retries: int = 1
    pause: tuple[float, ...] = (10,)
    stubborn: bool = False
    outside: bool = False


KINDS = {
    # downloads: retry after a server error
    "prepare": Kind(heavy=False, hours=12, retries=2, pause=(15, 60), stubborn=True, outside=True),
    # a retry continues with the next clip
    "extract": Kind(heavy=False, hours=12),
    "optical_flow": Kind(heavy=True, hours=24),
    # resume from their checkpoints, so a retry costs seconds; GPU jobs can fail transiently
    "train_flownet": Kind(heavy=True, hours=72, retries=2),
    "train": Kind(heavy=True, hours=72, retries=2),
    "score": Kind(heavy=True, hours=24),
    # only combines stored scores
    "fuse": Kind(heavy=False, hours=12),
    # takes about a minute
    "report": Kind(heavy=False, hours=1),
}
OTHER = Kind(heavy=True, hours=24)  # a kind that is not in the table might need the GPU


def kind_of(name: str) -> Kind:
    return KINDS.get(name, OTHER)
