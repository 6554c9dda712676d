"""The exceptions for errors that a user can fix."""

__all__ = ["DamagedFileError", "NotFiniteError", "ZeroshiftError"]


class ZeroshiftError(Exception):
    """An error that the user can fix. The message is one or two sentences: what is wrong, and what to do.

    The command line prints the message without a traceback and exits with code 1 (2 for wrong usage).
    """


class DamagedFileError(ZeroshiftError):
    """A file of ours is incomplete, or its content does not match its checksum."""


class NotFiniteError(ZeroshiftError):
    """Weights, images or features hold NaN or infinite values."""
