"""Random augmentations of training images, strong enough that an encoder cannot rely on faint patterns.

Images are not mirrored, rotated or recolored, because captions mention left and right, tilt and colors.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

__all__ = ["Augmentation", "augment"]


@dataclass(frozen=True)
class Augmentation:
    """The strength of each augmentation. Fields with a probability apply to each image independently."""

    zoom: float = 0.0  # scaled by up to exp(±zoom)
    shift: float = 0.0  # by up to ± this fraction of half the image width
    contrast: float = 0.0  # scaled around the image mean by up to exp(±contrast)
    brightness: float = 0.0  # shifted by up to ± this
    blur: float = 0.0  # probability; Gaussian with a standard deviation of 0.5 to 1.3 pixels
    low_pass: float = 0.0  # probability; downsampled by two and upsampled again
    cutout: float = 0.0  # probability; a square of 8 to 20 pixels is filled with a random color
    noise: float = 0.0  # probability; Gaussian noise with a standard deviation of up to noise_level
    noise_level: float = 0.0


def augment(images: torch.Tensor, strength: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Augmented images [N, 3, H, W], clamped to [-1, 1]. All random numbers come from `generator`."""
    n = len(images)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    def rows(probability: float) -> torch.Tensor:
        return (uniform(n) < probability).nonzero().flatten()

    out = images.clone()
    if strength.zoom or strength.shift:
        theta = torch.zeros(n, 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = (strength.zoom * (2 * uniform(n) - 1)).exp()
        theta[:, :, 2] = strength.shift * (2 * uniform(n, 2) - 1)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        out = F.grid_sample(out, grid, padding_mode="border", align_corners=False)
    if strength.contrast or strength.brightness:
        mean = out.mean(dim=(1, 2, 3), keepdim=True)
        gain = (strength.contrast * (2 * uniform(n, 1, 1, 1) - 1)).exp()
        out = (out - mean) * gain + mean + strength.brightness * (2 * uniform(n, 1, 1, 1) - 1)
    if len(chosen := rows(strength.blur)):
        out[chosen] = _blur(out[chosen], 0.5 + 0.8 * uniform(len(chosen)))
    if len(chosen := rows(strength.low_pass)):
        out[chosen] = F.interpolate(F.avg_pool2d(out[chosen], 2), scale_factor=2, mode="bilinear")
    if len(chosen := rows(strength.cutout)):
        size = images.shape[-1]
        half = (4 + 6 * uniform(len(chosen), 1)).round()
        center = uniform(len(chosen), 2, 1) * size
        inside = (torch.arange(size) - center).abs() < half[:, None]  # [n, 2, size]
        square = inside[:, 0, None, :, None] & inside[:, 1, None, None, :]
        out[chosen] = torch.where(square, 2 * uniform(len(chosen), 3, 1, 1) - 1, out[chosen])
    if len(chosen := rows(strength.noise)):
        level = strength.noise_level * uniform(len(chosen), 1, 1, 1)
        out[chosen] += level * torch.randn(out[chosen].shape, generator=generator)
    return out.clamp(-1, 1)


def _blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur of [N, C, H, W] with 7 taps and one standard deviation in pixels per image, sigma [N]."""
    n, channels, height, width = images.shape
    taps = torch.exp(-0.5 * (torch.arange(-3, 4) / sigma[:, None]).square())
    taps = (taps / taps.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)  # [N * C, 7]
    flat = F.pad(images.reshape(1, n * channels, height, width), (3, 3, 3, 3), mode="replicate")
    flat = F.conv2d(flat, taps[:, None, :, None], groups=n * channels)
    return F.conv2d(flat, taps[:, None, None, :], groups=n * channels).view_as(images)
