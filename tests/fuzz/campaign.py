"""The campaign: makes the undamaged files, shares the cases among child processes, and counts what happened."""

import contextlib
import hashlib
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from tests.fuzz import seed_files
from tests.fuzz.readers import READERS
from tests.fuzz.worker import FAULTS, READ, REFUSED, Corpus, Outcome, Workplace, case_files, run_case, write_files
from zeroshift.errors import ZeroshiftError

__all__ = ["Campaign", "Case", "keep", "plan", "prepared", "run", "table"]

SECONDS = 20  # limit of a case
_CASES_PER_WORKER = 500  # then a new process takes over
_DIED = "the process died"
_processes: Any = multiprocessing.get_context("fork")  # a new worker needs no imports

Case = tuple[int, str]  # number and reader


@dataclass
class Campaign:
    """The undamaged files, and where they are."""

    root: Path
    fixed: Path
    corpus: Corpus = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """A hash of the undamaged files: cases can be repeated as long as it is the same."""
        whole = hashlib.sha256()
        for reader, seeds in sorted(self.corpus.items()):
            for seed, files in sorted(seeds.items()):
                whole.update(f"{reader}/{seed}".encode())
                for name, content in sorted(files.items()):
                    whole.update(name.encode() + hashlib.sha256(content).digest())  # type: ignore[arg-type]
        return whole.hexdigest()[:12]


@contextlib.contextmanager
def prepared(readers: Sequence[str]) -> Iterator[Campaign]:
    """Makes the undamaged files of the readers, and reads each once, which also imports what the workers need."""
    before, cache = Path.cwd(), os.environ.get("ZEROSHIFT_CACHE")
    with tempfile.TemporaryDirectory(prefix="zeroshift-fuzz-") as name:
        root = Path(name)
        campaign = Campaign(root, root / "fixed")
        campaign.fixed.mkdir()
        os.environ["ZEROSHIFT_CACHE"] = str(root / "cache")
        try:
            os.chdir(campaign.fixed)
            torch.set_num_threads(1)
            torch.manual_seed(0)
            with warnings.catch_warnings(), _quiet():
                warnings.simplefilter("ignore")
                seed_files.fixed_files(campaign.fixed)
                seed_files.register_open_clip_model(root)
                for number, reader in enumerate(readers):
                    campaign.corpus[reader] = _make(reader, root / "seeds" / str(number))
            yield campaign
        finally:
            os.chdir(before)
            if cache is None:
                del os.environ["ZEROSHIFT_CACHE"]
            else:
                os.environ["ZEROSHIFT_CACHE"] = cache


def _make(reader: str, folder: Path) -> dict[str, Any]:
    """The seeds of a reader. It must read them, except that formats of images may all be refused but one."""
    folder.mkdir(parents=True)
    refused = 0
    torch.manual_seed(0)
    READERS[reader].make(folder)
    seeds: dict[str, Any] = {}
    for seed in sorted(folder.iterdir()):
        paths = [path for path in sorted(seed.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        seeds[seed.name] = {str(path.relative_to(seed)): _steady(path.read_bytes()) for path in paths}
        try:
            READERS[reader].read(seed)
        except ZeroshiftError:
            refused += 1
            if reader != "image" or refused == len(list(folder.iterdir())):
                raise
    shutil.rmtree(folder)
    for name, files in list(seeds.items()):  # a checksum would hide what else is checked
        without = {path: _without_checksum(content) for path, content in files.items()}
        if without != files:
            seeds[f"{name}, no checksum"] = without
    return seeds


def _without_checksum(content: bytes) -> bytes:
    """One of our files as an earlier version wrote it."""
    length = int.from_bytes(content[:8], "little")
    if content[8:9] == b"{" and length < len(content):
        header = json.loads(content[8 : 8 + length])
        if header.get("__metadata__", {}).pop("sha256", None) is None:
            return content
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + length :]
    place = content.rfind(b"zeroshift-sha256:")  # the comment of a zip archive, after its length
    return content[: place - 2] + b"\0\0" if place > 0 and content.startswith(b"PK") else content


def _steady(content: bytes) -> bytes:
    """The content without what differs between processes: order of metadata in safetensors, addresses as names."""
    length = int.from_bytes(content[:8], "little")
    if content[8:9] == b"{" and length < len(content):
        header = json.loads(content[8 : 8 + length])
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + length :]
    if content.startswith(b"\x80"):  # torch.save's old format names storages after their addresses
        return re.sub(rb"(?<=X\x0e\0\0\0)\d{14}", b"1" * 14, content)
    return content


def plan(cases: int, only: str | None = None) -> list[Case]:
    """The first cases, or the first ones of one reader. The number of a case defines its reader."""
    rounds = range(max(reader.share for reader in READERS.values()))
    turns = [name for turn in rounds for name, reader in READERS.items() if turn < reader.share]
    numbered: list[Case] = []
    number = 0
    while len(numbered) < cases:
        name = turns[number % len(turns)]
        if only in (None, name):
            numbered.append((number, name))
        number += 1
    return numbered


class _Worker:
    """A child process with one case at a time."""

    def __init__(self, campaign: Campaign, seed: int, number: int):
        self.place = Workplace(campaign.root / f"worker-{number}")
        self.connection, child = _processes.Pipe()
        self.process = _processes.Process(target=_serve, args=(child, campaign, seed, self.place), daemon=True)
        self.process.start()
        child.close()
        self.case: Case | None = None
        self.started, self.done = 0.0, 0

    def begin(self, case: Case) -> None:
        self.case, self.started = case, math.inf  # until reading begins: making the files does not count
        self.connection.send(case)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()
        shutil.rmtree(self.place.root, ignore_errors=True)


def _serve(connection: Connection, campaign: Campaign, seed: int, place: Workplace) -> None:
    with _quiet():
        place.enter(campaign.fixed)
        while _asked(connection):
            case, reader = connection.recv()
            outcome = run_case(campaign.corpus, reader, seed, case, place, begin=lambda: connection.send(None))
            connection.send(outcome)


def _asked(connection: Connection) -> bool:
    """Waits for a case. False if the parent process was killed."""
    parent = os.getppid()
    while not connection.poll(1):
        if os.getppid() != parent:
            return False
    return True


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the output of libraries."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def run(
    campaign: Campaign,
    cases: Sequence[Case],
    seed: int,
    workers: int = 1,
    seconds: float = SECONDS,
    report: Callable[[Case, Outcome], None] = lambda case, outcome: None,
) -> dict[Case, Outcome]:
    """Runs the cases. A worker that takes too long or dies is replaced.

    Args:
        seconds: limit of a case.
        report: called after each case.
    """
    waiting, outcomes = list(reversed(cases)), {}
    running: list[_Worker] = []
    number = 0
    try:
        while waiting or any(worker.case for worker in running):
            while len(running) < workers and len(running) < len(waiting) + sum(bool(worker.case) for worker in running):
                running.append(_Worker(campaign, seed, number := number + 1))
            for worker in running:
                if worker.case is None and waiting:
                    worker.begin(waiting.pop())
            ready = wait([worker.connection for worker in running if worker.case], timeout=0.5)
            for worker in list(running):
                outcome = _outcome(worker, worker.connection in ready, campaign, seed, seconds)
                if outcome is not None and worker.case is not None:
                    outcomes[worker.case] = outcome
                    report(worker.case, outcome)
                    worker.case, worker.done = None, worker.done + 1
                    unfit = outcome.kind in ("hang", "memory") or outcome.detail.startswith(_DIED)
                    if unfit or worker.done == _CASES_PER_WORKER:
                        worker.end()
                        running.remove(worker)
    finally:
        for worker in running:
            worker.end()
    return outcomes


def _outcome(worker: _Worker, ready: bool, campaign: Campaign, seed: int, seconds: float) -> Outcome | None:
    """The outcome of the worker's case, if it has ended."""
    if worker.case is None:
        return None
    number, reader = worker.case
    if ready:
        try:
            received: Outcome | None = worker.connection.recv()
        except (EOFError, ConnectionError):
            worker.process.join()
            code = worker.process.exitcode
            name = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
            _, mutation = case_files(campaign.corpus, reader, seed, number)
            return Outcome(reader, mutation, "foreign", f"{_DIED}: {name}")
        if received is None:  # the files are written, and reading begins
            worker.started = time.monotonic()
        return received
    if time.monotonic() - worker.started <= seconds:
        return None
    _, mutation = case_files(campaign.corpus, reader, seed, number)
    return Outcome(reader, mutation, "hang", f"stopped after {seconds:.0f} s", seconds)


def keep(campaign: Campaign, case: Case, seed: int, folder: Path) -> None:
    """Writes the files of a case into a new folder."""
    files, _ = case_files(campaign.corpus, case[1], seed, case[0])
    write_files(files, folder)


def table(outcomes: dict[Case, Outcome]) -> str:
    """The results as a Markdown table, one row per reader."""
    kinds = (READ, REFUSED, *FAULTS)
    rows = [f"| reader | cases | {' | '.join(kinds)} | slowest | memory |", "| --- |" + " ---: |" * (len(kinds) + 3)]
    for reader in [name for name in READERS if any(name == one.reader for one in outcomes.values())]:
        rows.append(_row(reader, [one for one in outcomes.values() if one.reader == reader]))
    return "\n".join([*rows, _row("**all**", list(outcomes.values()))])


def _row(name: str, outcomes: list[Outcome]) -> str:
    counts = Counter(one.kind for one in outcomes)
    numbers = [len(outcomes), *(counts[kind] for kind in (READ, REFUSED, *FAULTS))]
    slowest, peak = max(one.seconds for one in outcomes), max(one.peak for one in outcomes)
    return f"| {name} | {' | '.join(map(str, numbers))} | {slowest:.1f} s | {peak >> 20} MiB |"
