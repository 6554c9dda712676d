"""Portraits, the training images of the generator."""

import torch

from zeroshift.miniature.training import portraits
from zeroshift.miniature.world.factors import FACTORS
from zeroshift.miniature.world.renderer import render, sample_latents


def test_portrait_is_the_renderers_photo():
    latents = sample_latents(3, range(6))
    torch.testing.assert_close(portraits.portrait(latents, torch.ones(6)), render(latents))


def test_truncated_portrait_moves_scalars_only(monkeypatch):
    latents = sample_latents(3, range(6))
    truncated = {}
    monkeypatch.setattr(portraits, "build_scene", lambda values, being: truncated.update(values))
    monkeypatch.setitem(portraits.DEPICT, "photo", lambda scene, noise: torch.zeros(6, 3, 64, 64))
    portraits.portrait(latents, torch.full((6,), 0.25))
    whole = portraits.values(latents)
    for factor in FACTORS:
        if factor.is_class:
            assert torch.equal(truncated[factor.name], whole[factor.name])
        else:
            middle = (factor.low + factor.high) / 2
            torch.testing.assert_close(truncated[factor.name] - middle, 0.25 * (whole[factor.name] - middle))


def test_portraits_are_those_of_their_latents_and_grow(tmp_path, small_blocks):
    source = portraits.Portraits(tmp_path, seed=1)
    latents, truncation, images = source.batch(0, 8)
    assert torch.equal(truncation, torch.ones(8))
    assert (images - render(latents)).abs().max() < 1.01 / 127.5
    assert len(list(tmp_path.iterdir())) == 1
    _, truncation, _ = source.batch(40, 64)
    assert len(list(tmp_path.iterdir())) == 21
    assert 0.5 <= truncation.min() < 1
    assert 0.15 < (truncation < 1).float().mean() < 0.55  # one block in three, in this test


def test_portraits_are_read_from_files_after_a_restart(tmp_path, small_blocks, monkeypatch):
    before = portraits.Portraits(tmp_path, seed=1).batch(9, 8)
    monkeypatch.setattr(portraits, "portrait", None)  # nothing is rendered again
    for a, b in zip(before, portraits.Portraits(tmp_path, seed=1).batch(9, 8), strict=True):
        assert torch.equal(a, b)
