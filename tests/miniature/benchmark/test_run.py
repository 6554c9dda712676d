"""An error in a trial becomes its message."""

from pathlib import Path
from typing import NoReturn

import pytest

from tests.helpers.benchmark_plans import make_plan
from zeroshift.miniature.benchmark import run
from zeroshift.miniature.benchmark.plan import BenchmarkPlan, Trial
from zeroshift.miniature.benchmark.records import record_path
from zeroshift.miniature.benchmark.run import run_trial


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
