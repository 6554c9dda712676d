"""Claims on pieces of work, as files in a folder that several machines share.

A claim on PATH is a file PATH.claim-N beside it, created with O_EXCL: also on NFS (version 3 and later), exactly one
process creates it. A lock of the operating system (`io.locks`) would not do: some cluster file systems have none, or
keep them within one machine. While its process works, it touches the file (the heartbeat). A claim is dead if its
process has ended, on the same machine, or if its heartbeat has stopped, on another one. It is taken over by creating
the file with the next number, which again only one process can do; no file is removed that a third one may have made.

Ages are differences between times of the file system, which on NFS are those of the server: the clocks of the machines
need not agree.
"""

import contextlib
import functools
import json
import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import atomic_write, disk_errors
from zeroshift.io.foreign import parse_json
from zeroshift.io.leftovers import remove_temporary, runs_since, temporary_path, this_machine

__all__ = ["Claim", "Claims"]

_HEARTBEAT = 20.0  # seconds
_EXPIRY = 180.0  # seconds without a heartbeat, more than the minute for which NFS may show an old time


@dataclass(frozen=True)
class Claim:
    """The last claim on a piece of work.

    Attributes:
        number: counts the claims on it from 0.
        holder: machine and process, for messages.
        alive: whether its process works.
        problem: why the work failed; empty if it did not.
        failed_before: whether it failed before this process began to claim.
    """

    number: int
    holder: str
    alive: bool
    problem: str
    failed_before: bool

    @property
    def blocks(self) -> bool:
        """Whether the work is left to its holder, or has failed since this process began."""
        return self.alive or bool(self.problem and not self.failed_before)


class Claims:
    """The claims of this process; a context manager that keeps them alive and releases them at the end.

    Args:
        folder: a folder on the file system of the work; it is made.
        heartbeat: seconds between two heartbeats.
        expiry: seconds without a heartbeat after which a claim of another machine is dead.

    Raises:
        ZeroshiftError: in any method, if the folder cannot be written.
    """

    def __init__(self, folder: Path, heartbeat: float = _HEARTBEAT, expiry: float = _EXPIRY) -> None:
        self._heartbeat, self._expiry = heartbeat, expiry
        self._held: dict[Path, int] = {}  # numbers of the claims
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._start = _now(folder)

    def __enter__(self) -> "Claims":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        for path in list(self._held):
            self.release(path)

    def take(self, path: Path) -> bool:
        """Claims a piece of work; False if another process has it, or it has failed since this process began.

        Check after it whether the work is still to be done: its last holder may have just finished it.
        """
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            last = self.last(path)
            if last is not None and last.blocks:
                return False
            number = 0 if last is None else last.number + 1
            try:
                descriptor = os.open(_claim_file(path, number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:  # another process was faster
                return False
            with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                json.dump(_holder(), opened)
        self._held[path] = number
        return True

    def release(self, path: Path, problem: str | None = None) -> None:
        """Ends the claim of this process. A failure is kept in its file until a later command repeats the work."""
        number = self._held.pop(path)
        if problem is not None:
            with atomic_write(_claim_file(path, number)) as temporary:
                temporary.write_text(json.dumps({**_holder(), "problem": problem}), encoding="utf-8")
            return
        for _, old in sorted(each for each in _claim_files(path) if each[0] <= number):
            old.unlink(missing_ok=True)  # the last one last, since it protects the work

    def last(self, path: Path) -> Claim | None:
        """The last claim on a piece of work, or None."""
        files = _claim_files(path)
        while files:
            number, file = max(files)
            with contextlib.suppress(FileNotFoundError):  # released meanwhile
                return self._read(number, file)
            files = _claim_files(path)
        return None

    def _read(self, number: int, file: Path) -> Claim:
        with open(file, encoding="utf-8", errors="replace") as opened:  # opening makes NFS ask for the current time
            text, changed = opened.read(10_000), os.fstat(opened.fileno()).st_mtime
        values = _parse(text)
        machine, process, problem = values.get("machine"), values.get("process"), str(values.get("problem", ""))
        if machine == _machine() and isinstance(process, int):
            alive = runs_since(process, changed)
        else:
            alive = _now(file.parent) - changed <= self._expiry
        holder = f"{values.get('host', 'an unknown machine')}, process {process}"
        return Claim(number, holder, alive and not problem, problem, changed < self._start)

    def _keep_alive(self) -> None:
        while not self._end.wait(self._heartbeat):
            for path, number in list(self._held.items()):
                with contextlib.suppress(OSError):  # released meanwhile, or the server does not answer
                    os.utime(_claim_file(path, number))


def _claim_file(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.claim-{number}")


def _claim_files(path: Path) -> list[tuple[int, Path]]:
    """The numbers and files of the claims on a piece of work; listing the folder makes NFS ask for the current ones."""
    beginning = f"{path.name}.claim-"
    names = os.listdir(path.parent) if path.parent.is_dir() else []
    numbers = (name.removeprefix(beginning) for name in names if name.startswith(beginning))
    return [(int(number), _claim_file(path, int(number))) for number in numbers if number.isdecimal()]


def _parse(text: str) -> dict[str, Any]:
    """The content of a claim; empty if its process has not written it yet."""
    with contextlib.suppress(ZeroshiftError):
        values = parse_json(text, "a claim")
        if isinstance(values, dict):
            return values
    return {}


def _holder() -> dict[str, Any]:
    return {"machine": _machine(), "host": socket.gethostname(), "process": os.getpid()}


@functools.cache
def _machine() -> str:
    """This machine since its last start. Cloned machines may share the name, but not the start."""
    start = Path("/proc/sys/kernel/random/boot_id")
    return f"{this_machine()} {start.read_text().strip() if start.exists() else ''}".strip()


def _now(folder: Path) -> float:
    """The present time of the file system."""
    probe = temporary_path(folder / "probe")
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        remove_temporary(probe)
