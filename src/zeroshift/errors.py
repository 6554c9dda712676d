"""The one exception a user is meant to read."""

__all__ = ["ZeroshiftError"]


class ZeroshiftError(Exception):
    """Something the user can mend: the message is one or two sentences that say what was wrong and what to do.

    The command line prints the message without a traceback and exits with code 1 (2 for wrong usage).
    """
