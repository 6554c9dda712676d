"""Augmented views: random crops and turns of an image that guide in its place.

A small encoder can be satisfied by faint patterns that fit one placement of an image; it sees every view through
another one (as in CLIP-guided synthesis since Crowson et al., "VQGAN-CLIP", 2022, section 3.2).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.core.rng import stream

__all__ = ["augment"]

_SCALE = (0.75, 1.0)  # side of the crop, relative to the image's
_TURN = math.radians(12)
_SHIFT = 0.1  # beyond what keeps the crop inside, relative to the image's side


def augment(images: Tensor, views: int, *keys: int | str, samples: Sequence[int]) -> Tensor:
    """Views [views * N, C, H, W] of images [N, C, H, W], all first views first; differentiable.

    The placement of view v of image i depends on `keys`, samples[i] and v alone: the two images of a pair get the same.
    With no views, the images themselves.
    """
    if views == 0:
        return images
    draws = [torch.rand(4, generator=stream(*keys, sample, view)) for view in range(views) for sample in samples]
    scale, turn, right, down = torch.stack(draws).to(images).unbind(dim=1)
    scale = torch.lerp(torch.full_like(scale, _SCALE[0]), torch.full_like(scale, _SCALE[1]), scale)
    cos, sin = torch.cos((2 * turn - 1) * _TURN) * scale, torch.sin((2 * turn - 1) * _TURN) * scale
    room = 1 - scale + _SHIFT
    rows = (cos, -sin, (2 * right - 1) * room, sin, cos, (2 * down - 1) * room)
    affine = torch.stack(rows, dim=1).view(-1, 2, 3)
    repeated = images.repeat(views, 1, 1, 1)
    grid = F.affine_grid(affine, list(repeated.shape), align_corners=False)
    return F.grid_sample(repeated, grid, padding_mode="reflection", align_corners=False)
