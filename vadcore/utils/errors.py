"""Errors that the user can fix, and the messages of other errors in one line."""


class VadError(Exception):
    """An error that the user can fix.

    The message is one line with the file (or key), the value and what to do. Programs print it without a traceback and
    exit with a non-zero code. All other exceptions are bugs and keep their traceback.
    """


def one_line(error: BaseException, most: int = 300) -> str:
    """Return the message of ``error`` without line breaks, at most ``most`` characters."""
    return " ".join(str(error).split())[:most]
