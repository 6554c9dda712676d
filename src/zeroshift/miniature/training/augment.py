"""Random changes to training images, strong enough that an encoder cannot live on faint patterns.

Nothing is mirrored, turned or recoloured: captions name left and right, tilt and colours.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

__all__ = ["Augmentation", "augment"]


@dataclass(frozen=True)
class Augmentation:
    """How strong each change is; shares are parts of the rows that it happens to."""

    zoom: float = 0.0  # size by exp(±zoom)
    shift: float = 0.0  # moved by ± this part of the half width
    contrast: float = 0.0  # around the image mean by exp(±contrast)
    brightness: float = 0.0
    blur: float = 0.0  # share; Gaussian, 0.5 to 1.3 pixels
    low_pass: float = 0.0  # share; down to half size and up again
    cutout: float = 0.0  # share; one square of 8 to 20 pixels in a random colour
    noise: float = 0.0  # share; Gaussian noise of a standard deviation up to noise_level
    noise_level: float = 0.0


def augment(images: torch.Tensor, how: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """[N, 3, H, W] -> the same shape, clamped to [-1, 1]; draws from `generator` alone."""
    n = len(images)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    def rows(share: float) -> torch.Tensor:
        return (uniform(n) < share).nonzero().flatten()

    out = images.clone()
    if how.zoom or how.shift:
        theta = torch.zeros(n, 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = (how.zoom * (2 * uniform(n) - 1)).exp()
        theta[:, :, 2] = how.shift * (2 * uniform(n, 2) - 1)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        out = F.grid_sample(out, grid, padding_mode="border", align_corners=False)
    if how.contrast or how.brightness:
        mean = out.mean(dim=(1, 2, 3), keepdim=True)
        gain = (how.contrast * (2 * uniform(n, 1, 1, 1) - 1)).exp()
        out = (out - mean) * gain + mean + how.brightness * (2 * uniform(n, 1, 1, 1) - 1)
    if len(chosen := rows(how.blur)):
        out[chosen] = _blur(out[chosen], 0.5 + 0.8 * uniform(len(chosen)))
    if len(chosen := rows(how.low_pass)):
        out[chosen] = F.interpolate(F.avg_pool2d(out[chosen], 2), scale_factor=2, mode="bilinear")
    if len(chosen := rows(how.cutout)):
        size = images.shape[-1]
        half = (4 + 6 * uniform(len(chosen), 1)).round()
        centre = uniform(len(chosen), 2, 1) * size
        inside = (torch.arange(size) - centre).abs() < half[:, None]  # [n, 2, size]
        square = inside[:, 0, None, :, None] & inside[:, 1, None, None, :]
        out[chosen] = torch.where(square, 2 * uniform(len(chosen), 3, 1, 1) - 1, out[chosen])
    if len(chosen := rows(how.noise)):
        level = how.noise_level * uniform(len(chosen), 1, 1, 1)
        out[chosen] += level * torch.randn(out[chosen].shape, generator=generator)
    return out.clamp(-1, 1)


def _blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur of [N, C, H, W] with a width in pixels a row, 7 taps."""
    n, channels, height, width = images.shape
    taps = torch.exp(-0.5 * (torch.arange(-3, 4) / sigma[:, None]).square())
    taps = (taps / taps.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)  # [N * C, 7]
    flat = F.pad(images.reshape(1, n * channels, height, width), (3, 3, 3, 3), mode="replicate")
    flat = F.conv2d(flat, taps[:, None, :, None], groups=n * channels)
    return F.conv2d(flat, taps[:, None, None, :], groups=n * channels).view_as(images)
