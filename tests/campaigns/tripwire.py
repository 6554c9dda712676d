"""A tripwire on file operations: something happens at the n-th one.

The interpreter reports operations through audit hooks. The package needs no code for it.
"""

import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Tripwire"]

_CHANGES = ("os.chmod", "os.mkdir", "os.remove", "os.rename", "os.rmdir")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Tripwire:
    """Calls `act` immediately before the n-th file operation of a child process.

    Counted are operations that change something below `folder`: files opened for writing, synced, renamed, removed, and
    new folders; with `reads`, files opened for reading instead. With `part`, only those whose path contains this string
    count. The parent can read `count` at any time.
    """

    def __init__(
        self,
        folder: Path,
        number: int = 0,
        act: Callable[[], None] | None = None,
        part: str = "",
        *,
        reads: bool = False,
    ) -> None:
        self._folder, self._part = f"{folder}{os.sep}", part
        self._number, self._act, self._reads = number, act, reads
        self._shared = mmap.mmap(-1, 8)  # shared with the child

    @property
    def count(self) -> int:
        """Operations so far."""
        return int.from_bytes(self._shared[:8], "little")

    def install(self) -> None:
        """For the child: cannot be undone."""
        sync = os.fsync

        def fsync(descriptor: Any) -> None:
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            if not self._reads:
                self._step(os.readlink(f"/proc/self/fd/{number}"))
            sync(descriptor)

        os.fsync = fsync  # fsync has no audit event
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes) and isinstance(flags, int) and bool(flags & _WRITING) != self._reads:
                self._step(os.fsdecode(path))
        elif event in _CHANGES and not self._reads:
            path, folder = arguments[event == "os.rename"], arguments[-1]  # the descriptor of a folder, or -1
            if isinstance(path, str | bytes):
                start = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else ""
                self._step(os.path.join(start, os.fsdecode(path)))

    def _step(self, path: str) -> None:
        path = os.path.abspath(path)
        if path.startswith(self._folder) and self._part in path:
            count = self.count + 1
            self._shared[:8] = count.to_bytes(8, "little")
            if count == self._number and self._act is not None:
                self._act()
