"""The exception for errors that a user can fix."""

__all__ = ["ZeroshiftError"]


class ZeroshiftError(Exception):
    """An error that the user can fix. The message is one or two sentences: what is wrong, and what to do.

    The command line prints the message without a traceback and exits with code 1 (2 for wrong usage).
    """
