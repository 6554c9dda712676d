"""Trials alone and in packs; an error in a trial becomes its message."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from tests.helpers.benchmark_plans import make_plan
from zeroshift.benchmark.tables import packed_note
from zeroshift.miniature.benchmark import run
from zeroshift.miniature.benchmark.plan import BenchmarkPlan, Trial
from zeroshift.miniature.benchmark.records import finished_records, image_path, record_path
from zeroshift.miniature.benchmark.run import run_trials
from zeroshift.miniature.benchmark.variants import parse_variant


def test_a_failed_trial_returns_its_message_and_leaves_no_record(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, 'nada:target_images=["missing.png"]')
    (trial,) = plan.trials()
    (problem,) = run_trials(plan, [trial])
    assert problem is not None
    assert "There is no image missing.png" in problem
    assert not record_path(plan, trial).exists()


def test_unexpected_errors_are_reported_with_their_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(plan: BenchmarkPlan, trials: Sequence[Trial]) -> NoReturn:
        raise IndexError("list index out of range")

    monkeypatch.setattr(run, "_adapt", fail)
    plan = make_plan(tmp_path, "nada")
    assert run_trials(plan, plan.trials()[:1]) == ["IndexError: list index out of range"]


@pytest.mark.slow
def test_a_pack_has_the_images_of_single_trials_and_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of three trials fails; another one is measured again, and not adapted again."""
    monkeypatch.setattr(run, "_measure", lambda plan, trial: {"psnr": 20.0})
    plans = [replace(make_plan(tmp_path / name, "nada"), targets=("zombie", "robot")) for name in ("alone", "packed")]
    assert [run_trials(plans[0], [trial]) for trial in plans[0].trials()] == [[None], [None]]
    broken = Trial(parse_variant('nada:target_images=["missing.png"]'), "elf", 0)
    first, problem, second = run_trials(plans[1], [plans[1].trials()[0], broken, plans[1].trials()[1]])
    assert (first, second) == (None, None)
    assert problem is not None
    assert "There is no image missing.png" in problem
    for trial in plans[0].trials():
        alone, packed = (image_path(plan, trial).read_bytes() for plan in plans)
        assert alone == packed
        record = json.loads(record_path(plans[1], trial).read_text())
        assert record["packed"]
        assert not {"seconds", "processor_seconds", "memory"} & set(record)
    (page,) = packed_note(finished_records(plans[1]))
    assert page.startswith("2 of the 2 trials were trained in packs (`--pack`)")


def test_bounds_are_in_no_pack(tmp_path: Path) -> None:
    plan = replace(make_plan(tmp_path, "source", "nada", "truth"), targets=("zombie", "robot", "elf"), seeds=(0, 1))
    packs = [[str(trial) for trial in pack] for pack in run.work(plan).packs(plan.trials(), 2)]
    assert packs[0] == ["source, zombie, seed 0"]
    assert packs[1] == ["nada, zombie, seed 0", "nada, robot, seed 0"]
    assert sorted(map(len, packs)) == [1] * 8 + [2, 2]
