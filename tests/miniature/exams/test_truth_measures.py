"""Single measures of the truth exam."""

import pytest
import torch
import torch.nn.functional as F

from zeroshift.miniature.exams.truth import map_distance, variance_kept
from zeroshift.miniature.networks.encoders import load_evaluator
from zeroshift.miniature.world.renderer import render, sample_latents


def test_variance_kept() -> None:
    random = torch.Generator().manual_seed(0)
    truth = torch.cat([torch.randn(200, 3, generator=random), torch.full((200, 3), 5.0)], dim=1)
    assert variance_kept(truth, truth) == pytest.approx(1)
    assert variance_kept(truth[:1].expand(200, -1), truth) == pytest.approx(0, abs=1e-6)
    middle = truth.mean(dim=0)
    assert 0.15 < variance_kept(middle + 0.5 * (truth - middle), truth) < 0.35, (
        "half the spread, a quarter of the variance"
    )
    noise = truth.clone()
    noise[:, :3] = 0
    noise[:, 3:] += torch.randn(200, 3, generator=random)
    assert variance_kept(noise, truth) < 0.1, "identical people, noisy images"


def test_map_distance_equals_its_naive_twin() -> None:
    tower = load_evaluator().image_tower
    images, truth = render(sample_latents(1, range(3))), render(sample_latents(2, range(3)))
    expected = 0.0
    for a, b in zip(images, truth, strict=True):
        maps: list[list[torch.Tensor]] = [[], []]
        for x, outputs in zip((a[None], b[None]), maps, strict=True):
            x = F.relu(tower.norm(tower.stem(x)))
            outputs.append(x)
            for block in tower.blocks:
                x = block(x)
                outputs.append(x)
        for u, v in zip(*maps, strict=True):
            u, v = u / u.norm(dim=1, keepdim=True), v / v.norm(dim=1, keepdim=True)
            expected += float((u - v).square().sum(dim=1).mean()) / 3
    assert map_distance(tower, images, truth) == pytest.approx(expected, rel=1e-4)
    assert map_distance(tower, images, images) == pytest.approx(0, abs=1e-6)
