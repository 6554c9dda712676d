"""StyleGAN2 (Karras et al., 2020), skip architecture, in plain PyTorch: one implementation for CPU and GPU.

Parameters have the names of NVIDIA's stylegan2-ada-pytorch, except the learned constant: it is a separate layer
(`synthesis.input.const`), so that it can be adapted by name like the others.
"""

import math
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroshift.core.dtypes import at_least_float32
from zeroshift.core.rng import normal_on
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import NOISE_MODES, Codes, Generator
from zeroshift.generators.stylegan.base import StyleBased
from zeroshift.generators.stylegan.blocks import (
    EqualLinear,
    Mapping,
    blur,
    pixel_product,
    recomputed,
    resampling_filter,
    upsample,
)
from zeroshift.generators.stylegan.schemas import StyleGAN2Settings
from zeroshift.io.foreign import matches

__all__ = ["StyleGAN2"]


class Constant(nn.Module):
    """The learned 4x4 image at the start of the synthesis network."""

    def __init__(self, channels: int):
        super().__init__()
        self.const = nn.Parameter(torch.randn(channels, 4, 4))

    def forward(self, batch: int) -> Tensor:
        return self.const.expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)


class StyledConv(nn.Module):
    """Modulated and demodulated 3x3 convolution, noise, bias, leaky ReLU 0.2 times sqrt(2).

    Karras et al. (2020), equations 1 to 3, in another order: instead of one kernel per sample, styles scale the input
    channels and demodulation coefficients the output channels of one shared kernel. Equal in value and gradient, and
    faster on every device we measured.
    """

    noise_const: Tensor
    filter: Tensor | None

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, resolution: int, *, up: bool, clamp: float | None
    ):
        super().__init__()
        self.clamp = clamp
        self.affine = EqualLinear(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("filter", resampling_filter() if up else None, persistent=False)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """x [N, in_channels, H, W], w [N, w_dim], noise [R, R], [N, 1, R, R] or None -> [N, out_channels, R, R]."""
        style = self.affine(w)  # [N, in_channels]
        demodulation = self._demodulation(style)
        x = x * style[:, :, None, None].to(x.dtype)
        if self.filter is None:
            x = F.conv2d(x, self.weight, padding=1)
        else:
            x = blur(F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2), self.filter)
        # The gain sqrt(2) commutes with the leaky ReLU; applied here, it needs no extra pass over the image. Bias and
        # noise are added separately: their sum would not be in channels_last, and then neither would x.
        gain = math.sqrt(2)
        x = x * (demodulation * gain)[:, :, None, None].to(x.dtype)
        x.add_((self.bias * gain)[:, None, None].to(x.dtype))
        if noise is not None:
            x.add_((noise * (self.noise_strength * gain)).to(x.dtype))
        x = F.leaky_relu(x, 0.2, inplace=True)  # stores one image-sized tensor less for the backward pass
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)

    def _demodulation(self, style: Tensor) -> Tensor:
        """Equation 3: one coefficient per sample and output channel, in float32: [N, out_channels]."""
        with torch.autocast(style.device.type, enabled=False):
            energy = at_least_float32(self.weight).square().sum(dim=(2, 3))  # [out_channels, in_channels]
            return (style.square() @ energy.t() + 1e-8).rsqrt()


class StyleGAN2ToRGB(nn.Module):
    """Modulated 1x1 convolution to RGB, without demodulation."""

    def __init__(self, in_channels: int, w_dim: int, *, clamp: float | None):
        super().__init__()
        self.clamp = clamp
        self.affine = EqualLinear(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(3, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, in_channels, R, R], w [N, w_dim] -> [N, 3, R, R] in at least float32."""
        style = self.affine(w) / math.sqrt(x.shape[1])
        # With so few output channels, a matrix product is cheaper than a convolution, and one kernel per sample cheaper
        # than scaled activations, which a graph would keep.
        kernels = (self.weight[:, :, 0, 0] * style[:, None]).to(x.dtype).transpose(1, 2)  # [N, in_channels, 3]
        x = pixel_product(x.permute(0, 2, 3, 1).flatten(1, 2), kernels).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        x = at_least_float32(x) + self.bias[:, None, None]
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class Block(nn.Module):
    """One resolution: conv0, which doubles the size (except at 4x4), conv1 and torgb."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, resolution: int, clamp: float | None):
        super().__init__()
        self.conv0: StyledConv | None = None
        if resolution > 4:
            self.conv0 = StyledConv(in_channels, out_channels, w_dim, resolution, up=True, clamp=clamp)
        self.conv1 = StyledConv(out_channels, out_channels, w_dim, resolution, up=False, clamp=clamp)
        self.torgb = StyleGAN2ToRGB(out_channels, w_dim, clamp=clamp)

    def forward(
        self, x: Tensor, image: Tensor, kernel: Tensor, rows: Sequence[Tensor], noises: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Features and image of this resolution, from those of the one before, its rows of ws and its noise inputs."""
        if self.conv0 is not None:
            x = self.conv0(x, rows[0], noises[0])
        x = self.conv1(x, rows[-2], noises[-1])
        return x, self.torgb(x, rows[-1]) + upsample(image, kernel)


class StyleGAN2Synthesis(nn.Module):
    """ws [N, num_ws, w_dim] -> image. Each resolution adds its RGB output to the upsampled image of the one before."""

    filter: Tensor

    def __init__(self, resolution: int, w_dim: int, channels: dict[int, int], clamp: float | None):
        super().__init__()
        self.sizes = tuple(channels)
        self.checkpointing = False
        self.input = Constant(channels[4])
        self.register_buffer("filter", resampling_filter(), persistent=False)
        for size in self.sizes:
            self.add_module(f"b{size}", Block(channels[max(size // 2, 4)], channels[size], w_dim, size, clamp))

    def convs(self) -> list[StyledConv]:
        """The styled convolutions, input to output."""
        return [module for module in self.modules() if isinstance(module, StyledConv)]

    def forward(self, ws: Tensor, noises: Sequence[Tensor | None]) -> Tensor:
        """`noises`: one per styled convolution, as for `StyledConv.forward`."""
        rows = ws.unbind(dim=1)
        batch = ws.shape[0]  # may be symbolic, unlike len(ws)
        x = self.input(batch)
        image, row = at_least_float32(x.new_zeros(batch, 3, 2, 2)), 0
        for size in self.sizes:
            block: Block = getattr(self, f"b{size}")
            convs = 1 if block.conv0 is None else 2
            x, image = recomputed(
                self.checkpointing,
                block,
                x,
                image,
                self.filter,
                rows[row : row + convs + 1],  # torgb and the next block's conv0 share a row
                noises[row : row + convs],
            )
            row += convs
        return image


class StyleGAN2(StyleBased):
    """StyleGAN2 generator, for checkpoints of both published programs.

    Args:
        resolution: image size, a power of two, at least 4.
        z_dim, w_dim: widths of the latent and of w.
        num_classes: number of classes of a conditional mapping network; 0: unconditional.
        mapping_layers: depth of the mapping network.
        channels: feature channels by resolution, {4: ..., 8: ..., ..., resolution: ...}; keys may be strings.
        mapping_features, embed_features: hidden width and label width of the mapping network; None: w_dim.
        mapping_lr_mul: learning-rate multiplier of the mapping network.
        conv_clamp: bound on every layer's output, as in the mixed-precision models of stylegan2-ada; None: no bound.

    Raises:
        ZeroshiftError: sizes that do not fit a StyleGAN2.
    """

    architecture = "stylegan2"
    exports: ClassVar[MappingType[str, str]] = {
        "rosinality-pt": "zeroshift.generators.checkpoints.rosinality:write_rosinality",
        "nvidia-pkl": "zeroshift.generators.checkpoints.nvidia_pickle:write_nvidia_pickle",
        "onnx": "zeroshift.generators.checkpoints.network_files:write_onnx_stylegan",
        "torch-export": "zeroshift.generators.checkpoints.network_files:write_torch_stylegan",
    }
    export_suffix: ClassVar[MappingType[str, str]] = {"rosinality-pt": ".pt", "nvidia-pkl": ".pkl"}

    def __init__(
        self,
        resolution: int,
        z_dim: int = 512,
        w_dim: int = 512,
        num_classes: int = 0,
        mapping_layers: int = 8,
        channels: MappingType[int | str, int] | None = None,
        mapping_features: int | None = None,
        embed_features: int | None = None,
        mapping_lr_mul: float = 0.01,
        conv_clamp: float | None = None,
    ):
        super().__init__()
        if resolution < 4 or resolution & (resolution - 1):
            raise ZeroshiftError(f"The resolution of a StyleGAN2 is a power of two, at least 4, not {resolution}.")
        sizes = [2**power for power in range(2, int(math.log2(resolution)) + 1)]
        by_size = {size: min(32768 // size, 512) for size in sizes} if channels is None else channels
        widths = {int(size): int(width) for size, width in by_size.items()}
        if sorted(widths) != sizes or min(z_dim, w_dim, mapping_layers, *widths.values()) < 1:
            raise ZeroshiftError(f"A StyleGAN2 of {resolution} pixels needs positive channel numbers for {sizes}.")
        widths = {size: widths[size] for size in sizes}
        self.config = {
            "resolution": resolution,
            "z_dim": z_dim,
            "w_dim": w_dim,
            "num_classes": num_classes,
            "mapping_layers": mapping_layers,
            "channels": {str(size): width for size, width in widths.items()},
            "mapping_features": mapping_features,
            "embed_features": embed_features,
            "mapping_lr_mul": mapping_lr_mul,
            "conv_clamp": conv_clamp,
        }
        self.resolution, self.mapper_input_dim, self.latent_shape = resolution, w_dim, (z_dim,)
        self.num_classes, self.num_ws = num_classes, 2 * len(sizes)
        self.mapping = Mapping(
            z_dim,
            w_dim,
            num_classes,
            mapping_layers,
            features=mapping_features,
            embed_features=embed_features,
            lr_mul=mapping_lr_mul,
        )
        self.synthesis = StyleGAN2Synthesis(resolution, w_dim, widths, conv_clamp)

    @classmethod
    def from_config(cls, config: MappingType[str, Any], module: nn.Module | None = None) -> Generator:
        """As `Generator.from_config`. Sizes beyond those of any known model are refused."""
        matches(StyleGAN2Settings, dict(config), "The description of a StyleGAN2")
        return super().from_config(config, module)

    def synthesize(
        self, codes: Codes, *, noise_mode: str = "const", noise_seed: int = 0, samples: Sequence[int] | None = None
    ) -> Tensor:
        """Images [N, 3, resolution, resolution] of ws [N, num_ws, w_dim] (W+: rows may differ)."""
        if codes.shape[1:] != (self.num_ws, self.mapper_input_dim):
            raise ZeroshiftError(f"Codes must be [N, {self.num_ws}, {self.mapper_input_dim}], not {list(codes.shape)}.")
        if samples is not None and len(samples) != len(codes):
            raise ZeroshiftError(f"{len(samples)} sample numbers do not fit {len(codes)} codes.")
        if noise_mode != "random":
            samples = ()
        elif samples is None:
            samples = range(len(codes))
        images: Tensor = self.synthesis(codes, self._noises(noise_mode, noise_seed, samples))
        return images

    def _noises(self, mode: str, seed: int, samples: Sequence[int]) -> list[Tensor | None]:
        convs = self.synthesis.convs()
        if mode == "none":
            return [None for _ in convs]
        if mode == "const":
            return [conv.noise_const for conv in convs]
        if mode != "random":
            raise ZeroshiftError(f"Unknown noise mode {mode!r}: choose one of {', '.join(NOISE_MODES)}.")
        counts = [conv.noise_const.numel() for conv in convs]
        drawn = normal_on(self.device, (sum(counts),), seed, "noise", samples=samples)
        shapes = [(len(samples), 1, *conv.noise_const.shape) for conv in convs]
        return [part.reshape(shape) for part, shape in zip(torch.split(drawn, counts, dim=1), shapes, strict=True)]

    def layers(self) -> dict[str, nn.Module]:
        """Constant, styled convolutions and RGB layers of the synthesis network, input to output."""
        kinds = (Constant, StyledConv, StyleGAN2ToRGB)
        return {name: module for name, module in self.named_modules() if isinstance(module, kinds)}

    def layer_candidates(self) -> list[str]:
        """Row i of ws votes for entry i: [first conv, first to_rgb, the other convs ...], the published order.

        From the third entry on, the published program is one row off (row 1 feeds both the first to_rgb and b8.conv0).
        We keep this order, as the published choices of layers depend on it.
        """
        convs = [name for name, module in self.layers().items() if isinstance(module, StyledConv)]
        return [convs[0], "synthesis.b4.torgb", *convs[1:]]
