"""How far a run is, read from its folder."""

import json
from pathlib import Path

import pytest
from PIL import Image

import zeroshift
from zeroshift.studio.engine.progress import RunProgress, Watcher
from zeroshift.training.run_folder import RunFolder


def made(folder: Path, records: list[tuple[str, int]], previews: list[str], method: str = "ipl") -> RunProgress:
    """The progress of a run of 100 + 160 steps (ipl) with these records (stage, step) and previews."""
    config = zeroshift.preset("miniature", target="zombie", method=method, steps=160)
    run = RunFolder.open(folder, config)
    run.write_config()
    lines = [json.dumps({"stage": stage, "step": step, "loss": 1.0, "seconds": 2.0}) for stage, step in records]
    run.metrics_path.write_text("".join(f"{line}\n" for line in lines))
    (folder / "previews").mkdir()
    for name in previews:
        Image.new("RGB", (4, 4)).save(folder / "previews" / f"{name}.png")
    return Watcher().progress(run)


def test_the_first_stage_counts(tmp_path: Path) -> None:
    found = made(tmp_path, [("prompts", 0), ("prompts", 84)], ["00000000", "prompts-00000050"])
    assert (found.part, found.parts, found.step, found.steps) == (1, 2, 85, 100)
    assert (found.done, found.all_steps) == (85, 260)
    assert found.seconds_left == pytest.approx(30)
    assert found.preview is not None
    assert found.preview.stem == "prompts-00000050"
    assert found.preview_is_table


def test_samples_are_shown_when_the_generator_is_adapted(tmp_path: Path) -> None:
    records = [("prompts", 99), ("adapt", 0), ("adapt", 19)]
    found = made(tmp_path, records, ["00000000", "00000020", "prompts-00000100"])
    assert (found.part, found.parts, found.step, found.steps) == (2, 2, 20, 160)
    assert (found.done, found.all_steps) == (120, 260)
    assert found.preview is not None
    assert found.preview.stem == "00000020"
    assert not found.preview_is_table


def test_a_method_with_one_stage(tmp_path: Path) -> None:
    found = made(tmp_path, [], ["00000000"], "nada")
    assert (found.part, found.parts, found.step, found.steps, found.done, found.all_steps) == (1, 1, 0, 160, 0, 160)
    assert found.preview is not None
