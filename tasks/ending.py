"""How a program ends when something is wrong: one line with the remedy, and an exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vadcore.utils.errors import VadError


@contextmanager
def one_line_endings() -> Iterator[None]:
    """Around a program's work. What nobody foresaw is raised on, with its traceback."""
    try:
        yield
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
