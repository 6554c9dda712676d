"""Files that browsers are sent."""

import hashlib
import os
import secrets
from pathlib import Path

from zeroshift.io.atomic import disk_errors

__all__ = ["ServedFiles"]


class ServedFiles:
    """Files that are written once and never changed, so that a browser always reads a whole file.

    They are removed by age (`Studio.sweep`). A file that is put again counts as new.

    Args:
        folder: the folder of the files; it is created with the first one.
    """

    def __init__(self, folder: Path):
        self._folder, self._key = folder, secrets.token_bytes(32)

    def put(self, data: bytes, name: str) -> str:
        """The path of a file with this content and name. Pages cannot guess the paths of other pages.

        Raises:
            ZeroshiftError: if the disk is full or the folder cannot be written.
        """
        digest = hashlib.blake2b(name.encode() + b"\0" + data, key=self._key, digest_size=20).hexdigest()
        file = self._folder / digest / name
        with disk_errors(file):
            try:
                os.utime(file)
            except FileNotFoundError:
                file.parent.mkdir(parents=True, exist_ok=True)
                temporary = file.with_name(secrets.token_hex(8))
                temporary.write_bytes(data)
                os.replace(temporary, file)
        return str(file)
