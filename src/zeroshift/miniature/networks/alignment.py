"""The inner face of a portrait, laid out as if everybody stood in the same place and looked straight ahead.

A face is some 25 pixels wide, and what tells brows, noses and mouths apart is a fraction of one: less than what
position, size and turn of the head do to the same pixels. Undoing those first makes the small things easy to read.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.miniature.world.factors import FACTOR_INDEX, FACTORS

__all__ = ["CROP", "align_faces"]

CROP = 48  # pixels a side of an aligned face: nearly two for one of the picture
_WIDTH, _TOP, _BOTTOM = 0.40, -0.45, 0.55  # of the crop, in head units: half width, upper and lower end
_RADIUS = 0.45  # of the cylinder that a middling face is painted on
_STEEPEST = 1.35  # radians from the viewer, beyond which a face turns out of sight
_POSE = ("x_position", "y_position", "scale", "yaw", "tilt")


def align_faces(images: Tensor, positions: dict[str, Tensor]) -> Tensor:
    """[N, 3, 64, 64] -> [N, 3, CROP, CROP], the inverse of the coordinates in `figure.Figure`.

    Args:
        positions: u [N] of the pose factors, true or read from the images.
    """
    pose = {}
    for name in _POSE:
        factor = FACTORS[FACTOR_INDEX[name]]
        pose[name] = (factor.low + (factor.high - factor.low) * positions[name].clamp(0, 1))[:, None, None]
    like = images
    fx = torch.linspace(-_WIDTH, _WIDTH, CROP).to(like)[None, None, :]
    hy = torch.linspace(_TOP, _BOTTOM, CROP).to(like)[None, :, None]
    angle = (torch.asin(fx / _RADIUS) + pose["yaw"]).clamp(-_STEEPEST, _STEEPEST)
    hx = _RADIUS * angle.sin()
    cos, sin = pose["tilt"].cos(), pose["tilt"].sin()
    dx, dy = cos * hx - sin * hy, sin * hx + cos * hy
    x = pose["x_position"] + pose["scale"] * dx
    y = pose["y_position"] - 0.07 + pose["scale"] * dy
    return F.grid_sample(images, torch.stack([x, y], dim=3), padding_mode="border", align_corners=False)
