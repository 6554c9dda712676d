"""The benchmark of one device (benchmarks/device.py) runs on a CPU, in its smallest form."""

import json
from pathlib import Path
from typing import Any

import pytest
from device import Arguments, main


@pytest.mark.slow
def test_everything_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variants = ("published choice", "choice by the training batch", "choice by the batch, compiled")
    results = main(Arguments(variants=variants, device="cpu", threads=1, tiny=True, out=tmp_path))
    assert json.loads((tmp_path / "device.json").read_text()) == results
    assert results["left out"] == []
    published, by_batch = results["adapt stage"]  # nothing is compiled in the smallest form
    assert (published["what"], by_batch["what"]) == variants[:2]
    assert by_batch["TFLOP"] < 0.7 * published["TFLOP"]

    def numbers(section: str, name: str) -> list[Any]:
        return [row[name] for row in results[section]]

    assert [row["what"] for row in results["ceilings"]] == ["float32", "bf16"]
    assert min(numbers("ceilings", "TFLOP/s") + numbers("prompt stage", "seconds")) > 0
    for section, count in (("noise inputs", 2), ("optimizer", 2), ("convolutions", 4)):
        assert len(numbers(f"parts: {section}", "ms")) == count
        assert min(numbers(f"parts: {section}", "ms")) > 0
    assert "choice by the training" in capsys.readouterr().out


def test_sections_beyond_the_budget_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    results = main(Arguments(device="cpu", threads=1, tiny=True, budget=0))
    assert len(results["left out"]) == 6
    assert not results["adapt stage"]
    assert "Left out after 0 s: ceilings" in " ".join(capsys.readouterr().out.split())


def test_unknown_variants_are_refused() -> None:
    with pytest.raises(SystemExit, match=r"Unknown variants \['fast'\]"):
        main(Arguments(variants=("fast",), device="cpu", tiny=True))
