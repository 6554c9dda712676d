"""A campaign of 200 cases, and proof that the campaign notices what it looks for."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from tests.fuzz import campaign, worker
from tests.fuzz.mutations import Files, mutate
from tests.fuzz.pickles import CANARY
from tests.fuzz.readers import READERS, Reader
from zeroshift.errors import ZeroshiftError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_200_cases_over_all_readers() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--cases", "200", "--seed", "1", "--workers", "1", "--seconds", "60"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    table = result.stdout[result.stdout.index("| reader |") :]
    assert all(f"| {name} |" in table for name in READERS)


def say(sentence: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> None:
        raise ZeroshiftError(sentence.format(folder / "file.json"))

    return read


def connect(folder: Path) -> None:
    socket.create_connection(("127.0.0.1", 9))


def die(folder: Path) -> None:
    os.abort()


def hide_failed_allocation(folder: Path) -> None:
    try:
        torch.empty(1 << 40)
    except RuntimeError as error:
        raise ZeroshiftError("file.json is damaged.") from error


CASES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a result": ("read", lambda folder: torch.ones(2)),
    "a refusal": ("refused", say("{} is damaged. Download it again.")),
    "an exception": ("foreign", lambda folder: {}["key"]),
    "the end of the process": ("foreign", die),
    "waiting": ("hang", lambda folder: time.sleep(60)),
    "2.5 GiB": ("memory", lambda folder: bytes(5 << 29)),
    "a hidden allocation": ("memory", hide_failed_allocation),
    "a request": ("network", connect),
    "a mark": ("code", lambda folder: os.mkdir(CANARY)),
    "a process": ("code", lambda folder: subprocess.run(["true"])),
    "a file elsewhere": ("written", lambda folder: Path("elsewhere").write_text("x")),
    "a changed input": ("written", lambda folder: (folder / "more").mkdir()),
    "no number": ("not finite", lambda folder: [torch.ones(1), torch.tensor(torch.nan)]),
    "no name": ("sentence", say("The file is damaged.")),
    "lines": ("sentence", say("{} is damaged.\nTraceback")),
    "bad advice": ("sentence", say("{} can be read with weights_only=False.")),
}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and measures memory as Linux does")
def test_every_fault_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (_, read) in CASES.items():
        monkeypatch.setitem(READERS, name, Reader(lambda folder: None, read))
    files: dict[str, Files] = {"plain": {"file.json": b'{"a": 1}', "other.json": b"{}"}}
    prepared = campaign.Campaign(tmp_path, tmp_path / "fixed", dict.fromkeys(CASES, files))
    prepared.fixed.mkdir()
    # Number 2 changes the content of a file, so that the sentences name a file that exists.
    outcomes = campaign.run(prepared, [(2, name) for name in CASES], seed=0, seconds=3)
    assert {case[1]: one.kind for case, one in outcomes.items()} == {name: kind for name, (kind, _) in CASES.items()}


def test_the_number_of_a_case_defines_it() -> None:
    files: Files = {"a.json": b'{"a": [1, 2, {"b": "text"}], "c": 0.5}', "b.bin": bytes(range(256)) * 20}
    corpus = {"reader": {"one": files, "two": {**files, "c.jsonl": b'{"step": 1}\n{"step": 2}\n'}}}
    cases = [worker.case_files(corpus, "reader", 3, number) for number in range(50)]
    assert cases == [worker.case_files(corpus, "reader", 3, number) for number in range(50)]
    assert len({str(case) for case in cases}) == 50
    assert campaign.plan(500)[:100] == campaign.plan(100)
    assert {reader for _, reader in campaign.plan(len(campaign.plan(100)))} == set(READERS)
    assert all(case in campaign.plan(2000) for case in campaign.plan(10, "image"))


def test_every_mutation_gives_files_that_differ() -> None:
    files: Files = {"a.json": b'{"a": [1, 2, {"b": "text"}], "c": 0.5}'}
    changed = [mutate(files, Random(number))[0] != files for number in range(300)]
    assert sum(changed) > 270


def test_messages_for_users() -> None:
    assert not worker.sentence_flaw("/x/a.pt is damaged. Download it again.", ["/x/a.pt"])
    assert worker.sentence_flaw("It is damaged.", ["a.pt"]) == "names no file"
    assert worker.sentence_flaw("a.pt " + 700 * "x", ["a.pt"]) == "705 characters"
