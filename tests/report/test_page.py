"""The report of a run: complete, self-contained, and with the images of the run."""

import inspect
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator, save_generator
from zeroshift.methods.base import Method
from zeroshift.methods.configure import default_config, resolve
from zeroshift.methods.nada import NADA
from zeroshift.methods.registry import METHODS, STAGES
from zeroshift.miniature.world.domains import parse_domain
from zeroshift.miniature.world.renderer import render
from zeroshift.report.page import draw_figures, write_report
from zeroshift.training.run_folder import RunFolder


@pytest.fixture
def run(tiny_generator: Path, tmp_path: Path) -> RunFolder:
    """A finished run whose adapted generator is the source with other weights."""
    config = resolve(AdaptConfig(target="<b>zombie</b>", generator=str(tiny_generator), truncation_psi=0.9, seed=4))
    run = RunFolder.open(tmp_path / "run", config)
    for step in range(5):
        run.log("prompts", step, loss=3.0 - step / 2, contrastive=2.0 - step / 2, domain=1.0, seconds=0.5)
    for step in range(4):
        layers = ["synthesis.b8.conv0", "synthesis.b16.conv1" if step else "synthesis.b4.conv1"]
        run.log("adapt", step, loss=1.0, directional=1.0, layers=layers, seconds=0.25)
    run.close()
    target = load_generator(tiny_generator)
    with torch.no_grad():
        for parameter in target.synthesis.parameters():
            parameter.mul_(1.2)
    save_generator(target, run.generator_path)
    return run


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def find(self, tag: str, kind: str | None = None) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag and kind in (None, attrs.get("class"))]


def test_report_is_complete_and_self_contained(run: RunFolder) -> None:
    write_report(run, "zeroshift adapt --target x")
    text = run.report_path.read_text(encoding="utf-8")
    page = Page(text)
    sources = [image["src"] or "" for image in page.find("img")]
    assert len(sources) == 16, "eight samples of two generators"
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert len(set(sources)) == 16
    assert [tiles["aria-label"] for tiles in page.find("div", "tiles")] == [
        "photo: source generator", "<b>zombie</b>: adapted generator",
    ]  # fmt: skip
    assert not page.find("script")
    assert not page.find("link")
    assert not re.search(r"https?://|@import|url\(", text), "nothing may be loaded from elsewhere"
    assert "<b>zombie" not in text, "labels are escaped"
    assert "zeroshift adapt --target x" in page.text
    # in the second stage the directional loss is the loss itself and is not drawn twice
    assert re.findall(r"(\w+) [\d.]+ → [\d.]+", page.text) == ["loss", "contrastive", "domain", "loss"]
    assert "5 steps, 2.5 seconds, 500 ms per step" in page.text
    for setting in ("domain_weight", "layer_lr", "truncation_psi"):
        assert setting in page.text
    assert run.pairs_path.stat().st_size > 1000


def test_every_curve_is_explained_in_a_sentence(run: RunFolder) -> None:
    write_report(run)
    page = Page(run.report_path.read_text(encoding="utf-8"))
    sentences = [svg["aria-label"] or "" for svg in page.find("svg")]
    assert [text.split(". ")[0] for text in sentences] == [
        "loss over steps", "contrastive over steps", "domain over steps", "loss over steps",
    ]  # fmt: skip
    for text in sentences:
        meaning = text.partition(". ")[2]
        assert len(meaning) > 40
        assert page.text.count(meaning) >= 1, "also shown below the chart"
    explained = [*METHODS.values(), *STAGES.values()]
    for sentence in (sentence for owner in explained for sentence in owner.curves.values()):
        assert sentence[0].isupper()
        assert sentence.count(".") == 1
        assert sentence.endswith(".")


@pytest.mark.parametrize("method", ["air", "compass", "domain-vector", "ipl", "nada", "scaffold", "svl"])
def test_losses_of_each_method_have_an_explanation(method: str) -> None:
    names = {"air": {"anchor"}, "domain-vector": {"in_domain"}, "svl": {"mean", "moment", "relation", "ewc"}}
    names["scaffold"] = {"structure"}
    names["compass"] = {"structure", "people"}
    expected = names.get(method, set())
    cls = METHODS[method]
    assert set(cls.curves) == expected
    source = "".join(inspect.getsource(base) for base in cls.__mro__ if issubclass(base, Method))
    assert all(f'"{name}"' in source.replace(f'"{name}": "', "") for name in expected), "they are really logged"


def test_the_page_adapts_to_phones_dark_mode_and_paper(run: RunFolder) -> None:
    write_report(run)
    text = run.report_path.read_text(encoding="utf-8")
    style = text[text.index("<style>") : text.index("</style>")]
    assert 'name="viewport" content="width=device-width' in text
    assert "@media screen and (prefers-color-scheme: dark)" in style
    assert "@page { size: A4" in style
    assert "@media print" in style
    for least in re.findall(r"minmax\((?:min\()?(\d+)px", style):
        assert int(least) <= 300, "columns fit a phone of 360 pixels"
    assert not re.search(r"(?:^|[ ;])(?:min-)?width: \d{3,}px", style)
    colors = style.replace(style[style.index(":root") : style.index("* {")], "")
    assert not re.search(r"#[0-9a-f]{3,6}\b", colors), "colors are variables, so that dark mode changes all of them"


def test_stages_are_in_order_of_appearance_with_their_titles(run: RunFolder) -> None:
    with run.metrics_path.open("w", encoding="utf-8") as file:
        for stage in ("variations", "prompts", "adapt", "variations"):
            file.write(json.dumps({"stage": stage, "step": 0, "loss": 1.0}) + "\n")
    write_report(run)
    headings = re.findall(r"<h2>(.+?)</h2>", run.report_path.read_text(encoding="utf-8"))
    titles = [STAGES[stage].title for stage in ("prompts", "adapt")]
    assert headings[1:4] == ["Variations", *titles], "an unregistered stage has its own name"


def test_the_settings_are_those_of_config_json(run: RunFolder) -> None:
    run.config = resolve(replace(run.config, method="nada", options=NADA.Options()))
    write_report(run)
    page = Page(run.report_path.read_text(encoding="utf-8"))
    assert "target_images" in page.text
    assert "domain_weight" not in page.text, "a setting of IPL"


def test_images_are_those_of_the_run(run: RunFolder) -> None:
    source, target = draw_figures(run, num=3)
    assert (source.label, target.label) == ("photo", "<b>zombie</b>")
    with torch.no_grad():
        generators = [load_generator(path) for path in (run.config.generator, run.generator_path)]
        latents = generators[0].sample_latents(4, range(3))
        for figure, generator in zip((source, target), generators, strict=True):
            assert torch.allclose(figure.images, generator(latents, truncation_psi=0.9), atol=1e-5)


def test_unfinished_run_has_no_report(run: RunFolder) -> None:
    run.generator_path.unlink()
    with pytest.raises(ZeroshiftError, match="not finished"):
        write_report(run)
    assert not run.report_path.exists()


def test_the_true_images_of_the_miniature_world_are_shown(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "run", resolve(replace(default_config("miniature"), target="zombie", seed=3)))
    save_generator(load_generator("miniature"), run.generator_path)
    figures = draw_figures(run, num=2)
    assert [figure.label for figure in figures] == ["photo", "zombie", "truth"]
    latents = load_generator("miniature").sample_latents(3, range(2))
    assert torch.equal(figures[2].images, render(latents.cpu(), parse_domain("zombie")))


def test_unknown_domains_of_the_miniature_world_have_no_truth(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "run", resolve(replace(default_config("miniature"), target="disney")))
    save_generator(load_generator("miniature"), run.generator_path)
    assert [figure.label for figure in draw_figures(run, num=2)] == ["photo", "disney"]
