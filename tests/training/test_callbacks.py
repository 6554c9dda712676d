"""Runs by path, and callbacks that follow and stop them."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.training.test_trainer import CONFIG, same
from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.report.page import write_report
from zeroshift.training.callbacks import Callback, StepEvent
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.trainer import adapt


@pytest.fixture(scope="module")
def config(tiny_generator: Path, tiny_encoder: Path) -> AdaptConfig:
    return dataclasses.replace(CONFIG, generator=str(tiny_generator), encoders=(str(tiny_encoder),))


def stop_at(stage: str, step: int) -> list[Callback]:
    """A list of one callback that stops the run there."""

    def callback(event: StepEvent) -> None:
        if (event.stage, event.step) == (stage, step):
            event.stop()

    return [callback]


def files(folder: Path) -> dict[str, bytes]:
    """The results of a run."""
    names = [folder / "generator.safetensors", *sorted((folder / "previews").iterdir())]
    return {path.name: path.read_bytes() for path in names}


def test_a_path_is_a_run_folder(config: AdaptConfig, tmp_path: Path) -> None:
    result = adapt(config, tmp_path / "new" / "run")
    run = RunFolder.read(tmp_path / "new" / "run")
    assert run.finished
    assert result.finished
    assert same(result.generator, load_generator(run.generator_path))
    write_report(run)
    assert "zeroshift adapt --target zombie" in run.report_path.read_text()
    adapt(config, str(tmp_path / "text"))
    assert files(tmp_path / "text") == files(run.path)


def test_other_runs_are_refused_before_anything_is_loaded(config: AdaptConfig, tmp_path: Path) -> None:
    missing = dataclasses.replace(config, generator=str(tmp_path / "missing.pt"))
    with pytest.raises(ZeroshiftError, match="Give the path of a folder"):
        adapt(missing, 7)  # type: ignore[arg-type]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ZeroshiftError, match="not a run folder but holds files"):
        adapt(config, tmp_path / "mine")
    with pytest.raises(ZeroshiftError):
        adapt(missing, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_callbacks_see_every_step_from_the_start(config: AdaptConfig, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    drawn: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def callback(event: StepEvent) -> None:
        seen.append((event.stage, event.step, event.steps))
        assert ("loss" in event.losses) == (event.step > 0)
        assert event.config.target == "zombie"
        drawn[f"{event.stage} {event.step}"] = event.images(2)

    result = adapt(config, tmp_path / "run", callbacks=[callback])
    assert seen == [("prompts", n, 3) for n in range(4)] + [("adapt", n, 4) for n in (1, 2, 3, 4)]
    source, adapted = drawn["prompts 0"]
    assert source.shape == (2, 3, 16, 16)
    assert torch.equal(source, adapted)
    last = drawn["adapt 4"][1]
    with torch.no_grad():
        latents = result.source.sample_latents(config.seed, range(2))
        codes = result.source.codes(latents, truncation_psi=config.truncation_psi)
        torch.testing.assert_close(last, result.generator.synthesize(codes))
    assert not torch.equal(last, adapted)
    assert sorted(path.name for path in (tmp_path / "run" / "previews").iterdir())[0] == "00000000.png"


@pytest.mark.slow
@pytest.mark.parametrize("place", [("prompts", 0), ("prompts", 2), ("adapt", 1), ("adapt", 3)])
def test_a_stopped_run_continues_as_if_it_had_not_stopped(
    place: tuple[str, int], config: AdaptConfig, tmp_path: Path
) -> None:
    adapt(config, tmp_path / "whole")
    stopped = adapt(config, tmp_path / "run", callbacks=stop_at(*place))
    assert not stopped.finished
    run = RunFolder.read(tmp_path / "run")
    assert not run.finished
    assert len(stopped.history) == {"prompts": 0, "adapt": 3}[place[0]] + place[1]
    assert adapt(config, tmp_path / "run").finished
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_a_stop_at_the_end_changes_nothing(config: AdaptConfig, tmp_path: Path) -> None:
    assert adapt(config, tmp_path / "run", callbacks=stop_at("adapt", 4)).finished
    assert RunFolder.read(tmp_path / "run").finished


def test_a_run_without_a_folder_can_be_stopped(config: AdaptConfig) -> None:
    result = adapt(config, callbacks=stop_at("adapt", 2))
    assert (result.finished, len(result.history)) == (False, 5)


@pytest.mark.slow
def test_a_run_resumes_after_a_callback_has_failed(config: AdaptConfig, tmp_path: Path) -> None:
    def fail(event: StepEvent) -> None:
        if (event.stage, event.step) == ("adapt", 1):
            raise RuntimeError("the plot has no axes")

    adapt(config, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="no axes"):
        adapt(config, tmp_path / "run", callbacks=[fail])
    assert len(RunFolder.read(tmp_path / "run").records()) == 4
    adapt(config, tmp_path / "run")
    assert files(tmp_path / "run") == files(tmp_path / "whole")
