"""Trial steps before a run: they estimate its time and change nothing."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from zeroshift.cli import output
from zeroshift.cli.progress import Display
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.methods.base import Stage
from zeroshift.methods.ipl import IPLOptions, PromptStage
from zeroshift.methods.registry import METHODS
from zeroshift.training import estimate as module
from zeroshift.training.estimate import Estimate, estimate
from zeroshift.training.trainer import adapt


class Counter(Stage):
    def __init__(self, steps: int) -> None:
        self.name, self.steps, self.value, self.calls = "counter", steps, torch.zeros(2), 0

    def step(self, step: int) -> dict[str, Any]:
        assert step == 0
        self.value += 1
        self.calls += 1
        return {"loss": 0.0}

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.value = state["value"]


def test_time_is_that_of_a_second_step_for_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 2.0, 2.5])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(times))
    stage, short, begun = Counter(40), Counter(3), list[int]()
    found = estimate([short, stage], torch.device("cpu"), lambda: begun.append(1))
    assert found is not None
    assert (found.seconds, found.on_gpu) == (20.0, False)
    assert found.bytes is None or found.bytes > 1e6
    assert (stage.calls, short.calls, len(begun)) == (2, 0, 2)
    assert torch.equal(stage.value, torch.zeros(2)), "restored"
    assert estimate([short], torch.device("cpu"), list) is None


class Recorder:
    def __init__(self) -> None:
        self.found: list[Any] = []

    def update(self, stage: str, step: int, steps: int, losses: Mapping[str, float]) -> None:
        pass

    def starts(self, steps: Sequence[int], estimate: Estimate) -> None:
        self.found.append((list(steps), estimate))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ipl", "scaffold", "svl", "domain-vector", "air"])
def test_trial_steps_do_not_change_a_run(
    tiny_generator: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(module, "_MIN_STEPS", 1)
    options = METHODS[method].Options()
    if isinstance(options, IPLOptions):
        options = dataclasses.replace(options, prompts=PromptStage(steps=3, batch_size=4, num_context=2))
    for name, value in {"variation_steps": 5, "fisher_samples": 2, "anchor_samples": 4, "prompt_steps": 2}.items():
        if hasattr(options, name):
            options = dataclasses.replace(options, **{name: value})
    config = AdaptConfig(
        "zombie", generator=str(tiny_generator), encoders=(str(tiny_encoder),), method=method, options=options,
        adapt=AdaptStage(steps=3, batch_size=4, layer_batch_size=2), device="cpu",
    )  # fmt: skip
    recorder = Recorder()
    with_trial, without = adapt(config, progress=recorder), adapt(config)
    assert len(recorder.found) == 1
    assert recorder.found[0][0][-1] == 3
    before, after = without.generator.state_dict(), with_trial.generator.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (45, "45 s"), (130, "2 min 10 s"), (7260, "2 h 1 min")])
def test_the_estimate_is_a_sentence(capsys: pytest.CaptureFixture[str], seconds: float, text: str) -> None:
    output.start([])
    with Display() as display:
        display.starts([300, 160], Estimate(seconds, 1_500_000_000, True))
    assert capsys.readouterr().err == f"Estimate: {text} for 300 + 160 steps, 1.5 GB of memory on the GPU\n"
