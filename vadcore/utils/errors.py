"""The one exception that a person is meant to read."""


class VadError(Exception):
    """Something the person at the keyboard can mend.

    The message is one line that names the file (or key), the value and the remedy. Programs print it without a
    traceback and exit with a code that is not 0; every other exception is a defect of ours and keeps its traceback.
    """
