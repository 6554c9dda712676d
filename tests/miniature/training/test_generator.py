"""The recipe of the StyleGAN2 generator."""

import pytest
import torch
from safetensors.torch import load_file

from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.miniature.training import generator as recipe
from zeroshift.miniature.world.factors import NUM_FACTORS
from zeroshift.miniature.world.renderer import sample_latents


@pytest.fixture
def small(monkeypatch, small_blocks):
    """A recipe with a tiny network and data set."""
    monkeypatch.setattr(recipe, "CHANNELS", {4: 8, 8: 8, 16: 8, 32: 4, 64: 4})
    monkeypatch.setattr(recipe, "STAGES", ((16, 2), (32, 3)))
    monkeypatch.setattr(recipe, "EXAM_PEOPLE", 2)


def network(resolution: int = 64) -> StyleGAN2:
    channels = {4: 8, 8: 8, 16: 8, 32: 4, 64: 4}
    torch.manual_seed(0)
    return StyleGAN2(
        resolution, NUM_FACTORS, recipe.W_DIM, mapping_layers=2, mapping_features=recipe.MAPPING_FEATURES,
        channels={size: width for size, width in channels.items() if size <= resolution},
    )  # fmt: skip


def test_lower_shares_its_modules():
    whole = network()
    cut = recipe.lower(whole, 16)
    assert {id(p) for p in cut.parameters()} < {id(p) for p in whole.parameters()}
    latents = sample_latents(0, range(2))
    assert cut(latents, noise_mode="none").shape == (2, 3, 16, 16)
    same = network(16)
    same.load_state_dict(cut.state_dict())
    assert torch.equal(cut(latents), same(latents))


def train(folder, **changes):
    settings = {"steps": 5, "batch": 3, "seed": 1, **changes}
    return recipe.train_generator(folder, weights=folder / "generator.safetensors", **settings)


@pytest.mark.slow
def test_interrupted_training_equals_uninterrupted(tmp_path, small, monkeypatch):
    assert train(tmp_path / "whole") == 5
    assert train(tmp_path / "parts", minutes=0) == 1
    assert train(tmp_path / "parts", minutes=0) == 2
    assert train(tmp_path / "parts") == 5
    whole, parts = (load_file(tmp_path / name / "generator.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_training_delivers_a_generator_file(tmp_path, small):
    train(tmp_path)
    generator = load_generator(tmp_path / "generator.safetensors")
    assert isinstance(generator, StyleGAN2)
    assert (generator.resolution, generator.num_ws, generator.latent_shape) == (64, 10, (NUM_FACTORS,))
    latents = generator.sample_latents(0, range(3))
    assert torch.equal(latents, sample_latents(0, range(3)))  # z is the world's z
    images = generator(latents, noise_mode="const")
    torch.testing.assert_close(
        generator(latents, noise_mode="none"), images, atol=1e-5, rtol=0
    )  # no processor rounds more
    torch.testing.assert_close(
        generator.mapping.w_avg, generator.mapper_input(torch.randn(20000, 32)).mean(dim=0), atol=0.06, rtol=0
    )
