"""Sheets, figures and commands of the miniature world."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from zeroshift.cli import main as cli
from zeroshift.clip.loading import load_encoder
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.diffusion.autoencoder import DiffusionAutoencoder
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.miniature import commands
from zeroshift.miniature.exams import diffusion_exam
from zeroshift.miniature.exams import report as reporting
from zeroshift.miniature.exams.report import Figure, generator_figures, markdown
from zeroshift.miniature.networks.encoders import (
    JUDGE_CONFIG,
    PROBE_CONFIG,
    Judge,
    Probe,
    build_guide,
    load_judge,
    save_encoder,
)
from zeroshift.miniature.training.denoising import SCHEDULER
from zeroshift.miniature.world.domains import KEPT_OUT, MEDIA, parse_domain
from zeroshift.miniature.world.factors import FACTOR_INDEX, FACTORS, NUM_FACTORS, class_indices, positions
from zeroshift.miniature.world.renderer import render, sample_latents
from zeroshift.miniature.world.sheet import domain_sheet, factor_latents, factor_sheet, generator_sheet

UNET = {
    "sample_size": 64, "block_out_channels": (4, 4), "norm_num_groups": 2, "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
}  # fmt: skip
ENCODER = {"resolution": 64, "channels": (4, 4, 4, 4), "z_dim": 6, "blocks": 1, "attention": (), "groups": 2}
CONDITIONAL = {**ENCODER, "embed_dim": 8}


@pytest.mark.parametrize("factor", FACTORS, ids=lambda factor: factor.name)
def test_factor_latents_differ_in_one_factor(factor):
    u = positions(factor_latents(factor.name))
    sink = "clothing_pattern" if factor.name != "clothing_pattern" else "earrings"
    others = [i for name, i in FACTOR_INDEX.items() if name not in (factor.name, sink)]
    assert (u[:, others] - u[:1, others]).abs().max() < 1e-5
    assert u[:, FACTOR_INDEX[sink]].max() < 0.01  # its first class, for sure
    assert (u[:, FACTOR_INDEX[factor.name]].diff() > 0).all()
    if factor.is_class:
        assert class_indices(factor_latents(factor.name))[factor.name].tolist() == list(range(len(factor.classes)))


def test_sheets_have_a_row_a_domain_and_a_column_a_person():
    small = domain_sheet([parse_domain("zombie")], num=2, seed=0)
    large = domain_sheet([parse_domain("zombie"), parse_domain("mosaic")], num=2, seed=0)
    assert small.dtype == np.uint8
    assert large.shape[0] > small.shape[0] + 64
    people = render(sample_latents(0, range(2)), parse_domain("zombie"))
    tile = ((people[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(small[..., 0], tile.shape[:2])
    assert any(np.array_equal(window, tile[..., 0]) for row in windows for window in row)


def test_factor_sheet_shows_visible_factors_only():
    sketch = parse_domain("pencil sketch")
    one = factor_sheet(sketch, sketch.visible[:1])
    assert factor_sheet(sketch, sketch.visible[:3]).shape[0] > one.shape[0] + 128


class Offset:
    """Draws the truth, darker by a known amount; truncated, nothing at all."""

    def __call__(self, latents, truncation_psi=1.0):
        return render(latents) * 0.8 if truncation_psi == 1 else torch.zeros(len(latents), 3, 64, 64)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    save_encoder(build_guide(), folder / "guide.safetensors")
    save_encoder(Judge(**JUDGE_CONFIG).eval(), folder / "judge.safetensors")
    pair = load_encoder(str(folder / "guide.safetensors")), load_judge(folder / "judge.safetensors")
    for encoder in pair:
        encoder.templates = encoder.templates[:2]  # enough for untrained ones
    return pair


def size(path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_generator_figures_against_a_known_difference(encoders):
    figures = {figure.name: figure for figure in generator_figures(Offset(), encoders[1], seed=5, count=8)}
    truth = render(sample_latents(5, range(8))).numpy()
    expected = 20 * np.log10(2 / np.sqrt(np.mean((0.2 * truth) ** 2)))
    psnr = figures["generator: PSNR against the renderer"]
    assert psnr.value == pytest.approx(expected, rel=1e-4)
    assert psnr.holds == (expected >= 24)
    judged = figures["generator: the same, truncated to 0.7"].value
    assert judged in (0.0, 1.0)  # eight equal pictures


def test_markdown():
    figures = [
        Figure("a", 0.5, "50.0 %", "at least 40 %", True),
        Figure("b", 0.3, "30.0 %", "below 20 %", False),
        Figure("c", 1.0, "1.00"),
    ]
    rows = markdown(figures).splitlines()
    assert rows[2:] == [
        "| a | 50.0 % | at least 40 % | yes |",
        "| b | 30.0 % | below 20 % | **no** |",
        "| c | 1.00 | reported |  |",
    ]


def test_sample_of_domains_has_every_medium_and_no_kept_out_pair():
    sample = reporting.one_domain_per_medium()
    assert [domain.medium for domain in sample] == list(MEDIA)
    assert not set(sample) & KEPT_OUT
    assert parse_domain("photo") in sample


def test_a_missing_diffusion_model_is_told_and_left_out(monkeypatch):
    def load(name):
        if name == "miniature-autoencoder":
            raise ZeroshiftError("There is no autoencoder yet.")
        return name

    monkeypatch.setattr(reporting, "load_generator", load)
    screen = io.StringIO()
    assert list(reporting._diffusion_models(Console(file=screen))) == ["diffusion"]
    assert "no autoencoder yet" in screen.getvalue()


def test_report(tmp_path, monkeypatch, encoders):
    generator = StyleGAN2(64, NUM_FACTORS, 16, channels={4: 4, 8: 4, 16: 4, 32: 4, 64: 4}, mapping_layers=2).eval()
    monkeypatch.setattr(reporting, "load_encoder", lambda name: encoders[0])
    monkeypatch.setattr(reporting, "load_judge", lambda: encoders[1])
    monkeypatch.setattr(reporting, "load_probe", lambda: Probe(**PROBE_CONFIG).eval())
    schedule = {**SCHEDULER, "num_train_timesteps": 40}
    models = {
        "miniature": generator,
        "miniature-diffusion": Diffusion(UNET, schedule).eval(),
        "miniature-autoencoder": DiffusionAutoencoder(CONDITIONAL, ENCODER, schedule).eval(),
    }
    monkeypatch.setattr(reporting, "load_generator", models.get)
    monkeypatch.setattr(diffusion_exam, "PHOTOS", 1)
    monkeypatch.setattr(diffusion_exam, "STEPS", 1)
    screen = io.StringIO()
    figures = reporting.report(tmp_path, seed=3, people=1, candidates=4, console=Console(file=screen, width=160))
    assert len(figures) == reporting._COUNT + 4 * 2
    bounded = [figure for figure in figures if figure.bound]
    assert len(bounded) == 11
    text = (tmp_path / "report.md").read_text()
    for figure in figures:
        assert figure.name in text
        assert figure.name in screen.getvalue()
    for name in ("domains", "factors", "generator", "diffusion"):
        assert f"({name}.png)" in text
        assert min(size(tmp_path / f"{name}.png")) > 64


def test_generator_sheet_shows_the_same_people(encoders):
    class Truth:
        def __call__(self, latents, truncation_psi=1.0):
            return render(latents)

    assert generator_sheet(Truth(), num=2, seed=0).shape[0] > 3 * 64


def test_commands_write_pictures(tmp_path, capsys):
    assert cli.main(["miniature", "sheet", "--out", str(tmp_path / "a.png"), "--domains", "zombie", "--num", "2"]) == 0
    assert cli.main(["miniature", "factors", "--out", str(tmp_path / "b.png"), "--domain", "mosaic of an elf"]) == 0
    assert size(tmp_path / "a.png")[0] > 128
    assert size(tmp_path / "b.png")[1] > 64 * len(parse_domain("mosaic of an elf").visible)


def test_commands_say_what_is_wrong(tmp_path):
    with pytest.raises(ZeroshiftError, match="no domain 'vampire'"):
        commands.sheet(tmp_path / "a.png", domains=("vampire",))
    with pytest.raises(ZeroshiftError, match="at least one person"):
        commands.sheet(tmp_path / "a.png", num=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", ["guide", "judge", "probe", "generator", "diffusion", "autoencoder"])
def test_every_model_has_its_recipe(model, capsys):
    assert cli.main(["miniature", "train", model, "--help"]) == 0
    assert "--out" in capsys.readouterr().out
