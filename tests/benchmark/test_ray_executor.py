"""Packs of trials as tasks of Ray: a killed worker is replaced, and the results equal those of single trials."""

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.evaluated_runs import FEW
from tests.helpers.executors import Here
from zeroshift.benchmark.executors import Executor, SharedWork, TrialJob
from zeroshift.benchmark.plan import GeneratorPlan, GeneratorTrial, parse_pair
from zeroshift.benchmark.ray_executor import RayExecutor
from zeroshift.benchmark.trials import finished_records, run_trials, work
from zeroshift.benchmark.variants import Variant
from zeroshift.io.claims import Claims
from zeroshift.io.tensor_files import read_metadata
from zeroshift.training.run_folder import RunFolder

TINY = {"adapt.steps": 4, "adapt.batch_size": 2, "adapt.augmentations": 0, "adapt.layer_batch_size": 1}
ARBITRARY = ("seconds", "memory", "gpu_memory", "packed", "notes")  # of two runs that are the same otherwise


def tiny_plan(out: Path, generator: Path, encoder: Path) -> GeneratorPlan:
    pairs = (parse_pair(str(generator), "zombie"), parse_pair(str(generator), "elf"))
    changes = {**TINY, "device": "cpu", "encoders": (str(encoder),), "checkpoint_every": 1}
    return GeneratorPlan(out, pairs, (Variant("nada", {"method": "nada"}),), metrics=("scs",), num=12, changes=changes)


def die_once(plan: GeneratorPlan, trials: Sequence[GeneratorTrial]) -> list[str | None]:
    """`run_trials`, in a process that kills itself in the middle of the first training of the folder."""
    log, marker = RunFolder.log, plan.out / "killed"

    def kill(run: RunFolder, stage: str, step: int, **values: Any) -> None:
        log(run, stage, step, **values)
        if step == 2 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    RunFolder.log = kill  # type: ignore[method-assign]
    return run_trials(plan, trials)


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    results = [{**result, "time": None} for result in record["results"]]
    return {name: value for name, value in record.items() if name not in ARBITRARY} | {"results": results}


def run_all(plan: GeneratorPlan, executor: Executor, run: Any = run_trials, pack: int = 1) -> dict[str, str]:
    """Runs all trials of a plan, and returns the problems."""
    shared = work(plan)
    job = TrialJob(partial(run, plan), preload=shared.job.preload)
    with Claims(plan.out) as claims:
        running = SharedWork(replace(shared, job=job), claims, pack=pack)
        assert len(list(running.run(executor))) == 2
    return running.failed


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
@pytest.mark.filterwarnings(FEW)
def test_a_killed_pack_resumes_on_another_worker_and_equals_single_trials(
    tmp_path: Path, tiny_generator: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray makes its workers wait for all other programs
    plans = [tiny_plan(tmp_path / name, tiny_generator, tiny_encoder) for name in ("here", "ray")]
    assert run_all(plans[0], Here()) == {}
    assert run_all(plans[1], RayExecutor(limit=1), die_once, pack=2) == {}
    assert (tmp_path / "ray" / "killed").exists(), "a worker was lost"
    here, remote = (list(map(comparable, finished_records(plan))) for plan in plans)
    assert here == remote
    assert ["packed" in record for plan in plans for record in finished_records(plan)] == [False, False, True, True]
    for trial in plans[0].trials():
        paths = [plan.folder(trial) / "generator.safetensors" for plan in plans]
        first, second = (path.read_bytes() for path in paths)
        assert first == second, read_metadata(paths[0])
    assert not list(tmp_path.rglob("*.claim-*"))
