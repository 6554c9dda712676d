"""Progress and previews change in place in a notebook, and are lines elsewhere."""

from pathlib import Path
from typing import Any

import pytest
import torch

import zeroshift
from zeroshift.api import live
from zeroshift.config.settings import AdaptConfig
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.inversion.inverter import InversionProgress
from zeroshift.training.callbacks import StepEvent
from zeroshift.training.previews import Samples


class Notebook:
    """Stands for the front end: the current content of every output, by the order of its appearance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outputs: list[str] = []
        monkeypatch.setattr(live, "_in_notebook", lambda: True)
        monkeypatch.setattr("IPython.display.display", self.display)
        monkeypatch.setattr(live, "_REFRESH", 0.0)

    def display(self, shown: Any, display_id: bool) -> Any:
        assert display_id
        index = len(self.outputs)
        self.outputs.append(shown._repr_html_())

        class Handle:
            def update(handle, shown: Any) -> None:
                self.outputs[index] = shown._repr_html_()

        return Handle()


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    return Notebook(monkeypatch)


def event(generator: Path, stage: str, step: int, **losses: float) -> StepEvent:
    source = load_generator(generator)
    config = AdaptConfig("zombie")
    samples = Samples(config, source)
    return StepEvent(stage, f"<{stage}>", step, 4, losses, config, source, source, samples, lambda: None)


def test_a_run_has_a_bar_per_stage_and_one_picture(tiny_generator: Path, notebook: Notebook) -> None:
    view = zeroshift.LiveView(every=2, num=3)
    view(event(tiny_generator, "prompts", 0))
    assert len(notebook.outputs) == 2
    first = notebook.outputs[1]
    assert "data:image/webp" in first
    assert 'alt="step 0"' in first
    view(event(tiny_generator, "prompts", 2, loss=0.25))
    assert notebook.outputs[1] == first, "the generator has not changed"
    assert 'value="2" max="4"' in notebook.outputs[0]
    assert "loss 0.2500" in notebook.outputs[0]
    assert "&lt;prompts&gt;" in notebook.outputs[0], "titles are no HTML"
    view(event(tiny_generator, "adapt", 1, loss=0.2))
    assert 'alt="step 0"' in notebook.outputs[1], "not due"
    view(event(tiny_generator, "adapt", 4, loss=0.1))
    assert 'alt="step 4"' in notebook.outputs[1]
    assert len(notebook.outputs) == 3


def test_numbers_are_not_sent_at_every_step(tiny_generator: Path, notebook: Notebook, monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "_REFRESH", 1000.0)
    view = zeroshift.LiveView(every=100)
    for step in (1, 2, 3):
        view(event(tiny_generator, "adapt", step, loss=0.5))
    assert 'value="1" max="4"' in notebook.outputs[0]
    view(event(tiny_generator, "adapt", 4, loss=0.5))
    assert 'value="4" max="4"' in notebook.outputs[0], "the last step is shown"


def test_an_inversion_has_a_bar_per_photo(notebook: Notebook) -> None:
    view = zeroshift.LiveView(every=1)
    images = torch.zeros(1, 3, 8, 8)
    for photo in (0, 1):
        view(InversionProgress("tune", [photo], 1, 2, images))
    view(InversionProgress("optimize", [0, 1], 1, 2, images.expand(2, -1, -1, -1)))
    titles = "".join(notebook.outputs)
    for text in ("Tuning weights, photo 1<", "Tuning weights, photo 2<", "Searching codes, photos 1, 2<"):
        assert text in titles


def test_items_pass_through_with_a_bar(notebook: Notebook) -> None:
    assert list(zeroshift.LiveView().track(iter("abc"), 3, "Letters")) == ["a", "b", "c"]
    (bar,) = notebook.outputs
    assert 'value="3" max="3"' in bar
    assert "Letters" in bar


def test_outside_a_notebook_due_steps_are_lines(tiny_generator: Path, capsys: pytest.CaptureFixture[str]) -> None:
    view = zeroshift.LiveView(every=2)
    for step in (1, 2, 3, 4):
        view(event(tiny_generator, "adapt", step, loss=0.5))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["<adapt> 2/4", "<adapt> 4/4"]
