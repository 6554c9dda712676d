"""Methods from outside the package: docs/extending/method.md, and tests/example_package through the command line."""

import json
import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from zeroshift.cli.main import main
from zeroshift.clip.loading import load_encoder
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.methods.configure import changed, flat, preset, setting_names
from zeroshift.methods.registry import METHODS
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.trainer import adapt

PAGE = Path(__file__).parents[2] / "docs" / "extending" / "method.md"


@pytest.fixture
def documented(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The code blocks of the page, executed in order, except the one that runs an adaptation."""
    monkeypatch.setattr(METHODS, "_loaded", dict(METHODS._loaded))
    scope: dict[str, Any] = {"__name__": "documented"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        if "adapt(preset(" not in block:
            exec(block, scope)
    return scope


@pytest.mark.parametrize("method", ["plain-labels", "pulled", "centered"])
def test_documented_methods_train_and_resume(
    documented: dict[str, Any], method: str, tiny_generator: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    config = AdaptConfig(
        target="zombie",
        method=method,
        generator=str(tiny_generator),
        encoders=(str(tiny_encoder),),
        device="cpu",
        options=METHODS[method].Options(),
        adapt=AdaptStage(steps=3, layers=("all",), noise_mode="const"),
    )
    whole = adapt(config, RunFolder.open(tmp_path / "run", config))
    stages = [record["stage"] for record in whole.history]
    assert stages == ["center"] * 5 * (method == "centered") + ["adapt"] * 3
    assert ("pull" in whole.history[-1]) == (method == "pulled")
    run = RunFolder.read(tmp_path / "run")
    assert run.finished
    again = load_generator(run.generator_path)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.generator.parameters(), strict=True))


def test_documented_settings_are_settings(documented: dict[str, Any]) -> None:
    config = preset("miniature", target="zombie", method="pulled")
    assert (config.options.pull, config.adapt.steps) == (0.2, 120)  # type: ignore[attr-defined]
    assert flat(changed(config, {"pull": 0.5}))["pull"] == 0.5
    assert "pull" not in flat(preset("miniature", target="zombie", method="plain-labels"))


def test_an_installed_method_works_on_the_command_line(
    example_package: Path,
    tiny_generator: Path,
    tiny_encoder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)

    def zeroshift(*arguments: str) -> str:
        code = main(arguments)
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    page = zeroshift("adapt", "--method", "from-images", "--help-all")
    assert "--warm-up.steps" in page
    assert "--prompts.steps" not in page
    assert "from-images" in zeroshift("adapt", "--help")
    assert "from-images" in zeroshift("benchmark", "--help")
    run = (
        "adapt", "--method", "from-images", "--target", "zombie", "--generator", str(tiny_generator),
        "--encoder", str(tiny_encoder), "--steps", "2", "--warm-up.steps", "3", "--out", "run",
    )  # fmt: skip
    zeroshift(*run)
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert settings["warm_up"] == {"steps": 3, "batch_size": 4}
    assert "prompts" not in settings
    records = RunFolder.read(tmp_path / "run").records()
    assert [one["stage"] for one in records] == ["warm-up"] * 3 + ["adapt"] * 2
    assert "Estimating the center of the source images" in (tmp_path / "run" / "report.html").read_text()
    assert "already finished" in zeroshift(*run)
    zeroshift("generate", "run", "--num", "2", "--out", "samples")
    assert (tmp_path / "samples" / "grid.png").exists()


def test_a_method_runs_on_an_example_family(example_package: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    """Family, method and stage of another package together: train, save, reload, resume bit for bit."""
    encoder = load_encoder(str(tiny_encoder))
    config = AdaptConfig(
        target="zombie",
        method="from-images",
        generator="example",
        family="example_family",
        encoders=("tiny",),
        device="cpu",
        options=METHODS["from-images"].Options(),
        adapt=AdaptStage(steps=4, lr=0.01),
    )
    whole = adapt(config, RunFolder.open(tmp_path / "whole", config), encoders=[encoder])

    class Stop:
        def update(self, stage: str, step: int, *_: Any) -> None:
            if (stage, step) == ("warm-up", 5):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(config, RunFolder.open(tmp_path / "cut", config), encoders=[encoder], progress=Stop())
    resumed = adapt(config, RunFolder.open(tmp_path / "cut", config), encoders=[encoder])
    for run in (tmp_path / "whole", tmp_path / "cut"):
        loaded = load_generator(RunFolder.read(run).generator_path)
        assert loaded.architecture == "example_family"
        for one, other in zip(loaded.parameters(), whole.generator.parameters(), strict=True):
            assert torch.equal(one, other)
    assert [one["stage"] for one in resumed.history] == ["warm-up"] * 10 + ["adapt"] * 4
    assert not all(
        torch.equal(a, b) for a, b in zip(whole.generator.parameters(), whole.source.parameters(), strict=True)
    )


def test_a_broken_package_does_not_stop_runs_of_other_methods(
    example_package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = EntryPoint("broken", "zeroshift_example.nowhere:Broken", METHODS.group)
    monkeypatch.setattr(METHODS, "_entry_points", {**METHODS._external(), "broken": broken})
    assert "adapt.steps" in setting_names()
    assert main(["adapt", "--method", "broken", "--target", "zombie"]) == 1
    assert "cannot be imported" in capsys.readouterr().err
