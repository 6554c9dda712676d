"""One command in a child process: how it ends, and what it prints."""

import atexit
import contextlib
import ctypes
import fcntl
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LIMIT", "Outcome", "adopt_orphans", "run_command", "wait_for_orphans"]

LIMIT = 600.0  # seconds; a command that takes longer is killed and counts as hanging
_PIPE_SIZE = 1 << 20
_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Outcome:
    """The end of a command."""

    code: int  # exit code; negative: number of the signal that ended the process
    out: str
    err: str
    seconds: float
    group: int  # process group, for `wait_for_orphans`

    @property
    def sentences(self) -> str:
        """What stderr says, in one line."""
        return " ".join(self.err.split())


def run_command(
    arguments: Sequence[str],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[], None] = lambda: None,
    send: tuple[float, signal.Signals] | None = None,
    new_interpreter: bool = False,
) -> Outcome:
    """Runs `zeroshift ARGUMENTS` in `folder`.

    Args:
        environment: variables that differ from those of this process.
        prepare: called in the child before the command, for limits and tripwires.
        send: (seconds, signal): sends the signal after this time, unless the command has ended. As a terminal does,
            SIGINT and SIGHUP go to its child processes as well.
        new_interpreter: runs `python -m zeroshift` instead of forking this process.
    """
    pipes = [os.pipe() for _ in range(2)]
    for _, writer in pipes:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)  # a command prints less: nothing has to be read meanwhile
    sys.stdout.flush()
    start = time.monotonic()
    process = os.fork()
    if not process:
        _child([writer for _, writer in pipes], arguments, folder, environment or {}, prepare, new_interpreter)
    with contextlib.suppress(OSError):
        os.setpgid(process, process)  # the child does the same, because either process may run first
    for _, writer in pipes:
        os.close(writer)
    status = _wait(process, start, send)
    out, err = (_read(reader) for reader, _ in pipes)
    return Outcome(os.waitstatus_to_exitcode(status), out, err, time.monotonic() - start, process)


def _child(
    writers: Sequence[int],
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    prepare: Callable[[], None],
    new_interpreter: bool,
) -> None:
    """The child process; does not return."""
    code = 70
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, writer in enumerate(writers, start=1):
            os.dup2(writer, number)
            os.close(writer)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
        os.chdir(folder)
        os.environ.update(environment)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if new_interpreter:
            prepare()
            os.execv(sys.executable, [sys.executable, "-m", "zeroshift", *arguments])
        code = _run_main(arguments, prepare)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _run_main(arguments: Sequence[str], prepare: Callable[[], None]) -> int:
    """What `python -m zeroshift` does after its imports, to the end of the interpreter."""
    import torch

    from zeroshift.cli.main import main

    torch.manual_seed(time.time_ns())  # a result that depended on the global generator would differ
    prepare()
    code: object = 1
    try:
        sys.argv = ["zeroshift", *arguments]
        code = main()
    except SystemExit as error:
        code = error.code
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 130
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 0


def _wait(process: int, start: float, send: tuple[float, signal.Signals] | None) -> int:
    """The exit status of the process."""
    descriptor = os.pidfd_open(process)
    try:
        if send is not None and not _ends_within(descriptor, start + send[0]):
            to_group = send[1] in (signal.SIGINT, signal.SIGHUP)
            (os.killpg if to_group else os.kill)(process, send[1])
        if not _ends_within(descriptor, start + LIMIT):
            os.killpg(process, signal.SIGKILL)
        return os.waitpid(process, 0)[1]
    finally:
        os.close(descriptor)


def _ends_within(descriptor: int, deadline: float) -> bool:
    return bool(select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0])


def _read(reader: int) -> str:
    """Everything in a pipe. Its other end may still be open in an orphan."""
    os.set_blocking(reader, False)
    parts = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(reader, _PIPE_SIZE):
            parts.append(part)
    os.close(reader)
    return b"".join(parts).decode(errors="replace")


def adopt_orphans() -> None:
    """Makes this process the parent of its orphaned descendants, so that it can wait for them."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_for_orphans(group: int) -> bool:
    """Waits until all processes of a group have ended; kills them after `LIMIT` and returns False."""
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            ended, _ = os.waitpid(-group, os.WNOHANG)
        except ChildProcessError:
            return True
        if not ended:
            if time.monotonic() > deadline:
                os.killpg(group, signal.SIGKILL)
                return False
            time.sleep(0.02)
