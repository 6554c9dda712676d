"""Pixel losses and measures."""

import numpy as np
import pytest
import torch

from zeroshift.miniature.exams import pixels
from zeroshift.miniature.world.renderer import render, sample_latents


def test_portrait_loss_is_zero_for_the_truth_and_largest_for_errors_at_the_eyes():
    truth = render(sample_latents(0, range(2)))
    assert pixels.portrait_loss(truth, truth) == 0

    def with_a_spot_at(row: int, column: int) -> torch.Tensor:
        images = truth.clone()
        images[:, :, row : row + 4, column : column + 4] += 0.5
        return pixels.portrait_loss(images, truth)

    assert with_a_spot_at(26, 24) > 2 * with_a_spot_at(54, 54)


def test_portrait_loss_equals_its_numpy_twin():
    random = torch.Generator().manual_seed(0)
    images, truth = (torch.rand(2, 3, 16, 16, generator=random) for _ in range(2))
    centers = (np.arange(16) + 0.5) / 8 - 1
    w = 1 + 2 * np.exp(-((centers[None, :] / 0.40) ** 2) - ((centers[:, None] + 0.12) / 0.26) ** 2)
    d, total = (images - truth).numpy(), 0.0
    for _ in range(3):
        total += np.mean(np.abs(d) * w)
        total += np.mean(np.abs(d[..., 1:] - d[..., :-1]) * w[:, 1:])
        total += np.mean(np.abs(d[..., 1:, :] - d[..., :-1, :]) * w[1:])
        d = (d[..., ::2, ::2] + d[..., 1::2, ::2] + d[..., ::2, 1::2] + d[..., 1::2, 1::2]) / 4
        w = (w[::2, ::2] + w[1::2, ::2] + w[::2, 1::2] + w[1::2, 1::2]) / 4
    assert pixels.portrait_loss(images, truth).item() == pytest.approx(total / 3, rel=1e-5)


def test_psnr_equals_its_numpy_twin():
    a, b = torch.rand(2, 3, 8, 8) * 2 - 1, torch.rand(2, 3, 8, 8) * 2 - 1
    expected = 20 * np.log10(2 / np.sqrt(np.mean((a.numpy() - b.numpy()) ** 2)))
    assert pixels.psnr(a, b).item() == pytest.approx(expected, rel=1e-5)
