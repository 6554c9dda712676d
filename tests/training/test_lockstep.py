"""Runs in lockstep end like separate runs, compute their source images once, and do not affect each other."""

import os
import signal
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_trainer import CONFIG, Recorder, same
from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import NotFiniteError, ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.methods.configure import changed
from zeroshift.methods.source_images import FreshBatch, FreshLatents
from zeroshift.training.adaptation import Adaptation
from zeroshift.training.callbacks import StepEvent
from zeroshift.training.result import AdaptResult
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.trainer import adapt, adapt_together

TARGETS = ("zombie", "elf", "sketch")


@pytest.fixture(scope="module")
def configs(tiny_generator: Path, tiny_encoder: Path) -> list[AdaptConfig]:
    config = replace(CONFIG, generator=str(tiny_generator), encoders=(str(tiny_encoder),))
    config = changed(config, {"method": "nada", "adapt.steps": 3, "preview_every": 0})
    return [replace(config, target=target) for target in TARGETS]


def with_changes(configs: Sequence[AdaptConfig], **changes: Any) -> list[AdaptConfig]:
    return [changed(config, {name.replace("__", "."): value for name, value in changes.items()}) for config in configs]


def results(outcomes: Sequence[AdaptResult | Exception]) -> list[AdaptResult]:
    """The outcomes, none of which may be an error."""
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, AdaptResult)]


def steps(result: AdaptResult) -> list[dict[str, Any]]:
    """The history without times."""
    return [{**record, "seconds": 0} for record in result.history]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "ipl", "prompts__steps": 2, "prompts__batch_size": 4},
        {"method": "ipl", "prompts__steps": 2, "prompts__batch_size": 4, "num_latents": 6},
        {"adapt__augmentations": 2, "adapt__grad_accumulation_steps": 2},
        {"num_latents": 6, "adapt__layer_codes": "batch", "adapt__layer_batch_size": 1},
    ],
    ids=["ipl", "ipl-bank", "nada", "nada-bank"],
)
def test_results_are_those_of_separate_runs(configs: list[AdaptConfig], changes: dict[str, Any]) -> None:
    configs = with_changes(configs[:2], **changes)
    together = results(adapt_together(configs))
    assert len(together) == 2
    for config, result in zip(configs, together, strict=True):
        alone = adapt(config)
        assert same(result.generator, alone.generator)
        assert steps(result) == steps(alone)
        assert not any("seconds" in record for record in result.history), "no run has a time of its own"
        assert result.source is together[0].source


def test_methods_with_different_stages_meet_in_the_adapt_stage(configs: list[AdaptConfig]) -> None:
    """Other settings than the shared ones may differ, the number of steps as well."""
    ipl = with_changes(configs[:1], method="ipl", prompts__steps=2, prompts__batch_size=4)
    mixed = [configs[0], *ipl, *with_changes(configs[1:2], adapt__steps=5, adapt__lr=0.02, adapt__augmentations=1)]
    order: list[tuple[str, str, int]] = []
    together = results(
        adapt_together(mixed, callbacks=[lambda event: order.append((event.config.method, event.stage, event.step))])
    )
    assert order[3:5] == [("ipl", "prompts", 1), ("ipl", "prompts", 2)]
    assert order[5:8] == [("nada", "adapt", 1), ("ipl", "adapt", 1), ("nada", "adapt", 1)]
    assert order[-2:] == [("nada", "adapt", 4), ("nada", "adapt", 5)]
    for config, result in zip(mixed, together, strict=True):
        assert same(result.generator, adapt(config).generator)


def test_source_images_and_features_are_computed_once_and_freed(
    configs: list[AdaptConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[weakref.ref[FreshBatch]] = []
    alive: list[int] = []
    draw, step, encode = FreshLatents.draw, Adaptation.step, Adaptation._encode

    def drawn(self: FreshLatents, *args: Any, **options: Any) -> FreshBatch:
        batch = draw(self, *args, **options)
        batches.append(weakref.ref(batch))
        return batch

    def stepped(self: Adaptation, number: int) -> dict[str, Any]:
        values = step(self, number)
        alive.append(sum(batch() is not None for batch in batches))
        return values

    encoded: list[bool] = []  # whether with a graph: images of a target

    def counted(self: Adaptation, images: torch.Tensor, *args: Any) -> Any:
        encoded.append(images.requires_grad)
        return encode(self, images, *args)

    monkeypatch.setattr(FreshLatents, "draw", drawn)
    monkeypatch.setattr(Adaptation, "step", stepped)
    monkeypatch.setattr(Adaptation, "_encode", counted)
    results(adapt_together(configs))
    assert len(batches) == 1 + 3 * 2, "for the check; in each of 3 steps one for training and one for the layers"
    assert max(alive) == 2
    assert (encoded.count(False), encoded.count(True)) == (3, 3 * len(configs))


def test_a_run_that_fails_does_not_affect_the_others(
    configs: list[AdaptConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Adaptation._optimizer_step

    def explode(self: Adaptation) -> None:
        update(self)
        if self._context.config.target == "elf":
            next(iter(self.target.parameters())).data.fill_(float("nan"))

    monkeypatch.setattr(Adaptation, "_optimizer_step", explode)
    unknown = replace(configs[0], target="zombie " * 200)
    members = [configs[0], unknown, *configs[1:]]
    folders = [tmp_path / str(number) for number in range(4)]
    first, too_long, infinite, last = adapt_together(members, folders)
    assert isinstance(too_long, ZeroshiftError)
    assert "longer than the encoder" in str(too_long)
    assert not folders[1].exists(), "no step was trained"
    assert isinstance(infinite, NotFiniteError)
    for config, result in ((configs[0], first), (configs[2], last)):
        assert isinstance(result, AdaptResult)
        assert same(result.generator, adapt(config).generator)


def test_runs_at_different_steps_catch_up_and_resume(configs: list[AdaptConfig], tmp_path: Path) -> None:
    """One run was killed after its first checkpoint, and the others have not begun."""
    configs = with_changes(configs, checkpoint_every=1)
    folders = [tmp_path / config.target for config in configs]
    with pytest.raises(RuntimeError):
        adapt(configs[0], folders[0], progress=Recorder(("adapt", 2), RuntimeError))
    recorder = Recorder()
    together = results(adapt_together(configs, folders, progress=recorder))
    assert recorder.calls == [("adapt", done, 9) for done in (1, 2, 4, 5, 6, 7, 8, 9)]
    for config, folder, result in zip(configs, folders, together, strict=True):
        assert result.finished
        assert same(result.generator, adapt(config).generator)
        assert [record["step"] for record in RunFolder.read(folder).records()] == [0, 1, 2]


def test_ctrl_c_saves_all_runs(configs: list[AdaptConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = with_changes(configs, checkpoint_every=0)
    folders = [tmp_path / config.target for config in configs]
    step = Adaptation.step

    def pressed_within(self: Adaptation, number: int) -> dict[str, Any]:
        if number == 1 and self._context.config.target == "elf":
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, number)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(Adaptation, "step", pressed_within)
        with pytest.raises(KeyboardInterrupt):
            adapt_together(configs, folders)
    assert signal.getsignal(signal.SIGINT) is before
    states = [RunFolder(folder, config).load_checkpoint() for config, folder in zip(configs, folders, strict=True)]
    assert [state and state["step"] for state in states] == [2, 2, 1], "the last one had not trained its second step"
    for config, result in zip(configs, results(adapt_together(configs, folders)), strict=True):
        assert same(result.generator, adapt(config).generator)


def test_a_callback_stops_one_run(configs: list[AdaptConfig]) -> None:
    def stop(event: StepEvent) -> None:
        if event.config.target == "elf" and event.step == 1:
            event.stop()

    first, stopped, last = results(adapt_together(configs, callbacks=[stop]))
    assert [len(each.history) for each in (first, stopped, last)] == [3, 1, 3]
    assert (first.finished, stopped.finished, last.finished) == (True, False, True)


def test_a_source_object_is_kept_in_every_folder(configs: list[AdaptConfig], tmp_path: Path) -> None:
    configs = with_changes(configs[:2], adapt__steps=1)
    source = load_generator(configs[0].generator)
    folders = [tmp_path / config.target for config in configs]
    together = results(adapt_together(configs, folders, generator=source))
    assert all(RunFolder.read(folder).source_path.exists() for folder in folders)
    with torch.no_grad():
        next(iter(source.parameters())).add_(1)
    refused = adapt_together(configs, folders, generator=source)
    assert all("another source generator" in str(each) for each in refused)
    again = results(adapt_together(configs, folders))
    assert same(again[1].generator, together[1].generator)


def test_runs_that_do_not_fit_together_are_refused(configs: list[AdaptConfig]) -> None:
    with pytest.raises(ZeroshiftError, match=r"settings differ: adapt.noise_mode \(random, const\), seed \(0, 1\)"):
        adapt_together([configs[0], *with_changes(configs[1:], seed=1, adapt__noise_mode="const")])
    with pytest.raises(ZeroshiftError, match="There are 3 configurations and 1 runs"):
        adapt_together(configs, [None])
    with pytest.raises(ZeroshiftError, match="There are 0 configurations"):
        adapt_together([])
