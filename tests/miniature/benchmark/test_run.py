"""Trials in separate processes: an error affects only its trial."""

import os
import signal
from pathlib import Path
from typing import NoReturn

import pytest

from tests.helpers.benchmark_plans import make_plan
from zeroshift.miniature.benchmark import run
from zeroshift.miniature.benchmark.plan import BenchmarkPlan, Trial
from zeroshift.miniature.benchmark.records import record_path
from zeroshift.miniature.benchmark.run import run_trial, run_trials


def fail_or_die(plan: BenchmarkPlan, trial: Trial) -> str | None:
    """Seed 0 is killed, seed 1 fails, others succeed."""
    if trial.seed == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return "the disk is full" if trial.seed == 1 else None


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_killed_trial_does_not_stop_the_others(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "nada", seeds=(0, 1, 2), processes=2)
    problems = {trial.seed: problem for trial, problem in run_trials(plan, plan.trials(), fail_or_die)}
    assert problems == {
        0: "its process ended with exit code -9, possibly out of memory",
        1: "the disk is full",
        2: None,
    }


def test_a_failed_trial_returns_its_message_and_leaves_no_record(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, 'nada:target_images=["missing.png"]')
    (trial,) = plan.trials()
    problem = run_trial(plan, trial)
    assert problem is not None
    assert "There is no image missing.png" in problem
    assert not record_path(plan, trial).exists()


def test_unexpected_errors_are_reported_with_their_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(plan: BenchmarkPlan, trial: Trial) -> NoReturn:
        raise IndexError("list index out of range")

    monkeypatch.setattr(run, "_adapt", fail)
    plan = make_plan(tmp_path, "nada")
    assert run_trial(plan, plan.trials()[0]) == "IndexError: list index out of range"
