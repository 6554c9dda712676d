"""benchmarks/run_parts.py on a run of one step."""

import pytest
import run_parts


def test_the_parts_of_a_run_are_its_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name, _ in run_parts.PARTS:  # the clock replaces them; they are put back after the test
        monkeypatch.setattr(owner, name, getattr(owner, name))
    options = ("--target", "zombie", "--method", "nada", "--adapt.steps", "1", "--preview-samples", "2")
    seconds = run_parts.main(options)
    whole = seconds.pop("whole run")
    assert sum(seconds.values()) == pytest.approx(whole)
    assert {part for *_, part in run_parts.PARTS} | {"imports", "everything else"} == set(seconds)
    for part in ("steps of all stages", "report", "previews", "estimate of time and memory"):
        assert 0 < seconds[part] < whole
