"""The networks of a diffusion autoencoder (Preechakul et al., "Diffusion autoencoders", 2022), in plain PyTorch.

A semantic encoder computes z_sem of an image; a U-Net conditioned on z_sem and the timestep predicts the noise. Both
are the U-Net of the ablated diffusion model (Dhariwal and Nichol, 2021); the encoder is its first half, with one
convolution per block.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention", "ConditionalUNet", "ResBlock", "SemanticEncoder", "time_features"]


def time_features(timesteps: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of timesteps [N] at geometric frequencies from 1 to 1/10000 (exclusive): [N, width]."""
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps[:, None].float() * (-math.log(10000) * exponents).exp()
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class ResBlock(nn.Module):
    """A residual block; `resample` "up" doubles, "down" halves the resolution before the first convolution.

    With `embed_dim` there is a second convolution after an adaptive group norm of time and z_sem (equation 7 of the
    paper, with scales around one): z_s (t_s GroupNorm(h) + t_b). Without it, as in the encoder, there is one.
    """

    def __init__(
        self, inputs: int, outputs: int, groups: int, resample: str | None = None,
        embed_dim: int | None = None, z_dim: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.resample = resample
        self.norm0 = nn.GroupNorm(min(groups, inputs), inputs)
        self.conv0 = nn.Conv2d(inputs, outputs, 3, padding=1)
        if embed_dim is not None and z_dim is not None:
            self.time = nn.Linear(embed_dim, 2 * outputs)
            self.semantic = nn.Linear(z_dim, outputs)
            self.norm1 = nn.GroupNorm(min(groups, outputs), outputs)
            self.conv1 = nn.Conv2d(outputs, outputs, 3, padding=1)
            nn.init.zeros_(self.conv1.weight)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor | None = None, z_sem: Tensor | None = None) -> Tensor:
        """[N, inputs, H, W], time embedding [N, embed_dim], z_sem [N, z_dim] -> [N, outputs, H', W']."""
        h = self.conv0(self._resampled(F.silu(self.norm0(x))))
        if time is not None and z_sem is not None:
            scale, shift = self.time(F.silu(time))[:, :, None, None].chunk(2, dim=1)
            h = self.norm1(h) * (1 + scale) + shift
            h = self.conv1(F.silu(h * (1 + self.semantic(F.silu(z_sem))[:, :, None, None])))
        output: Tensor = self.skip(self._resampled(x)) + h
        return output

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.avg_pool2d(x, 2) if self.resample == "down" else x


class Attention(nn.Module):
    """Residual self-attention over all pixels, with one head: [N, channels, H, W] -> the same shape."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(min(groups, channels), channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)[:, None]  # [N, 1 head, HW, channels]
        mixed = F.scaled_dot_product_attention(*self.qkv(tokens).chunk(3, dim=-1))[:, 0]
        output: Tensor = x + self.out(mixed).transpose(1, 2).reshape(x.shape)
        return output


class _Stage(nn.Module):
    """A residual block, then optionally attention and a block that doubles the resolution."""

    def __init__(self, block: ResBlock, attention: Attention | None = None, up: ResBlock | None = None):
        super().__init__()
        self.block, self.attention, self.up = block, attention, up

    def forward(self, x: Tensor, time: Tensor | None = None, z_sem: Tensor | None = None) -> Tensor:
        x = self.block(x, time, z_sem)
        if self.attention is not None:
            x = self.attention(x)
        return x if self.up is None else self.up(x, time, z_sem)


class _Half(nn.Module):
    """First half of both networks: from the image to the lowest resolution and the middle blocks."""

    def __init__(
        self, resolution: int, channels: Sequence[int], blocks: int, attention: Sequence[int], groups: int,
        embed_dim: int | None = None, z_dim: int | None = None,
    ):  # fmt: skip
        super().__init__()

        def block(inputs: int, outputs: int, resample: str | None = None) -> ResBlock:
            return ResBlock(inputs, outputs, groups, resample, embed_dim, z_dim)

        width = channels[0]
        self.conv_in = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList()
        self.skip_widths = [width]
        for level, outputs in enumerate(channels):
            attends = resolution >> level in attention
            for _ in range(blocks):
                self.down.append(_Stage(block(width, outputs), Attention(outputs, groups) if attends else None))
                width = outputs
                self.skip_widths.append(width)
            if level < len(channels) - 1:
                self.down.append(_Stage(block(width, width, "down")))
                self.skip_widths.append(width)
        self.mid = nn.ModuleList([_Stage(block(width, width), Attention(width, groups)), _Stage(block(width, width))])

    def descend(self, x: Tensor, time: Tensor | None = None, z_sem: Tensor | None = None) -> list[Tensor]:
        """Outputs of the first convolution and of all stages on the way down, then of the middle."""
        outputs = [self.conv_in(x)]
        for stage in self.down:
            outputs.append(stage(outputs[-1], time, z_sem))
        x = outputs[-1]
        for stage in self.mid:
            x = stage(x, time, z_sem)
        return [*outputs, x]


class SemanticEncoder(_Half):
    """Encodes images as z_sem.

    Args:
        resolution: size of the images.
        channels: channels of the levels, from full resolution down; each level halves the resolution.
        blocks: residual blocks per level.
        attention: resolutions with self-attention, besides the middle.
        z_dim: width of z_sem.
        groups: groups of the group norms, at most one per channel.
    """

    def __init__(
        self, resolution: int, channels: Sequence[int], z_dim: int, blocks: int = 2, attention: Sequence[int] = (16,),
        groups: int = 32,
    ):  # fmt: skip
        super().__init__(resolution, channels, blocks, attention, groups)
        self.norm_out = nn.GroupNorm(min(groups, channels[-1]), channels[-1])
        self.out = nn.Linear(channels[-1], z_dim)

    def forward(self, images: Tensor) -> Tensor:
        """z_sem [N, z_dim] of images [N, 3, resolution, resolution] in [-1, 1]."""
        z_sem: Tensor = self.out(F.silu(self.norm_out(self.descend(images)[-1])).mean(dim=(2, 3)))
        return z_sem


class ConditionalUNet(_Half):
    """Predicts the noise (or the velocity, depending on its training) of noisy images from timesteps and z_sem.

    Args: those of `SemanticEncoder`, and
        embed_dim: width of the time embedding.
        time_dim: number of cosines and sines of the timestep; None: the channels of the first level.
    """

    def __init__(
        self, resolution: int, channels: Sequence[int], z_dim: int, embed_dim: int = 512, blocks: int = 2,
        attention: Sequence[int] = (16,), groups: int = 32, time_dim: int | None = None,
    ):  # fmt: skip
        super().__init__(resolution, channels, blocks, attention, groups, embed_dim, z_dim)
        self.time_dim = time_dim or channels[0]
        self.time0 = nn.Linear(self.time_dim, embed_dim)
        self.time1 = nn.Linear(embed_dim, embed_dim)

        def block(inputs: int, outputs: int, resample: str | None = None) -> ResBlock:
            return ResBlock(inputs, outputs, groups, resample, embed_dim, z_dim)

        skips, width = list(self.skip_widths), channels[-1]
        self.up = nn.ModuleList()
        for level, outputs in reversed(list(enumerate(channels))):
            attends = resolution >> level in attention
            for index in range(blocks + 1):
                is_last = level > 0 and index == blocks
                self.up.append(
                    _Stage(
                        block(width + skips.pop(), outputs),
                        Attention(outputs, groups) if attends else None,
                        block(outputs, outputs, "up") if is_last else None,
                    )
                )
                width = outputs
        self.norm_out = nn.GroupNorm(min(groups, width), width)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, timesteps: Tensor, z_sem: Tensor) -> Tensor:
        """The prediction [N, 3, resolution, resolution] for x of that shape, timesteps [N] and z_sem [N, z_dim]."""
        time = self.time1(F.silu(self.time0(time_features(timesteps, self.time_dim).to(x.dtype))))
        *skips, h = self.descend(x, time, z_sem)
        for stage in self.up:
            h = stage(torch.cat([h, skips.pop()], dim=1), time, z_sem)
        output: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return output
