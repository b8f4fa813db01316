"""Exit of a program after an error: a one-line message with a remedy, and an exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vadcore.utils.errors import VadError


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with a one-line message on expected errors; other exceptions propagate with their traceback.

    Exit code 1 after VadError, a missing file or a full disk; 130 after Ctrl-C.
    """
    try:
        yield
    except VadError as error:
        sys.exit(f"error: {error}")
    except FileNotFoundError as error:
        sys.exit(f"error: {error.filename}: missing; run the stage that makes it, or all stages: dvc repro")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.exit(f"error: {error.filename or 'disk'}: no space left; free some and run the same command again")
    except KeyboardInterrupt:
        print("stopped; run the same command to continue", file=sys.stderr)
        sys.exit(130)
