"""The miniature generator's recipe: mapping, truth, optimiser, loss, and a training that resumes."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.miniature.exams import pixels
from zeroshift.miniature.training import generator as recipe
from zeroshift.miniature.training import portraits as portraits_module
from zeroshift.miniature.training import solved_mapping
from zeroshift.miniature.training.muon import Muon, orthogonalize
from zeroshift.miniature.world.factors import FACTORS, NUM_FACTORS
from zeroshift.miniature.world.renderer import render, sample_latents


@pytest.fixture
def small(monkeypatch):
    """A recipe of tiny sizes."""
    monkeypatch.setattr(recipe, "CHANNELS", {4: 8, 8: 8, 16: 8, 32: 4, 64: 4})
    monkeypatch.setattr(recipe, "STAGES", ((16, 2), (32, 3)))
    monkeypatch.setattr(recipe, "EXAM_PEOPLE", 2)
    monkeypatch.setattr(portraits_module.Portraits, "BLOCK", 4)
    monkeypatch.setattr(portraits_module.Portraits, "FIRST", 1)
    monkeypatch.setattr(portraits_module.Portraits, "STEPS_PER_BLOCK", 2)
    monkeypatch.setattr(portraits_module.Portraits, "TRUNCATED", 2)


def network(resolution: int = 64) -> StyleGAN2:
    channels = {4: 8, 8: 8, 16: 8, 32: 4, 64: 4}
    torch.manual_seed(0)
    return StyleGAN2(
        resolution, NUM_FACTORS, recipe.W_DIM, mapping_layers=2, mapping_features=recipe.MAPPING_FEATURES,
        channels={size: width for size, width in channels.items() if size <= resolution},
    )  # fmt: skip


def test_features_are_standardised():
    features = solved_mapping.factor_features(
        torch.randn(20000, NUM_FACTORS, generator=torch.Generator().manual_seed(0))
    )
    assert features.shape[1] == sum(len(f.classes) or 1 for f in FACTORS)
    assert features.mean(dim=0).abs().max() < 0.05
    assert (features.std(dim=0) - 1).abs().max() < 0.06


def test_solved_mapping_tells_all_factors():
    mapping = network().mapping
    solved_mapping.solve_mapping(mapping, seed=1)
    z = torch.randn(4000, NUM_FACTORS, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        w = mapping(z)
    features = solved_mapping.factor_features(z)
    wrong = (w[:, : features.shape[1]] - features).square().mean(dim=0)
    assert wrong.max() < 0.03  # of a variance of one
    assert (w.mean(dim=0) - mapping.w_avg).abs().max() < 0.1
    assert w.std(dim=0).min() > 0.3  # no entry is idle


def test_solved_mapping_is_seeded():
    first, again, other = network().mapping, network().mapping, network().mapping
    for mapping, seed in ((first, 1), (again, 1), (other, 2)):
        solved_mapping.solve_mapping(mapping, seed)
    assert torch.equal(first.w_avg, again.w_avg)
    assert not torch.equal(first.w_avg, other.w_avg)


def test_portrait_is_the_renderers_photo():
    latents = sample_latents(3, range(6))
    torch.testing.assert_close(portraits_module.portrait(latents, torch.ones(6)), render(latents))


def test_truncated_portrait_moves_scalars_only(monkeypatch):
    latents = sample_latents(3, range(6))
    seen = {}
    monkeypatch.setattr(portraits_module, "build_scene", lambda values, being: seen.update(values))
    monkeypatch.setitem(portraits_module.DEPICT, "photo", lambda scene, noise: torch.zeros(6, 3, 64, 64))
    portraits_module.portrait(latents, torch.full((6,), 0.25))
    whole = portraits_module.values(latents)
    for factor in FACTORS:
        if factor.is_class:
            assert torch.equal(seen[factor.name], whole[factor.name])
        else:
            middle = (factor.low + factor.high) / 2
            torch.testing.assert_close(seen[factor.name] - middle, 0.25 * (whole[factor.name] - middle))


def test_portraits_are_those_of_their_latents_and_grow(tmp_path, small):
    portraits = portraits_module.Portraits(tmp_path, seed=1)
    latents, truncation, images = portraits.batch(0, 8)
    assert torch.equal(truncation, torch.ones(8))
    assert (images - render(latents)).abs().max() < 1.01 / 127.5
    assert len(list(tmp_path.iterdir())) == 1
    _, truncation, _ = portraits.batch(40, 64)
    assert len(list(tmp_path.iterdir())) == 21
    assert 0.5 <= truncation.min() < 1
    assert 0.3 < (truncation < 1).float().mean() < 0.7  # every other block, in this test


def test_portraits_after_a_restart(tmp_path, small, monkeypatch):
    before = portraits_module.Portraits(tmp_path, seed=1).batch(9, 8)
    monkeypatch.setattr(portraits_module, "portrait", None)  # nothing is rendered again
    for a, b in zip(before, portraits_module.Portraits(tmp_path, seed=1).batch(9, 8), strict=True):
        assert torch.equal(a, b)


def newton_schulz(matrix):
    """The naive twin: every step on the matrix itself."""
    x = matrix / matrix.norm()
    for _ in range(5):
        gram = x @ x.t()
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def test_orthogonalize_equals_the_naive_steps():
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(orthogonalize(matrix), newton_schulz(matrix), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(orthogonalize(matrix.t()), newton_schulz(matrix).t(), atol=1e-4, rtol=1e-4)


def test_orthogonalize():
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0))
    for given in (matrix, matrix.t()):
        singular = torch.linalg.svdvals(orthogonalize(given))
        assert 0.6 < singular.min() < singular.max() < 1.3
        left, _, right = torch.linalg.svd(given, full_matrices=False)
        similar = torch.cosine_similarity(orthogonalize(given).flatten(), (left @ right).flatten(), dim=0)
        assert similar > 0.97


def test_muon_steps_by_its_rate_and_fits():
    random = torch.Generator().manual_seed(0)
    kernel = torch.nn.Parameter(torch.randn(8, 6, 3, 3, generator=random))
    truth = torch.randn(8, 6, 3, 3, generator=random)
    optimiser = Muon([kernel], lr=0.05)
    start = kernel.detach().clone()
    first = (kernel - truth).square().mean()
    first.backward()
    optimiser.step()
    assert (kernel - start).square().mean().sqrt().item() == pytest.approx(0.05, rel=0.25)
    for _ in range(100):
        optimiser.zero_grad()
        loss = (kernel - truth).square().mean()
        loss.backward()
        optimiser.step()
    assert loss < 0.02 * first


def test_muon_resumes():
    def run(parts: int) -> torch.Tensor:
        kernel = torch.nn.Parameter(torch.ones(4, 5))
        state = None
        for _ in range(parts):
            optimiser = Muon([kernel], lr=0.1)
            if state:
                optimiser.load_state_dict(state)
            for _ in range(4 // parts):
                optimiser.zero_grad()
                (kernel - torch.arange(20.0).view(4, 5)).square().sum().backward()
                optimiser.step()
            state = optimiser.state_dict()
        return kernel.detach()

    assert torch.equal(run(1), run(2))


def test_lower_shares_its_modules():
    whole = network()
    cut = recipe.lower(whole, 16)
    assert {id(p) for p in cut.parameters()} < {id(p) for p in whole.parameters()}
    latents = sample_latents(0, range(2))
    assert cut(latents, noise_mode="none").shape == (2, 3, 16, 16)
    same = network(16)
    same.load_state_dict(cut.state_dict())
    assert torch.equal(cut(latents), same(latents))


def test_loss_is_zero_at_the_truth_and_heaviest_at_the_eyes():
    truth = render(sample_latents(0, range(2)))
    assert pixels.portrait_loss(truth, truth) == 0

    def with_a_spot_at(row: int, column: int) -> torch.Tensor:
        images = truth.clone()
        images[:, :, row : row + 4, column : column + 4] += 0.5
        return pixels.portrait_loss(images, truth)

    assert with_a_spot_at(26, 24) > 2 * with_a_spot_at(54, 54)


def test_loss_against_a_spelt_out_sum():
    random = torch.Generator().manual_seed(0)
    images, truth = (torch.rand(2, 3, 16, 16, generator=random) for _ in range(2))
    centres = (np.arange(16) + 0.5) / 8 - 1
    w = 1 + 2 * np.exp(-((centres[None, :] / 0.40) ** 2) - ((centres[:, None] + 0.12) / 0.26) ** 2)
    d, total = (images - truth).numpy(), 0.0
    for _ in range(3):
        total += np.mean(np.abs(d) * w)
        total += np.mean(np.abs(d[..., 1:] - d[..., :-1]) * w[:, 1:])
        total += np.mean(np.abs(d[..., 1:, :] - d[..., :-1, :]) * w[1:])
        d = (d[..., ::2, ::2] + d[..., 1::2, ::2] + d[..., ::2, 1::2] + d[..., 1::2, 1::2]) / 4
        w = (w[::2, ::2] + w[1::2, ::2] + w[::2, 1::2] + w[1::2, 1::2]) / 4
    assert pixels.portrait_loss(images, truth).item() == pytest.approx(total / 3, rel=1e-5)


def test_psnr_against_numpy():
    a, b = torch.rand(2, 3, 8, 8) * 2 - 1, torch.rand(2, 3, 8, 8) * 2 - 1
    expected = 20 * np.log10(2 / np.sqrt(np.mean((a.numpy() - b.numpy()) ** 2)))
    assert pixels.psnr(a, b).item() == pytest.approx(expected, rel=1e-5)


def train(folder, **changes):
    settings = {"steps": 5, "batch": 3, "seed": 1, **changes}
    return recipe.train_generator(folder, weights=folder / "generator.safetensors", **settings)


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


def test_rates_before_the_fall_do_not_depend_on_the_number_of_steps():
    early = [(recipe._rate(step, 1000), recipe._rate(step, 2000)) for step in range(600)]
    assert all(a == b for a, b in early)
    assert recipe._rate(999, 1000) < 0.01
