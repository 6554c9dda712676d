"""The report on the shipped models."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from zeroshift.clip.loading import load_encoder
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.diffusion.autoencoder import DiffusionAutoencoder
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.miniature.exams import diffusion_exam
from zeroshift.miniature.exams import report as reporting
from zeroshift.miniature.exams.report import Measurement, generator_measurements, markdown
from zeroshift.miniature.networks.encoders import (
    EVALUATOR_CONFIG,
    PROBE_CONFIG,
    Evaluator,
    Probe,
    build_guidance_encoder,
    load_evaluator,
    save_encoder,
)
from zeroshift.miniature.training.denoising import SCHEDULER
from zeroshift.miniature.world.domains import HELD_OUT, MEDIA, parse_domain
from zeroshift.miniature.world.factors import NUM_FACTORS
from zeroshift.miniature.world.renderer import render, sample_latents

UNET = {
    "sample_size": 64, "block_out_channels": (4, 4), "norm_num_groups": 2, "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
}  # fmt: skip


ENCODER = {"resolution": 64, "channels": (4, 4, 4, 4), "z_dim": 6, "blocks": 1, "attention": (), "groups": 2}


CONDITIONAL = {**ENCODER, "embed_dim": 8}


class Offset:
    """Returns the truth with 80 % of the contrast; truncated, gray images."""

    def __call__(self, latents, truncation_psi=1.0):
        return render(latents) * 0.8 if truncation_psi == 1 else torch.zeros(len(latents), 3, 64, 64)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    save_encoder(build_guidance_encoder(), folder / "guide.safetensors")
    save_encoder(Evaluator(**EVALUATOR_CONFIG).eval(), folder / "judge.safetensors")
    pair = load_encoder(str(folder / "guide.safetensors")), load_evaluator(folder / "judge.safetensors")
    for encoder in pair:
        encoder.templates = encoder.templates[:2]  # enough for untrained ones
    return pair


def size(path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_generator_measurements_of_a_known_difference(encoders):
    figures = {figure.name: figure for figure in generator_measurements(Offset(), encoders[1], seed=5, count=8)}
    truth = render(sample_latents(5, range(8))).numpy()
    expected = 20 * np.log10(2 / np.sqrt(np.mean((0.2 * truth) ** 2)))
    psnr = figures["generator: PSNR against the renderer"]
    assert psnr.value == pytest.approx(expected, rel=1e-4)
    assert psnr.holds == (expected >= 24)
    accuracy = figures["generator: the same, truncated to 0.7"].value
    assert accuracy in (0.0, 1.0)  # eight equal pictures


def test_markdown_table_shows_requirements_and_verdicts():
    figures = [
        Measurement("a", 0.5, "50.0 %", "at least 40 %", True),
        Measurement("b", 0.3, "30.0 %", "below 20 %", False),
        Measurement("c", 1.0, "1.00"),
    ]
    rows = markdown(figures).splitlines()
    assert rows[2:] == [
        "| a | 50.0 % | at least 40 % | yes |",
        "| b | 30.0 % | below 20 % | **no** |",
        "| c | 1.00 | reported |  |",
    ]


def test_sample_of_domains_has_every_medium_and_no_held_out_pair():
    sample = reporting.one_domain_per_medium()
    assert [domain.medium for domain in sample] == list(MEDIA)
    assert not set(sample) & HELD_OUT
    assert parse_domain("photo") in sample


def test_a_missing_diffusion_model_is_reported_and_left_out(monkeypatch):
    def load(name):
        if name == "miniature-autoencoder":
            raise ZeroshiftError("There is no autoencoder yet.")
        return name

    monkeypatch.setattr(reporting, "load_generator", load)
    screen = io.StringIO()
    assert list(reporting._diffusion(Console(file=screen))) == ["diffusion"]
    assert "no autoencoder yet" in screen.getvalue()


@pytest.mark.slow
def test_report_writes_all_measurements_and_images(tmp_path, monkeypatch, encoders):
    generator = StyleGAN2(64, NUM_FACTORS, 16, channels={4: 4, 8: 4, 16: 4, 32: 4, 64: 4}, mapping_layers=2).eval()
    monkeypatch.setattr(reporting, "load_encoder", lambda name: encoders[0])
    monkeypatch.setattr(reporting, "load_evaluator", lambda: encoders[1])
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
    assert len(figures) == reporting._COUNT + 2 * reporting._DIFFUSION_COUNT
    bounded = [figure for figure in figures if figure.bound]
    assert len(bounded) == 11
    text = (tmp_path / "report.md").read_text()
    for figure in figures:
        assert figure.name in text
        assert figure.name in screen.getvalue()
    for name in ("domains", "factors", "generator", "diffusion"):
        assert f"({name}.png)" in text
        assert min(size(tmp_path / f"{name}.png")) > 64
