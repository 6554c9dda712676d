"""Runs one case: writes the mutated files, reads them under limits, and says what happened."""

import faulthandler
import gc
import os
import re
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from tests.fuzz.mutations import Files, Link, mutate
from tests.fuzz.pickles import CANARY
from tests.fuzz.readers import READERS
from zeroshift.errors import ZeroshiftError

__all__ = ["FAULTS", "MEMORY", "Corpus", "Outcome", "Workplace", "case_files", "run_case"]

Corpus = dict[str, dict[str, Files]]
"""Reader -> name of a seed -> its files."""

MEMORY = 2 << 30  # bytes above what the process needs without the case
READ, REFUSED = "read", "refused"
FAULTS = ("foreign", "hang", "memory", "network", "code", "written", "not finite", "sentence")
"""What must not happen: a foreign exception; more than 20 s; more than 2 GiB; a network request; code of the file
executed; a file written that the command does not write; numbers that are not finite; a message that is none."""


@dataclass(frozen=True)
class Outcome:
    """What happened in a case."""

    reader: str
    mutation: str
    kind: str
    detail: str = ""
    seconds: float = 0.0
    peak: int = 0  # bytes of memory that the case added


@dataclass(frozen=True)
class Workplace:
    """The folders of a worker."""

    root: Path

    @property
    def input(self) -> Path:
        return self.root / "input"

    @property
    def current(self) -> Path:
        """The current folder, with the undamaged files that others refer to."""
        return self.root / "current"

    def enter(self, fixed: Path) -> None:
        """Prepares the process: limits, caches and the current folder."""
        shutil.copytree(fixed, self.current)
        os.chdir(self.current)
        for name in ("ZEROSHIFT_CACHE", "HF_HOME", "XDG_CACHE_HOME", "TORCH_HOME", "TMPDIR"):
            os.environ[name] = str(self.root / "scratch" / name)
            (self.root / "scratch" / name).mkdir(parents=True)
        sys.dont_write_bytecode = True
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        faulthandler.enable()
        sys.addaudithook(_audit)


class _Watch:
    """What the audit hook allows and has seen in the present case."""

    armed = False
    writable: tuple[str, ...] = ()
    network = ""
    written = ""
    started = ""


_DRAWING = "generator makes images with values"  # a step after reading, which knows no file

_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
_PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.startfile", "pty.spawn")
_CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _Watch.armed:
        return
    if event in _NETWORK:
        _Watch.network = _Watch.network or f"{event}{arguments[-1:] if event == 'socket.connect' else arguments[:2]}"
        raise OSError("a case may not use the network")
    if event in _PROCESSES:
        _Watch.started = _Watch.started or f"{event} {str(arguments)[:100]}"
        raise OSError("a case may not start a process")
    if event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING):
        path, within = arguments[0], event in ("os.remove", "os.rmdir") and arguments[1] not in (-1, None)
        if isinstance(path, str | bytes | os.PathLike) and not within:  # of shutil.rmtree, which is an event, too
            place = os.path.abspath(os.fsdecode(path))
            if not place.startswith((*_Watch.writable, "/dev/")):
                _Watch.written = _Watch.written or f"{event} {place}"


def case_files(corpus: Corpus, reader: str, seed: int, case: int) -> tuple[Files, str]:
    """The mutated files of a case, and what was changed. Depends on the arguments only."""
    draw = Random(f"{seed}/{case}/{reader}")
    name = draw.choice(sorted(corpus[reader]))
    files, mutation = mutate(corpus[reader][name], draw)
    return files, f"{name}: {mutation}"


def write_files(files: Files, folder: Path) -> None:
    """Writes the files of a case into a new folder."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name.lstrip("/")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir(exist_ok=True)
            elif isinstance(content, Link):
                path.symlink_to(content.target)
            else:
                path.write_bytes(content)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):  # a changed name is that of a folder
            continue


def run_case(
    corpus: Corpus, reader: str, seed: int, case: int, place: Workplace, begin: Callable[[], None] = lambda: None
) -> Outcome:
    """Runs a case in this process, which `Workplace.enter` has prepared. `begin` is called before the reader."""
    files, mutation = case_files(corpus, reader, seed, case)
    shutil.rmtree(place.input, ignore_errors=True)
    write_files(files, place.input)
    before = _listing(place.input)
    _Watch.network = _Watch.written = _Watch.started = ""
    _Watch.writable = (str(place.root / "scratch"), *([str(place.input)] if READERS[reader].writes else []))
    begin()
    memory = _start_measuring()
    start = time.perf_counter()
    _Watch.armed = True
    error: BaseException | None = None
    value: Any = None
    try:
        value = READERS[reader].read(place.input)
    except BaseException as raised:
        error = raised
    _Watch.armed = False
    seconds = time.perf_counter() - start
    peak = _peak() - memory
    _limit(None)
    changed = not READERS[reader].writes and _listing(place.input) != before
    names = [*files, str(place.input)] if READERS[reader].names_file else [""]
    kind, detail = _judge(error, value, peak, changed, names)
    del error, value
    shutil.rmtree(place.root / "scratch" / "ZEROSHIFT_CACHE" / "inversions", ignore_errors=True)
    if peak > 1 << 28:
        gc.collect()
    return Outcome(reader, mutation, kind, detail, seconds, max(0, peak))


def _judge(error: BaseException | None, value: Any, peak: int, changed: bool, names: list[str]) -> tuple[str, str]:
    """The kind of an outcome, and its detail; the worst kind counts."""
    marks = [name for name in os.listdir() if CANARY in name]
    for mark in marks:
        shutil.rmtree(mark, ignore_errors=True) if os.path.isdir(mark) else os.unlink(mark)
    if marks or _Watch.started:
        return "code", _Watch.started or "the mark of an executed call exists"
    if _Watch.network:
        return "network", _Watch.network
    if _Watch.written or changed:
        return "written", _Watch.written or "a file of the input has changed"
    if peak > MEMORY or _lacks_memory(error):
        return "memory", f"{peak >> 20} MiB; {_last_lines(error)}"
    if isinstance(error, ZeroshiftError):
        flaw = sentence_flaw(str(error), names)
        return ("sentence", f"{flaw}: {error}") if flaw else (REFUSED, str(error))
    if error is not None:
        return "foreign", _last_lines(error)
    wrong = [tensor for tensor in _tensors(value) if not tensor.isfinite().all()]
    return ("not finite", "read without a word") if wrong else (READ, "")


def sentence_flaw(message: str, names: list[str]) -> str:
    """What is wrong with a message for users; empty: nothing."""
    if "weights_only" in message or "allow_pickle" in message:
        return "advice to read unsafely"
    if len(message) > 600:
        return f"{len(message)} characters"
    if "\n" in message.strip() or "Traceback" in message:
        return "several lines"
    if len(re.findall(r"[a-z)\"'`]\.(?=\s+[A-Z])", message)) > 3:
        return "more than a few sentences"
    if not any(os.path.basename(name) in message for name in (*names, _DRAWING)):
        return "names no file"
    return ""


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for one in value for tensor in _tensors(one)] if isinstance(value, list | tuple) else []


def _lacks_memory(error: BaseException | None) -> bool:
    """Whether an allocation failed, also if a message for users covers it."""
    while error is not None:
        if isinstance(error, MemoryError) or "allocate memory" in str(error) or "bad_alloc" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _last_lines(error: BaseException | None) -> str:
    """The exception, and the last places in our code and anywhere."""
    if error is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "zeroshift" in frame.filename]
    last = [*ours[-1:], *frames[-1:]]
    places = dict.fromkeys(f"{'/'.join(Path(one.filename).parts[-2:])}:{one.lineno}" for one in last)
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text} ({', '.join(places)})"


def _listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Name -> mode, size and time of change of everything in a folder."""
    listing = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = os.lstat(os.path.join(parent, name))
            size = 0 if name in folders else status.st_size
            listing[os.path.join(parent, name)] = (status.st_mode, size, 0 if name in folders else status.st_mtime_ns)
    return listing


def _start_measuring() -> int:
    """Limits the address space to 2 GiB more than now, and returns the memory in use."""
    status = Path("/proc/self/status")
    if not status.exists():
        return _peak()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of the case
    used = int(re.search(r"VmSize:\s+(\d+)", status.read_text())[1]) << 10  # type: ignore[index]
    _limit(used + MEMORY)
    return _peak()


def _limit(size: int | None) -> None:
    """Limits the address space; None: as far as it may grow."""
    _, largest = resource.getrlimit(resource.RLIMIT_AS)
    if size is None or largest not in (resource.RLIM_INFINITY, max(size, largest)):
        size = largest
    resource.setrlimit(resource.RLIMIT_AS, (size, largest))


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) << 10  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)
