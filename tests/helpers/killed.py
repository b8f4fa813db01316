"""A stage that kills itself at a chosen moment, like `kill -9`::

    python -m tests.helpers.killed BEGUN COUNT STAGE ...

It dies just before its ``COUNT``-th change of a file or folder. Change 1 is the first one whose path contains
``BEGUN``. If there are fewer changes, it dies at the end of its work. So the disk looks as after a kill between two
changes.
"""

import os
import signal
import sys
import threading

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Killer:
    """An audit hook. Python calls it before each of these changes, in every thread."""

    def __init__(self, begun: str, count: int):
        self.begun, self.left, self.counting = begun, count, False
        self.lock = threading.Lock()

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if not flags & WRITING or not isinstance(path, str | bytes | os.PathLike):
                return
            paths = [path]
        elif event in CHANGES:
            paths = [path for path in arguments[:2] if isinstance(path, str | bytes | os.PathLike)]
        else:
            return
        with self.lock:
            self.counting = self.counting or any(self.begun in os.fsdecode(path) for path in paths)
            self.left -= self.counting
            if self.left <= 0:
                print(f"killed before {event} of {', '.join(map(os.fsdecode, paths))}", flush=True)
                kill()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    begun, count, *words = sys.argv[1:]
    from tasks.__main__ import main

    sys.argv = ["tasks", *words]
    sys.addaudithook(Killer(begun, int(count)))
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    print("killed at its end", flush=True)
    kill()
