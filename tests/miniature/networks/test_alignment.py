"""Face alignment undoes the pose."""

import pytest
import torch

from zeroshift.miniature.networks.alignment import CROP, align_faces
from zeroshift.miniature.world.domains import SOURCE
from zeroshift.miniature.world.factors import FACTOR_INDEX, FACTORS, positions
from zeroshift.miniature.world.renderer import render, sample_latents

POSE = {"x_position": 0.9, "y_position": -0.8, "scale": 0.9, "yaw": 0.6, "tilt": -0.9}  # coordinates of the latent


def people(pose: dict[str, float]) -> torch.Tensor:
    """Latents [8, 32] of the same people in a pose; the lightness of the background takes what the norm leaves."""
    latents = 0.7 * sample_latents(5, range(8))
    for name in POSE:
        latents[:, FACTOR_INDEX[name]] = pose.get(name, 0.0)
    slack = FACTOR_INDEX["background_lightness"]
    latents[:, slack] = 0
    latents[:, slack] = (latents.shape[1] - latents.square().sum(dim=1)).sqrt()
    return latents


def aligned(latents: torch.Tensor, as_if: torch.Tensor) -> torch.Tensor:
    u = positions(as_if)
    faces = align_faces(render(latents, SOURCE, 0), {factor.name: u[:, i] for i, factor in enumerate(FACTORS)})
    assert faces.shape == (8, 3, CROP, CROP)
    return faces[..., CROP // 4 : -CROP // 4, CROP // 4 : -CROP // 4]


@pytest.mark.parametrize("moved", [*POSE, "all"])
def test_alignment_undoes_the_pose(moved: str) -> None:
    straight = people({})
    turned = people(POSE if moved == "all" else {moved: POSE[moved]})
    expected = aligned(straight, straight)
    error, without = ((aligned(turned, pose) - expected).square().mean() for pose in (turned, straight))
    assert error < 0.5 * without
