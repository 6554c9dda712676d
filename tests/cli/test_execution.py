"""Options of executors, and which of several commands writes the page."""

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.test_executors import numbered_work
from tests.helpers.executors import Here
from zeroshift.benchmark.processes import LocalPool
from zeroshift.benchmark.ray_executor import RayExecutor
from zeroshift.cli.execution import ExecutionOptions, make_executor, run_work
from zeroshift.errors import ZeroshiftError
from zeroshift.io.claims import Claims


def executor(on_gpus: bool = True, **options: Any) -> dict[str, Any]:
    """The attributes of the executor of some options."""
    return vars(make_executor(ExecutionOptions(**options), on_gpus=on_gpus))


def pool(processes: int, threads: int, gpus: float) -> dict[str, Any]:
    return vars(LocalPool(processes, threads, gpus))


def test_the_local_pool_divides_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeroshift.benchmark.processes.cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert executor() == pool(8, 1, 0)
    assert executor(processes=3) == pool(3, 2, 0)
    assert executor(cpus_per_task=3) == pool(2, 3, 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert executor() == pool(4, 2, 1)
    assert executor(gpus_per_task=2) == pool(2, 4, 2)
    assert executor(gpus_per_task=0.5) == pool(8, 1, 0.5)
    assert executor(gpus_per_task=0) == pool(8, 1, 0)
    assert executor(processes=2) == pool(2, 4, 1)
    assert executor(processes=16) == pool(16, 1, 0.25), "several trials share a GPU"
    assert executor(on_gpus=False) == pool(8, 1, 0)


def test_ray_takes_its_resources_from_the_options() -> None:
    options = {"executor": "ray", "address": "auto", "cpus_per_task": 4, "retries": 1, "processes": 2}
    assert executor(**options) == vars(RayExecutor("auto", cpus=4, gpus=None, retries=1, limit=2))
    assert executor(on_gpus=False, **options) == vars(RayExecutor("auto", cpus=4, gpus=0, retries=1, limit=2))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"processes": 0}, "--processes is 0; it must be at least 1"),
        ({"cpus_per_task": 0}, "--cpus-per-task is 0; it must be at least 1"),
        ({"gpus_per_task": 1.5}, "--gpus-per-task is 1.5; it must be a whole number, or between 0 and 1"),
        ({"gpus_per_task": -1}, "--gpus-per-task is -1; it must be"),
        ({"gpus_per_task": float("nan")}, "--gpus-per-task is nan; it must be"),
        ({"gpus_per_task": 2}, "1 trials with 2 GPUs each do not fit the 0 GPUs here"),
        ({"pack": 0}, "--pack is 0; it must be at least 1"),
        ({"retries": -1}, "--retries is -1; it must be at least 0"),
        ({"address": "auto"}, "Add --executor ray, or leave it out"),
    ],
)
def test_impossible_options_are_refused(
    options: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ZeroshiftError, match=sentence):
        executor(**options)


def test_the_miniature_world_takes_no_gpus() -> None:
    with pytest.raises(ZeroshiftError, match="computes on the CPU"):
        executor(on_gpus=False, gpus_per_task=1)


def test_without_ray_a_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ZeroshiftError, match=r"needs the package ray: pip install 'zeroshift\[ray\]'"):
        list(RayExecutor().run(numbered_work(tmp_path, 1).job, [[0]]))


def test_a_wrong_address_is_refused_at_once(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ZeroshiftError, match=rf"There is no Ray cluster at {address} \(.*refused\)"):
        list(RayExecutor(address).run(numbered_work(tmp_path, 1).job, [[0]]))


def test_the_last_command_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("zeroshift.cli.execution.make_executor", lambda options, on_gpus: Here())
    pages: list[int] = []

    def command(**options: Any) -> None:
        work = numbered_work(tmp_path, 3)
        run_work(work, ExecutionOptions(**options), tmp_path, lambda: pages.append(1), on_gpus=False)

    with Claims(tmp_path) as other:
        assert other.take(tmp_path / "1.json")
        command(shard="1/2")
        assert pages == []
        assert "Other commands still run 1 trials: 1 (" in capsys.readouterr().out
        command(pages_only=True)
        assert pages == [1], "on demand"
        other.release(tmp_path / "1.json", "it burns.")
        with monkeypatch.context() as clock:  # a command that began before the failure
            clock.setattr("zeroshift.io.claims._now", lambda folder: 0.0)
            with pytest.raises(ZeroshiftError, match=r"1 trials failed; the others are kept. 1: it burns. \(on "):
                command(shard="2/2")
        assert pages == [1, 1]
    command()
    assert pages == [1, 1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.json", "1.json", "2.json"]


def test_measuring_again_is_for_one_command(tmp_path: Path) -> None:
    work = numbered_work(tmp_path, 1, again=True)
    with pytest.raises(ZeroshiftError, match="omit --shard"):
        run_work(work, ExecutionOptions(shard="1/2"), tmp_path, lambda: None, on_gpus=False)
