"""Low-pass filters of StyleGAN3 (Karras et al., 2021, appendices B and C)."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["design_lowpass", "downsample", "upsample"]


def design_lowpass(taps: int, cutoff: float, width: float, rate: float, *, radial: bool = False) -> Tensor:
    """A Kaiser-windowed low-pass filter whose taps sum to one, designed in float64, returned in float32.

    Args:
        taps: number of taps along an axis.
        cutoff: frequency where the gain is one half, below rate / 2.
        width: width of the transition band, in the units of `cutoff`.
        rate: sampling rate of the filter.
        radial: radially symmetric filter (jinc instead of sinc), equivariant to rotation (config R).

    Returns:
        [taps], to be applied along both axes, or [taps, taps] if radial.

    Karras et al. (2021), appendix B, equations 4 to 8 (Kaiser's formulas for attenuation and beta) and 14 (jinc).
    """
    offsets = np.arange(taps) - (taps - 1) / 2
    window = np.kaiser(taps, _kaiser_beta(2.285 * (taps - 1) * math.pi * width / (rate / 2) + 7.95))
    if not radial:
        filter = np.sinc(2 * cutoff / rate * offsets) * window
    else:
        radius = np.hypot(offsets[:, None], offsets[None, :]) / rate
        # An odd number of taps has one in the center, where jinc takes its limit, pi cutoff^2 / (pi cutoff).
        bessel = torch.special.bessel_j1(torch.from_numpy(2 * math.pi * cutoff * radius)).numpy()
        jinc = np.divide(bessel, math.pi * radius, out=np.full_like(radius, cutoff), where=radius > 0)
        filter = jinc * np.outer(window, window)
    return torch.from_numpy(filter / filter.sum()).float()


def _kaiser_beta(attenuation: float) -> float:
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    excess = max(attenuation - 21, 0.0)
    return float(0.5842 * excess**0.4 + 0.07886 * excess)


def upsample(x: Tensor, filter: Tensor, factor: int, crop: int, size: int) -> Tensor:
    """Inserts factor - 1 zeros after each pixel, convolves with `filter` [taps] along both axes and crops.

    x is [N, C, H, W]; the result is [N, C, size, size], `crop` pixels from the top left corner of the full convolution.
    The mean of the signal does not change. Fastest for channels_last, and always computed in float32: depthwise
    transposed convolutions have no fast bfloat16 kernel on a CPU (nine times slower).
    """
    channels = x.shape[1]
    taps = (filter * factor).expand(channels, 1, -1)
    with torch.autocast(x.device.type, enabled=False):
        y = F.conv_transpose2d(x.float(), taps[..., None], stride=(factor, 1), padding=(crop, 0), groups=channels)
        y = F.conv_transpose2d(y, taps[:, :, None], stride=(1, factor), padding=(0, crop), groups=channels).to(x.dtype)
    return y if y.shape[-1] == size else y[:, :, :size, :size]


def downsample(x: Tensor, filter: Tensor, factor: int) -> Tensor:
    """Convolves x [N, C, H, W] with `filter`, [taps] along both axes or [taps, taps], and keeps every factor-th pixel.

    No padding: each side becomes (side - taps) // factor + 1.
    """
    channels = x.shape[1]
    taps = filter.to(x.dtype)
    if filter.ndim == 2:
        return F.conv2d(x, taps.expand(channels, 1, -1, -1), stride=factor, groups=channels)
    taps = taps.expand(channels, 1, -1)
    x = F.conv2d(x, taps[..., None], stride=(factor, 1), groups=channels)
    return F.conv2d(x, taps[:, :, None], stride=(1, factor), groups=channels)
