"""`zeroshift benchmark --generator` from end to end, on a tiny generator."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.evaluated_runs import FEW, Counting, make_pictures
from tests.helpers.executors import Here
from zeroshift.cli.main import main

TINY = ["adapt.batch_size=2", "adapt.augmentations=0", "adapt.layer_batch_size=1", "prompts.steps=1"]
TINY += ["prompts.batch_size=2", "device=cpu"]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Runs trials in the process of the test, and lists them."""
    here = Here()
    monkeypatch.setattr("zeroshift.cli.execution.make_executor", lambda options, on_gpus: here)
    return here.done


def arguments(generator: Path, encoder: Path, out: Path) -> list[str]:
    words = ["benchmark", "--generator", str(generator), "--targets", "zombie", "photo:elf", "--steps", "1"]
    return [*words, "--num", "12", "--processes", "1", "--out", str(out), "--set", *TINY, f'encoders=["{encoder}"]']


@pytest.mark.slow
@pytest.mark.filterwarnings(FEW)
def test_the_command_from_end_to_end(
    tmp_path: Path, tiny_generator: Path, tiny_encoder: Path, in_this_process: list[Any],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = [*arguments(tiny_generator, tiny_encoder, tmp_path), "--metrics", "scs", f"fd:open_clip:{tiny_encoder}"]
    assert main(command) == 0, capsys.readouterr().err
    assert len(in_this_process) == 4
    page = (tmp_path / "benchmark.md").read_text()
    assert "| source | 2 | 1.000 |" in page, "the unadapted source is a row"
    assert "the unadapted source has 1.000" in page
    assert "Left out: fd:open_clip:" in page, "without reference images; not fatal"
    assert page.count("benchmark/photo-to-elf.png") == 1
    assert (tmp_path / "benchmark" / "photo-to-elf.png").exists()
    record = json.loads((tmp_path / "benchmark.json").read_text())["trials"][0]
    assert record["seconds"] > 0
    assert record["memory"] > 0
    with open(tmp_path / "benchmark.csv", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 4
    assert r"\toprule" in (tmp_path / "benchmark.tex").read_text()

    assert main(command) == 0
    assert len(in_this_process) == 4, "finished trials are kept, and the files of the page replaced"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("generator.safetensors")}
    make_pictures(tmp_path / "real" / "zombie")
    assert main([*command, "--references", str(tmp_path / "real")]) == 0
    assert len(in_this_process) == 6, "only the target with new reference images is measured again"
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("generator.safetensors")}
    assert "14 references" in (tmp_path / "benchmark.md").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings(FEW)
def test_the_paper_on_a_tiny_generator(
    tmp_path: Path, tiny_generator: Path, tiny_encoder: Path, in_this_process: list[Any],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The protocol with stand-ins for its networks, and the tiny encoder's words in the place of its labels."""

    class Standing(Counting):
        provides = frozenset({"features", "classes", "edges", "maps"})

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean(dim=1) if self.maps == "edges" else super().forward(images)

        maps = ""

    def load(name: str, device: torch.device) -> Standing:
        network = Standing()
        network.maps = "edges" if name == "hed" else ""
        return network

    monkeypatch.setattr("zeroshift.evaluation.plan.load_network", load)
    command = [*arguments(tiny_generator, tiny_encoder, tmp_path), "--paper", "--pack", "2"]
    assert main(command) == 0, capsys.readouterr().err
    assert {trial.variant.name for trial in in_this_process} == {"nada", "ipl"}
    record = json.loads((tmp_path / "benchmark.json").read_text())["trials"][0]
    assert set(record["measures"]) == {"is:inception", "scs:hed", "id:face"}
    assert set(record["left_out"]) == {"sifid"}
    page = (tmp_path / "benchmark.md").read_text()
    assert "4 of the 4 trials were trained in packs (`--pack`)" in page
    assert "MiB" not in page


def test_missing_options_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--generator", "miniature", "--out", str(tmp_path / "a")]) == 1
    assert "Name the targets" in capsys.readouterr().err
    assert main(["benchmark", "--paper", "--targets", "elf", "--out", str(tmp_path / "a")]) == 1
    assert "Name the generator" in capsys.readouterr().err
    assert main(["benchmark", "--generator", "miniature", "--targets", "elf", "--methods", "niada"]) == 1
    assert "niada" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
