"""The recipes of both diffusion models."""

import pytest
import torch
from diffusers import DDIMPipeline
from safetensors.torch import load_file

from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.diffusion.autoencoder import DiffusionAutoencoder
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.miniature.training import autoencoder as train_autoencoder
from zeroshift.miniature.training import diffusion as train_diffusion
from zeroshift.miniature.training.photos import Photos

UNET = {
    "sample_size": 64, "block_out_channels": (4, 4), "norm_num_groups": 2, "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
}  # fmt: skip


ENCODER = {"resolution": 64, "channels": (4, 4, 4, 4), "z_dim": 6, "blocks": 1, "attention": (), "groups": 2}


CONDITIONAL = {**ENCODER, "embed_dim": 8}


@pytest.fixture
def small(monkeypatch, small_blocks):
    """Recipes with tiny networks and data sets."""
    monkeypatch.setattr(train_diffusion, "UNET", UNET)
    monkeypatch.setattr(train_autoencoder, "UNET", CONDITIONAL)
    monkeypatch.setattr(train_autoencoder, "ENCODER", ENCODER)
    monkeypatch.setattr(train_autoencoder, "STATISTICS", 16)
    for recipe in (train_diffusion, train_autoencoder):
        monkeypatch.setattr(recipe, "EXAM_PEOPLE", 2)
        monkeypatch.setattr(recipe, "print_exam", lambda *_: None)


def train(name, folder, **changes):
    recipe, target = {
        "diffusion": (train_diffusion.train_diffusion, "pipeline"),
        "autoencoder": (train_autoencoder.train_autoencoder, "autoencoder.safetensors"),
    }[name]
    settings = {"steps": 4, "batch": 3, "seed": 1, "images": folder.parent / "photos", **changes}
    return recipe(folder, weights=folder / target, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diffusion", "autoencoder"])
def test_interrupted_training_equals_uninterrupted(name, tmp_path, small):
    assert train(name, tmp_path / "whole") == 4
    assert train(name, tmp_path / "parts", minutes=0) == 1
    assert train(name, tmp_path / "parts", minutes=0) == 2
    assert train(name, tmp_path / "parts") == 4
    (whole,), (parts,) = (list((tmp_path / each).rglob("*.safetensors")) for each in ("whole", "parts"))
    whole, parts = load_file(whole), load_file(parts)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert {value.dtype for value in whole.values()} == {torch.float16}


def test_delivered_pipeline_is_diffusers_own(tmp_path, small):
    train("diffusion", tmp_path)
    pipeline = DDIMPipeline.from_pretrained(tmp_path / "pipeline")
    rights = {file.stat().st_mode & 0o777 for file in (tmp_path / "pipeline").rglob("*.*") if file.is_file()}
    (tmp_path / "plain").touch()
    assert rights == {(tmp_path / "plain").stat().st_mode & 0o777}
    generator = load_generator(tmp_path / "pipeline")
    generator.configure(DDIMOptions(t0=1.0, steps=5))
    latents = generator.sample_latents(0, range(2))
    pipeline.scheduler.set_timesteps(5)
    x = latents
    with torch.no_grad():
        for timestep in pipeline.scheduler.timesteps:
            x = pipeline.scheduler.step(pipeline.unet(x, timestep).sample, timestep, x).prev_sample
        torch.testing.assert_close(generator(latents), x, atol=1e-5, rtol=1e-5)


def test_delivered_autoencoder_has_statistics_of_z_sem(tmp_path, small):
    train("autoencoder", tmp_path)
    generator = load_generator(tmp_path / "autoencoder.safetensors")
    assert isinstance(generator, DiffusionAutoencoder)
    people = Photos(tmp_path.parent / "photos", 1).batch("statistics", 0, 16)
    with torch.no_grad():
        z_sem = generator.encoder(people)
    torch.testing.assert_close(generator.z_mean, z_sem.mean(0), atol=2e-3, rtol=2e-2)
