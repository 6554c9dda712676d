"""The page: summary, tables, settings, images, JSON."""

import json
import re
from pathlib import Path

import pytest

from tests.helpers.benchmark_plans import make_plan, make_record
from zeroshift.miniature.benchmark import page as page_module
from zeroshift.miniature.benchmark.page import write_page
from zeroshift.miniature.benchmark.variants import TARGETS


def test_the_page_reports_targets_whose_truth_is_not_recognized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [make_record("truth", "zombie", 0, 0.9), make_record("truth", "elf", 0, 0.1)]
    records += [make_record("nada", target, 0, 0.5) for target in ("zombie", "elf")]
    monkeypatch.setattr(page_module, "finished_records", lambda plan: records)
    write_page(make_plan(tmp_path, "nada", "truth", targets=("zombie", "elf")), tmp_path / "page.md", "nada")
    text = (tmp_path / "page.md").read_text()
    assert "recognizes only 10 % of the true images of 'elf', so *domain* is left out there" in text
    assert "One seed. Images show the first seed" in text
    assert json.loads((tmp_path / "page.json").read_text())["trials"] == records


def test_an_empty_variant_does_not_restrict_the_common_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [make_record("nada", target, 0, 0.5) for target in ("zombie", "elf")]
    monkeypatch.setattr(page_module, "finished_records", lambda plan: records)
    write_page(make_plan(tmp_path, "nada", "ipl", targets=("zombie", "elf")), tmp_path / "page.md", "nada")
    text = (tmp_path / "page.md").read_text()
    assert "- **nada**: 50.0% in the domain" in text
    assert "- **ipl**: no target in common" in text


@pytest.mark.slow
def test_the_page_states_which_differences_are_conclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = tuple(TARGETS[:5])
    records = [make_record("nada", target, seed, 0.5) for target in targets for seed in (0, 1)]
    records += [make_record("ipl", target, seed, 0.75) for target in targets for seed in (0, 1)]
    signs = zip(targets, (1, -1, 1, -1, 0), strict=True)
    records += [make_record("air", target, 0, 0.5 + sign * 0.1) for target, sign in signs]
    monkeypatch.setattr(page_module, "finished_records", lambda plan: records)
    plan = make_plan(tmp_path, "nada", "ipl", "air", targets=targets, seeds=(0, 1))
    write_page(plan, tmp_path / "docs" / "page.md", "nada")
    text = (tmp_path / "docs" / "page.md").read_text()
    short = dict(re.findall(r"^- \*\*([\w-]+)\*\*: (.+)$", text.partition("## What was measured")[0], re.MULTILINE))
    assert short["nada"].startswith("50.0% in the domain, 0.500 from the truth, PSNR 0.5, 0.50 of the variance")
    assert short["nada"].endswith("The baseline.")
    assert "75.0% in the domain" in short["ipl"]
    assert "Against nada — better: domain, PSNR, classes, scalars, kept; worse: distance, maps, FD" in short["ipl"]
    assert "Against nada — inconclusive: domain" in short["air"]
    assert "**+0.250** [+0.250, +0.250]" in text
    assert "| ipl | 0.750 ± 0.000 |" in text
    assert "Means over seeds ± standard deviation." in text
    note = "(seconds and MiB are those of the first; results from others have none)"
    assert f"Measured on machine 0 and machine 1 {note}, with" in text
    assert "- **nada**: method = nada, truncation_psi = 1.0" in text
    assert re.search(r"- \*\*ipl\*\*: as nada, but method = ipl, .*prompts.base_text = none", text)
    assert "**Not finished: 5 of 30 trials.**" in text
    assert f"zeroshift benchmark --methods nada ipl air --targets {targets[0]}" in text
    for target in targets:
        assert (tmp_path / "docs" / "page" / f"{target.replace(' ', '-')}.png").exists()
        assert f"(page/{target.replace(' ', '-')}.png)" in text
    data = json.loads((tmp_path / "docs" / "page.json").read_text())
    assert data["compared"]["ipl"]["psnr"]["low"] == pytest.approx(0.25)
    assert data["trials"] == records
