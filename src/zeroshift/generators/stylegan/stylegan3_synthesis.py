"""StyleGAN3Synthesis network of StyleGAN3 (Karras et al., 2021): Fourier features, filtered convolutions, RGB layer."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.stylegan.blocks import EqualLinear, recomputed
from zeroshift.generators.stylegan.stylegan3_filters import design_lowpass, downsample, upsample

__all__ = ["Band", "StyleGAN3Synthesis", "plan_bands"]

_MAX_STEP = 16  # ratio of the sampling rates of neighboring layers; the published models have 2
_MAX_WIDTH = 1  # half the width of a transition band relative to the sampling rate; the published models stay below 0.5


@dataclass(frozen=True)
class Band:
    """Output signal of a layer: grid, frequencies, channels."""

    size: int
    rate: int
    cutoff: float
    half_width: float
    channels: int


def plan_bands(
    resolution: int,
    channel_base: int,
    channel_max: int,
    num_layers: int,
    num_critical: int,
    first_cutoff: float,
    first_stopband: float,
    last_stopband_rel: float,
    margin_size: int,
) -> list[Band]:
    """Bands of the layers L0 ... and, last, of the image (Karras et al., 2021, appendix C.1 and C.2).

    Cutoffs and stopbands grow geometrically up to the last `num_critical` layers, which use the whole image band.
    """
    last_cutoff = resolution / 2
    exponents = np.minimum(np.arange(num_layers + 1) / (num_layers - num_critical), 1)
    cutoffs = first_cutoff * (last_cutoff / first_cutoff) ** exponents
    stopbands = first_stopband * (last_cutoff * last_stopband_rel / first_stopband) ** exponents
    rates = np.exp2(np.ceil(np.log2(np.minimum(stopbands * 2, resolution))))
    half_widths = np.maximum(stopbands, rates / 2) - cutoffs
    sizes = rates + 2 * margin_size
    sizes[-2:] = resolution  # the last two need no margin
    steps = rates[1:] / rates[:-1]
    widest, steps = (half_widths / rates).max(), np.maximum(steps, 1 / steps).max()
    if not (rates.min() >= 1 and half_widths.min() > 0 and widest < _MAX_WIDTH and steps <= _MAX_STEP):
        raise ZeroshiftError(f"These sizes do not fit a StyleGAN3: its layers have sampling rates of {rates.tolist()}.")
    channels = np.rint(np.minimum(channel_base / 2 / cutoffs, channel_max))
    channels[-1] = 3
    columns = zip(sizes, rates, cutoffs, half_widths, channels, strict=True)
    return [Band(int(s), int(r), float(c), float(h), int(n)) for s, r, c, h, n in columns]


class FourierInput(nn.Module):
    """Fourier features, rotated and shifted by an affine map of w, then mixed by a 1x1 convolution (section 3.2)."""

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, w_dim: int, band: Band):
        super().__init__()
        self.size, self.rate, self.cutoff = band.size, band.rate, band.cutoff
        frequencies = torch.randn(band.channels, 2)
        radii = frequencies.norm(dim=1, keepdim=True)
        # A normal sample becomes uniform in the disc of radius `cutoff`, by the published program's approximation.
        frequencies = frequencies / (radii * radii.square().exp().pow(0.25)) * band.cutoff
        self.weight = nn.Parameter(torch.randn(band.channels, band.channels))
        self.affine = EqualLinear(w_dim, 4)
        with torch.no_grad():  # neither rotated nor shifted
            self.affine.weight.zero_()
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        self.register_buffer("transform", torch.eye(3))  # set by users: inverse, in image coordinates
        self.register_buffer("freqs", frequencies)
        self.register_buffer("phases", torch.rand(band.channels) - 0.5)

    def forward(self, w: Tensor) -> Tensor:
        """w [N, w_dim] -> float32 [N, channels, size, size], channels_last."""
        with torch.autocast(w.device.type, enabled=False):  # phases need float32
            transform = self._rotate_and_shift(w) @ self.transform  # [N, 3, 3]
            phases = self.phases + (transform[:, :2, 2] @ self.freqs.t())  # [N, C]
            freqs = self.freqs @ transform[:, :2, :2]  # [N, C, 2]
            # A user's transform may push frequencies out of the band; those fade out.
            headroom = self.rate / 2 - self.cutoff
            amplitudes = (1 - (freqs.norm(dim=2) - self.cutoff) / headroom).clamp(0, 1)  # [N, C]
            grid = (torch.arange(self.size, device=w.device) + 0.5 - self.size / 2) / self.rate  # pixel centers
            x_part = grid[:, None] * freqs[:, None, None, :, 0]  # [N, 1, W, C]
            y_part = grid[:, None, None] * freqs[:, None, None, :, 1]  # [N, H, 1, C]
            features = torch.sin(2 * math.pi * (x_part + y_part + phases[:, None, None, :]))  # [N, H, W, C]
            features = features * amplitudes[:, None, None, :]
            mixed: Tensor = features @ (self.weight / math.sqrt(self.weight.shape[1])).t()
            return mixed.permute(0, 3, 1, 2)

    def _rotate_and_shift(self, w: Tensor) -> Tensor:
        """Rotation after translation, [N, 3, 3], both inverse relative to the image."""
        t = self.affine(w)
        cos, sin, right, down = (t / t[:, :2].norm(dim=1, keepdim=True)).unbind(dim=1)
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        rows = [cos, -sin, sin * down - cos * right, sin, cos, -sin * right - cos * down, zero, zero, one]
        return torch.stack(rows, dim=1).view(-1, 3, 3)


class FilteredConv(nn.Module):
    """Modulated convolution, then a leaky ReLU at a higher sampling rate between two low-pass filters (section 3.1).

    As in our StyleGAN2, styles scale the input channels and demodulation scales the output channels of one shared
    kernel. The published program divides styles by their root mean square over the batch, we by that of each sample.
    The factor cancels in the demodulation, and samples stay independent of each other.
    """

    magnitude_ema: Tensor
    up_filter: Tensor
    down_filter: Tensor

    def __init__(
        self,
        w_dim: int,
        source: Band,
        target: Band,
        *,
        kernel: int,
        filter_size: int,
        lrelu_upsampling: int,
        radial: bool,
        clamp: float | None,
    ):
        super().__init__()
        self.size, self.clamp = target.size, clamp
        self.affine = EqualLinear(w_dim, source.channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(target.channels, source.channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(target.channels))
        self.register_buffer("magnitude_ema", torch.ones(()))
        rate = max(source.rate, target.rate) * lrelu_upsampling
        self.up, self.down = rate // source.rate, rate // target.rate
        up_taps, down_taps = filter_size * self.up, filter_size * self.down
        up_filter = design_lowpass(up_taps, source.cutoff, 2 * source.half_width, rate)
        down_filter = design_lowpass(down_taps, target.cutoff, 2 * target.half_width, rate, radial=radial)
        self.register_buffer("up_filter", up_filter, persistent=False)
        self.register_buffer("down_filter", down_filter, persistent=False)
        # The centers of both grids coincide (appendix C.3). Size and crop of the upsampled image:
        self.upsampled_size = (target.size - 1) * self.down + down_taps
        padding = self.upsampled_size + up_taps - 1 - (source.size + kernel - 1) * self.up
        self.crop = up_taps - 1 - (padding + self.up) // 2
        if self.crop < 0:
            raise ZeroshiftError("These sizes do not fit a StyleGAN3: the filters reach beyond the margin.")

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, in_channels, H, H], w [N, w_dim] -> [N, out_channels, size, size]."""
        with torch.autocast(x.device.type, enabled=False):
            style = self.affine(w)  # [N, in_channels]
            style = style * style.square().mean(dim=1, keepdim=True).rsqrt()
            kernel = self.weight * self.weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
            # Karras et al. (2020), equation 3
            demodulation = (style.square() @ kernel.square().sum(dim=(2, 3)).t() + 1e-8).rsqrt()  # [N, out_channels]
            style = style * self.magnitude_ema.rsqrt()
        x = F.conv2d(x * style[:, :, None, None].to(x.dtype), kernel, padding=kernel.shape[-1] - 1)
        # The gain sqrt(2) commutes with the leaky ReLU; applied here, it needs no extra pass over the image.
        scale, offset = (demodulation * math.sqrt(2))[:, :, None, None], (self.bias * math.sqrt(2))[:, None, None]
        x = torch.addcmul(offset.to(x.dtype), x, scale.to(x.dtype))
        x = F.leaky_relu(upsample(x, self.up_filter, self.up, self.crop, self.upsampled_size), 0.2, inplace=True)
        if self.clamp is not None:
            x = x.clamp(-self.clamp, self.clamp)
        return downsample(x, self.down_filter, self.down)  # [N, out_channels, size, size]


class StyleGAN3ToRGB(nn.Module):
    """Modulated 1x1 convolution to RGB, without demodulation or filters."""

    magnitude_ema: Tensor

    def __init__(self, w_dim: int, source: Band, *, clamp: float | None):
        super().__init__()
        self.clamp = clamp
        self.affine = EqualLinear(w_dim, source.channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(3, source.channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.register_buffer("magnitude_ema", torch.ones(()))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, in_channels, R, R], w [N, w_dim] -> float32 [N, 3, R, R]."""
        style = self.affine(w) / math.sqrt(x.shape[1]) * self.magnitude_ema.rsqrt()
        x = F.conv2d(x * style[:, :, None, None].to(x.dtype), self.weight).float() + self.bias[:, None, None]
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class StyleGAN3Synthesis(nn.Module):
    """ws [N, num_ws, w_dim] -> image. Row 0 transforms the Fourier features, row i + 1 is the style of layer i."""

    def __init__(
        self,
        w_dim: int,
        bands: list[Band],
        *,
        num_critical: int,
        output_scale: float,
        radial: bool,
        clamp: float | None,
        **filtered: int,
    ):
        super().__init__()
        self.output_scale = output_scale
        self.checkpointing = False
        self.input = FourierInput(w_dim, bands[0])
        self.names: list[str] = []
        last = len(bands) - 1
        for index, (source, target) in enumerate(zip([bands[0], *bands[:-1]], bands, strict=True)):
            layer: nn.Module
            if index == last:
                layer = StyleGAN3ToRGB(w_dim, source, clamp=clamp)
            else:  # critically sampled layers have the separable filter in configuration R, too
                is_radial = radial and index < last - num_critical
                layer = FilteredConv(w_dim, source, target, radial=is_radial, clamp=clamp, **filtered)
            self.names.append(f"L{index}_{target.size}_{target.channels}")
            self.add_module(self.names[-1], layer)

    def forward(self, ws: Tensor) -> Tensor:
        rows = ws.float().unbind(dim=1)
        x = self.input(rows[0])
        for name, w in zip(self.names, rows[1:], strict=True):
            x = recomputed(self.checkpointing, self.get_submodule(name), x, w)
        images: Tensor = x * self.output_scale
        return images
