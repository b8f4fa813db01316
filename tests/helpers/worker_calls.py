"""Functions that tests call in worker processes. Few imports: every worker imports this module.

python -m tests.helpers.worker_calls FOLDER: start two workers that write their PIDs to FOLDER and sleep.
"""

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from vadcore.utils.errors import VadError

FOREVER = 3600.0  # seconds of sleep of calls that are ended from outside


def square(number):
    return number**2, os.getpid()


def refuse_odd(number):
    if number % 2:
        raise VadError(f"{number} is odd")
    return number


def threads(number):
    """The numbers of threads that OpenCV and torch use."""
    import cv2
    import torch

    return cv2.getNumThreads(), torch.get_num_threads()


def set_threads(number):
    """The thread settings of a worker before torch is imported, and whether torch is imported."""
    import cv2

    return cv2.getNumThreads(), os.environ["OMP_NUM_THREADS"], "torch" in sys.modules


def write_pid_and_sleep(folder, number):
    path = Path(folder) / str(number)
    path.with_suffix(".part").write_text(str(os.getpid()))
    path.with_suffix(".part").rename(path)
    time.sleep(FOREVER)


def fail_beside_sleeper(folder, number):
    """Call 1 sleeps; call 0 fails when call 1 has begun."""
    if number == 1:
        write_pid_and_sleep(folder, number)
    while not (Path(folder) / "1").exists():
        time.sleep(0.01)
    raise ZeroDivisionError("at zero")


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from tasks.parallel import per_clip
    from tests.helpers.worker_calls import write_pid_and_sleep as function  # workers cannot import it from __main__

    calls = [(sys.argv[1], number) for number in range(2)]
    list(per_clip(function, calls, SimpleNamespace(workers=2, scheduler=None), "test"))
