"""Face alignment: crops the face and undoes its position, scale, yaw and tilt.

A face is about 25 pixels wide, and the differences between brows, noses and mouths are fractions of a pixel, less than
the effect of the pose on the same pixels. Undoing the pose first makes small features easy to read.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.miniature.world.factors import FACTOR_INDEX, FACTORS

__all__ = ["CROP", "align_faces"]

CROP = 48  # width and height of an aligned face in pixels; almost twice the resolution of the image
_WIDTH, _TOP, _BOTTOM = 0.40, -0.45, 0.55  # of the crop, in head units: half width, upper and lower edge
_RADIUS = 0.45  # of the cylinder on which an average face lies
_STEEPEST = 1.35  # largest angle to the viewing direction, in radians; the face is hidden beyond it
_POSE = ("x_position", "y_position", "scale", "yaw", "tilt")


def align_faces(images: Tensor, positions: dict[str, Tensor]) -> Tensor:
    """Aligned faces: images [N, 3, 64, 64] -> [N, 3, CROP, CROP]. Inverts the coordinates of `figure.Figure`.

    Args:
        positions: positions u [N] of (at least) the pose factors by name, true ones or read from the images.
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
