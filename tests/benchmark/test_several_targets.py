"""benchmarks/several_targets.py on one step of two targets."""

import json
from pathlib import Path

import pytest
from several_targets import Arguments, main

FEW = ("prompts.batch_size=2", "adapt.batch_size=1", "adapt.layer_batch_size=1", "adapt.augmentations=0")


@pytest.mark.slow
def test_lockstep_and_separate_runs_are_timed_in_turns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    found = main(Arguments(targets=(2,), steps=1, rounds=1, device="cpu", set=FEW, out=tmp_path))
    assert found["steps"] == {"prompts": 100, "adapt": 160}, "of the preset"
    separate, together = found["seconds per target"].values()
    assert set(separate) == set(together) == {"start", "prompts", "adapt", "whole"}
    for seconds in (separate, together):
        expected = seconds["start"] + 100 * seconds["prompts"] + 160 * seconds["adapt"]
        assert seconds["whole"] == pytest.approx(expected)
        assert min(seconds.values()) > 0
    saved = json.loads((tmp_path / "several_targets.json").read_text())
    assert saved["seconds per target"] == {"1": separate, "2": together}
    assert "2 together" in capsys.readouterr().out
