"""Augmentations: random crops and rotations that replace an image in the losses.

Faint patterns that match one placement of an image can mislead a small encoder. Several random placements prevent this,
as in CLIP-guided synthesis since Crowson et al., "VQGAN-CLIP", 2022, section 3.2.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.core.rng import stream

__all__ = ["augment"]

_SCALE = (0.75, 1.0)  # side of the crop, relative to the side of the image
_MAX_ANGLE = math.radians(12)
_SHIFT = 0.1  # how far the crop may leave the image, relative to half its side


def augment(images: Tensor, copies: int, *keys: int | str, samples: Sequence[int]) -> Tensor:
    """Differentiable augmented copies [copies * N, C, H, W] of images [N, C, H, W]; copy 0 of all images comes first.

    The placement of copy k of image i depends only on `keys`, samples[i] and k, so the two images of a pair share it.
    With `copies` = 0 the images are returned unchanged.
    """
    if copies == 0:
        return images
    draws = [torch.rand(4, generator=stream(*keys, sample, copy)) for copy in range(copies) for sample in samples]
    scale, angle, right, down = torch.stack(draws).to(images).unbind(dim=1)
    scale = torch.lerp(torch.full_like(scale, _SCALE[0]), torch.full_like(scale, _SCALE[1]), scale)
    cos, sin = torch.cos((2 * angle - 1) * _MAX_ANGLE) * scale, torch.sin((2 * angle - 1) * _MAX_ANGLE) * scale
    room = 1 - scale + _SHIFT
    rows = (cos, -sin, (2 * right - 1) * room, sin, cos, (2 * down - 1) * room)
    affine = torch.stack(rows, dim=1).view(-1, 2, 3)
    repeated = images.repeat(copies, 1, 1, 1)
    grid = F.affine_grid(affine, list(repeated.shape), align_corners=False)
    return F.grid_sample(repeated, grid, padding_mode="reflection", align_corners=False)
