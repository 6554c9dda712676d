"""Finished runs of a few steps, made once, and a studio on a copy of them."""

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import zeroshift
from zeroshift.studio.engine.studio import Studio, opened_studio

RUNS = {"zombie": "zombie", "sketch": "pencil sketch"}


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def free_port() -> int:
    """A port that no other worker of the tests takes at the same time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs of RUNS, of one step each."""
    folder = tmp_path_factory.mktemp("studio") / "runs"
    for name, target in RUNS.items():
        config = zeroshift.preset(
            "miniature", target=target, method="nada", steps=1, adapt={"batch_size": 1, "layer_batch_size": 1},
            preview_samples=2,
        )  # fmt: skip
        zeroshift.adapt(config, folder / name)
    return folder


@pytest.fixture
def runs(finished_runs: Path, tmp_path: Path) -> Path:
    """A copy of the finished runs."""
    return Path(shutil.copytree(finished_runs, tmp_path / "runs"))


@pytest.fixture
def studio(runs: Path) -> Iterator[Studio]:
    with opened_studio(runs) as opened:
        yield opened
