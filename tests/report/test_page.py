import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator, save_generator
from zeroshift.miniature.truth_figures import true_images
from zeroshift.report.charts import curve, layer_shares
from zeroshift.report.page import draw_figures, write_report
from zeroshift.training.run_folder import RunFolder


@pytest.fixture
def run(tiny_generator: Path, tmp_path: Path) -> RunFolder:
    """A finished run whose adapted generator is the source with other weights."""
    config = AdaptConfig(target="<b>zombie</b>", generator=str(tiny_generator), truncation_psi=0.9, seed=4)
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


def test_report_is_complete_and_stands_alone(run: RunFolder) -> None:
    write_report(run, "zeroshift adapt --target x")
    text = run.report_path.read_text(encoding="utf-8")
    page = Page(text)
    sources = [image["src"] or "" for image in page.find("img")]
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert sources[0] != sources[1]
    assert not page.find("script")
    assert not page.find("link")
    assert not re.search(r"https?://|@import|url\(", text), "nothing may be loaded from elsewhere"
    assert "<b>zombie" not in text, "labels are escaped"
    assert "zeroshift adapt --target x" in page.text
    # in the second stage the directional loss is the loss itself and is not drawn twice
    assert re.findall(r"(\w+) [\d.]+ → [\d.]+", page.text) == ["loss", "contrastive", "domain", "loss"]
    assert "5 steps, 2.5 seconds, 500 ms a step" in page.text
    for context in ("domain_weight", "layer_lr", "truncation"):
        assert context in page.text
    assert run.pairs_path.stat().st_size > 1000


def test_pictures_are_those_of_the_run(run: RunFolder) -> None:
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


def test_truth_of_the_miniature_world() -> None:
    from zeroshift.miniature.world.domains import parse_domain
    from zeroshift.miniature.world.renderer import render

    latents = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    config = AdaptConfig(target="zombie")
    truth = true_images(config, latents)
    assert truth is not None
    assert torch.equal(truth, render(latents, parse_domain("zombie")))
    assert true_images(replace(config, target="disney"), latents) is None
    assert true_images(replace(config, generator="ffhq"), latents) is None


def test_layer_shares_run_from_input_to_output() -> None:
    records = [
        {"layers": ["synthesis.b16.conv0", "synthesis.b4.conv1"]},
        {"layers": ["synthesis.b16.conv0", "synthesis.b8.conv0"]},
        {"loss": 1.0},
    ]
    assert layer_shares(records) == [
        ("synthesis.b4.conv1", 0.5),
        ("synthesis.b8.conv0", 0.5),
        ("synthesis.b16.conv0", 1.0),
    ]
    assert layer_shares([{"loss": 1.0}]) == []


@pytest.mark.parametrize("values", [[2.0, 1.0, 4.0], [5.0], [1e-7, 3e-7], [-3.0, -3.0]])
def test_curves_stay_inside_their_frame(values: list[float]) -> None:
    chart = curve("loss", range(len(values)), values)
    points = [tuple(map(float, point.split(","))) for point in chart.path[1:].split(" L")]
    assert len(points) == len(values)
    assert all(52 <= x <= 560 and 0 <= y <= 220 for x, y in points)
    order = sorted(range(len(values)), key=lambda i: values[i])
    heights = [points[i][1] for i in order]
    assert heights == sorted(heights, reverse=True), "larger values stand higher"
    assert 2 <= len(chart.y_ticks) <= 8
    assert chart.first == pytest.approx(values[0])
    assert len({text for _, text in chart.y_ticks}) == len(chart.y_ticks)
