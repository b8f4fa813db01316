"""The exception class for errors that the user can fix."""


class VadError(Exception):
    """An error that the user can fix.

    The message is one line with the file (or key), the value and what to do. Programs print it without a traceback and
    exit with a non-zero code. All other exceptions are bugs and keep their traceback.
    """
