"""Square crops of photos: cut out, rotated if needed, and pasted back with feathered edges."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.errors import ZeroshiftError

__all__ = ["Crop", "box_crop", "center_crop", "face_crop"]

_BORDER = 0.1  # of the side of a crop: how much of the padding is blurred at least
_PADDING = 0.3  # of the side: padding around a crop that leaves the photo
_BLUR = 0.02  # of the side: standard deviation of the blur
_FEATHER = 0.08  # of the side: width of the seam when a crop is pasted


@dataclass(frozen=True)
class Crop:
    """A square in a photo, possibly rotated, possibly beyond its edges.

    Attributes:
        center: (x, y) in pixels; (0, 0) is the upper left corner of the photo.
        axis: (x, y), from the center to the middle of the right edge. Its length is half of the side.
    """

    center: tuple[float, float]
    axis: tuple[float, float]

    @property
    def side(self) -> float:
        """Length of an edge in pixels."""
        return 2 * math.hypot(*self.axis)

    def cut(self, photo: Tensor, resolution: int) -> Tensor:
        """The crop of a photo [3, H, W] in [-1, 1]: [3, resolution, resolution].

        Beyond the edges the photo continues by reflection, increasingly blurred, as in the FFHQ data set.
        """
        shrink = int(self.side / resolution / 2)
        if shrink > 1:  # leaves at least two samples per pixel; the padding and its blur would take long
            smaller = Crop(
                (self.center[0] / shrink, self.center[1] / shrink), (self.axis[0] / shrink, self.axis[1] / shrink)
            )
            if min(photo.shape[-2:]) >= shrink:
                return smaller.cut(F.avg_pool2d(photo[None], shrink)[0], resolution)
        padded, left, top = self._padded(photo)
        factor = max(1, math.ceil(self.side / resolution))  # samples per pixel and direction, against aliasing
        grid = self._grid(resolution * factor)
        grid = grid + torch.tensor([left, top], dtype=grid.dtype)
        sampled = _sampled(padded, grid)
        return F.avg_pool2d(sampled[None], factor)[0].clamp(-1, 1)

    def paste(self, photo: Tensor, crop: Tensor) -> Tensor:
        """The photo [3, H, W] with a changed crop [3, R, R] in its place, both in [-1, 1]; the seam is feathered."""
        height, width = photo.shape[-2:]
        ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        (cx, cy), (ax, ay) = self.center, self.axis
        half = math.hypot(ax, ay)
        u = ((xs - cx) * ax + (ys - cy) * ay) / half**2  # -1 to 1 from the left to the right edge
        v = ((ys - cy) * ax - (xs - cx) * ay) / half**2  # -1 to 1 from the upper to the lower edge
        resolution = crop.shape[-1]
        factor = max(1, math.ceil(resolution / self.side))
        smaller = F.avg_pool2d(crop[None], factor, ceil_mode=True) if factor > 1 else crop[None]
        drawn = F.grid_sample(
            smaller, torch.stack([u, v], dim=-1)[None], mode="bilinear", padding_mode="border", align_corners=False
        )[0]
        distances = [one for edge, one in self._edges(u, v).items() if _is_inside(edge, width, height)]
        inside = torch.stack([torch.full_like(u, 2), *distances]).amin(dim=0)  # 0 at the edge, 1 in the center
        inside = torch.where((u.abs() <= 1) & (v.abs() <= 1), inside, 0)
        weight = (inside / (2 * _FEATHER)).clamp(0, 1)
        weight = weight * weight * (3 - 2 * weight)  # smoothstep
        return torch.lerp(photo, drawn, weight)

    def _edges(self, u: Tensor, v: Tensor) -> dict[tuple[float, float], Tensor]:
        """The middles (x, y) of the four edges, and the distance of points from each, in half sides."""
        (cx, cy), (ax, ay) = self.center, self.axis
        return {
            (cx + ax, cy + ay): 1 - u,
            (cx - ax, cy - ay): 1 + u,
            (cx - ay, cy + ax): 1 - v,
            (cx + ay, cy - ax): 1 + v,
        }

    def _grid(self, samples: int) -> Tensor:
        """Positions (x, y) in the photo of samples x samples points of the crop: [samples, samples, 2]."""
        steps = (torch.arange(samples, dtype=torch.float64) + 0.5) / samples * 2 - 1
        v, u = torch.meshgrid(steps, steps, indexing="ij")
        (cx, cy), (ax, ay) = self.center, self.axis
        return torch.stack([cx + u * ax - v * ay, cy + u * ay + v * ax], dim=-1)

    def _padded(self, photo: Tensor) -> tuple[Tensor, int, int]:
        """The part of the photo around the crop, padded where the crop leaves it; and the offset of its corner."""
        height, width = photo.shape[-2:]
        reach = abs(self.axis[0]) + abs(self.axis[1])  # half of the bounding box
        border = max(round(self.side * _BORDER), 3)
        low = [math.floor(c - reach) - border for c in self.center]
        high = [math.ceil(c + reach) + border for c in self.center]
        left, top, right, bottom = -low[0], -low[1], high[0] - width, high[1] - height
        if max(left, top, right, bottom) <= border:  # the crop lies inside the photo
            x0, y0 = max(low[0], 0), max(low[1], 0)
            return photo[:, y0 : min(high[1], height), x0 : min(high[0], width)], -x0, -y0
        least = round(self.side * _PADDING)
        sides = [max(each, least) for each in (left, right, top, bottom)]
        padded = np.pad(photo.numpy(), ((0, 0), (sides[2], sides[3]), (sides[0], sides[1])), mode="reflect")
        return _blurred_border(torch.from_numpy(padded), sides, self.side), sides[0], sides[2]


def _blurred_border(padded: Tensor, sides: list[int], side: float) -> Tensor:
    """Blurs the padding, and moves its outer part toward the median color."""
    height, width = padded.shape[-2:]
    left, right, top, bottom = (max(each, 1) for each in sides)
    xs, ys = torch.arange(width, dtype=torch.float32), torch.arange(height, dtype=torch.float32)[:, None]
    x = 1 - torch.minimum(xs / left, (width - 1 - xs) / right)
    y = 1 - torch.minimum(ys / top, (height - 1 - ys) / bottom)
    depth = torch.maximum(x.expand(height, width), y.expand(height, width))  # 1 at the outer edge, below 0 inside
    deviation = max(side * _BLUR, 0.1)
    kernel = 2 * min(math.ceil(3 * deviation), (min(height, width) - 1) // 2) + 1
    from torchvision.transforms.v2.functional import gaussian_blur  # takes seconds to import

    blurred = gaussian_blur(padded, [kernel, 1], [deviation, deviation])
    blurred = gaussian_blur(blurred, [1, kernel], [deviation, deviation])
    padded = torch.lerp(padded, blurred, (3 * depth + 1).clamp(0, 1))
    median = padded.flatten(1).median(dim=1).values[:, None, None]
    return torch.lerp(padded, median, depth.clamp(0, 1))


def _is_inside(point: tuple[float, float], width: int, height: int) -> bool:
    """Whether an edge with this middle lies inside a photo, so that its seam shows."""
    x, y = point
    return 1 < x < width - 1 and 1 < y < height - 1


def _sampled(image: Tensor, positions: Tensor) -> Tensor:
    """Bilinear samples of an image [3, H, W] at positions (x, y) [h, w, 2] in pixels: [3, h, w]."""
    height, width = image.shape[-2:]
    scale = torch.tensor([2 / width, 2 / height], dtype=positions.dtype)
    grid = (positions * scale - 1).to(image.dtype)
    return F.grid_sample(image[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False)[0]


def center_crop(photo: Tensor) -> Crop:
    """The largest square in the middle of a photo [3, H, W]."""
    height, width = photo.shape[-2:]
    return Crop((width / 2, height / 2), (min(height, width) / 2, 0.0))


def box_crop(photo: Tensor, left: float, top: float, side: float) -> Crop:
    """A square of the user's choice in a photo [3, H, W], in pixels.

    Raises:
        ZeroshiftError: if it does not touch the photo, or has an unsuitable size.
    """
    height, width = photo.shape[-2:]
    if not 8 <= side <= 4 * max(height, width):
        raise ZeroshiftError(
            f"The side of the box is {side:g}; it must be at least 8 pixels, and at most four times the longer side of "
            f"the photo, {max(height, width)}."
        )
    if left >= width or top >= height or left + side <= 0 or top + side <= 0:
        raise ZeroshiftError(
            f"The box {left:g},{top:g},{side:g} (left, top, side in pixels) does not fit a photo of {width} x {height}."
        )
    return Crop((left + side / 2, top + side / 2), (side / 2, 0.0))


def face_crop(left_eye: Tensor, right_eye: Tensor, mouth: Tensor) -> Crop:
    """The crop of a face as in FFHQ (Karras et al., 2019, appendix C), from the centers (x, y) of eyes and mouth.

    Left and right as seen in the photo. The half side is the larger of twice the distance of the eyes and 1.8 times
    that of eyes and mouth; the center lies a tenth of the way from the eyes to the mouth.
    """
    eyes = (left_eye + right_eye) / 2
    across, down = right_eye - left_eye, mouth - eyes
    axis = across + torch.stack([down[1], -down[0]])  # the mean of both directions, turned to the right
    axis = axis / axis.norm() * torch.maximum(2 * across.norm(), 1.8 * down.norm())
    center = eyes + 0.1 * down
    return Crop((center[0].item(), center[1].item()), (axis[0].item(), axis[1].item()))
