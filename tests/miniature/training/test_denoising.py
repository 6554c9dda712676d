"""Timesteps and loss of the diffusion recipes."""

import pytest
import torch

from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.miniature.training import denoising

UNET = {
    "sample_size": 64, "block_out_channels": (4, 4), "norm_num_groups": 2, "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
}  # fmt: skip


def test_velocity_loss_equals_a_sum_over_images_in_terms_of_the_clean_image():
    alphas = Diffusion(UNET, denoising.SCHEDULER).schedule.alphas
    images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    inputs = {}

    def predict(x, timesteps):
        inputs.update(x=x, timesteps=timesteps)
        return 0.3 * x

    loss = denoising.velocity_loss(predict, images, alphas, torch.Generator().manual_seed(2))
    total = 0.0
    for x0, xt, t in zip(images.double(), inputs["x"].double(), inputs["timesteps"], strict=True):
        alpha = float(alphas[t])
        noise = (xt - alpha**0.5 * x0) / (1 - alpha) ** 0.5
        assert 0.5 < noise.std() < 1.6
        velocity = 0.3 * xt
        clean = alpha**0.5 * xt - (1 - alpha) ** 0.5 * velocity
        snr = alpha / (1 - alpha)
        # the velocity's error is that of the clean image, over 1 - alpha
        total += min(snr + 1, 5) / (snr + 1) * float(((clean - x0) ** 2).mean()) / (1 - alpha)
    assert loss.item() == pytest.approx(total / 6, rel=1e-3)


def test_levels_are_uniform_and_spread_over_a_batch():
    drawn = [denoising.levels(10, torch.Generator().manual_seed(seed)) for seed in range(400)]
    for levels in drawn:
        assert sorted((levels // 100).tolist()) == list(range(10)) or levels.sort().values.diff().min() >= 99
    everything = torch.cat(drawn).float()
    assert everything.min() >= 0
    assert everything.max() <= 999
    assert everything.mean() == pytest.approx(499.5, abs=2)
    assert len({tuple(levels.argsort().tolist()) for levels in drawn}) > 100  # not in order
