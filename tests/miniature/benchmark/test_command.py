"""`zeroshift benchmark` from end to end."""

import json
from pathlib import Path

import pytest

from zeroshift.cli.main import main
from zeroshift.methods.base import Method
from zeroshift.methods.registry import METHODS
from zeroshift.miniature.benchmark.measures import MEASURES
from zeroshift.miniature.benchmark.sheets import held_out_people, read_people
from zeroshift.miniature.world.renderer import render


def words(text: str) -> str:
    """A message without the line breaks of the terminal."""
    return " ".join(text.split())


@pytest.mark.slow
def test_the_command_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["benchmark", "--out", str(tmp_path), "--methods", "nada", "--targets", "pencil sketch of a zombie"]
    arguments += ["--seeds", "1", "--people", "16", "--fit-steps", "0", "--processes", "2", "--steps", "1"]
    arguments += ["--set", "adapt.batch_size=2", "adapt.augmentations=0", "adapt.layer_batch_size=1"]
    assert main(arguments) == 0
    assert "benchmark.md" in capsys.readouterr().out
    page = (tmp_path / "benchmark.md").read_text()
    assert "(a held-out pair)" in page
    folder = tmp_path / "trials" / "pencil-sketch-of-a-zombie"
    assert sorted(path.name for path in folder.iterdir()) == ["nada", "source", "truth"]
    (truth,) = (json.loads(path.read_text())["measures"] for path in (folder / "truth").glob("seed1-*.json"))
    (source,) = (json.loads(path.read_text())["measures"] for path in (folder / "source").glob("seed1-*.json"))
    assert {measure.key for measure in MEASURES} <= {*truth, "processor_seconds", "memory"}
    assert truth["psnr"] > source["psnr"]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    for text, title in (("Sketches are easy.\n", "# Benchmark in the miniature world"), ("# Ease\n\nSo.\n", "# Ease")):
        (tmp_path / "conclusion.md").write_text(text)
        assert main([*arguments, "--pages-only", "--conclusion", str(tmp_path / "conclusion.md")]) == 0
        first, conclusion, *_ = (tmp_path / "benchmark.md").read_text().split("\n\n")
        assert (first, conclusion) == (title, text.strip().removeprefix("# Ease\n\n"))
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}

    capsys.readouterr()
    page, previous = str(tmp_path / "benchmark.md"), str(tmp_path / "benchmark.json")
    repeated = [*arguments, "--pages-only", "--previous", previous]
    assert main([*repeated, "--page", page]) == 0
    assert "3 of the 3 adaptations of this benchmark are taken from" in words(capsys.readouterr().out)
    kept = (tmp_path / "benchmark.json").read_text()
    assert main([*repeated, "--page", page, "--people", "17"]) == 1
    assert "would lose 3 of its 3 adaptations" in words(capsys.readouterr().err)
    assert (tmp_path / "benchmark.json").read_text() == kept


@pytest.mark.slow
def test_diffusion_models_start_from_photos(tmp_path: Path) -> None:
    arguments = ["benchmark", "--out", str(tmp_path), "--methods", "diffusionclip-autoencoder", "--targets", "zombie"]
    arguments += ["--seeds", "0", "--people", "16", "--processes", "2", "--steps", "1", "--fit-steps", "0"]
    arguments += ["--set", "num_latents=2"]
    arguments += ["adapt.augmentations=0", "sampling.noise_steps=1", "sampling.steps=3", "sampling.invert_steps=6"]
    assert main(arguments) == 0
    folder = tmp_path / "trials" / "zombie"
    assert {path.name for path in folder.iterdir()} == {"diffusionclip-autoencoder", "source-autoencoder", "truth"}
    photos = render(held_out_people(16))
    (returned,) = (read_people(path, 16) for path in (folder / "source-autoencoder").glob("seed0-*.png"))
    assert float((returned - photos).square().mean()) < 0.05, "the source reconstructs the photos"
    page = (tmp_path / "benchmark.md").read_text()
    assert "`source-autoencoder` is the unadapted diffusion autoencoder" in page
    assert "`source` is" not in page


def test_impossible_options_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--out", str(tmp_path), "--methods", "ipl", "--baseline", "nada"]) == 1
    assert "'nada' cannot be the baseline" in words(capsys.readouterr().err)
    assert main(["benchmark", "--out", str(tmp_path), "--conclusion", str(tmp_path / "missing.md")]) == 1
    assert "missing.md cannot be read" in words(capsys.readouterr().err)


def test_the_help_lists_registered_methods(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Mine(Method):
        pass

    monkeypatch.setattr(METHODS, "_loaded", {**METHODS._loaded, "mine": Mine})
    assert main(["benchmark", "--help"]) == 0
    text = words(capsys.readouterr().out)
    assert "diff-ipl-autoencoder" in text
    assert ", mine." in text
    assert "JSON of an earlier page" in text.replace("│ ", ""), "options are explained"
