"""The backbones of published inversion encoders, IR-SE50 (Deng et al., "ArcFace", 2019) and ResNet34, and their heads.

Parameters have the names of the published files; images are 256 x 256.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["IRSE50", "ResNet34", "StyleHead", "upsample_add"]

_IRSE50 = ((64, 3), (128, 4), (256, 14), (512, 3))  # (channels, units) of the four stages
_RESNET34 = ((64, 3), (128, 4), (256, 6), (512, 3))
_TAPS = (6, 20)  # units after which the feature pyramid taps IR-SE50: 128 and 256 channels


class SqueezeExcite(nn.Module):
    """Channel attention (Hu et al., 2018)."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True))))
        return x * scale.sigmoid()


class IRSEUnit(nn.Module):
    """Batch norm, convolution, PReLU, convolution with the stride, batch norm, channel attention; plus a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if in_channels != out_channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False),
            nn.PReLU(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            SqueezeExcite(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.res_layer(x)
        shortcut: Tensor = self.shortcut_layer(x)
        return y + shortcut


class IRSE50(nn.Module):
    """24 units in four stages, each of which halves the size: [N, in_channels, 256, 256] -> [N, 512, 16, 16]."""

    def __init__(self, in_channels: int = 3):
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(in_channels, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        self.body = nn.Sequential(*_units(_IRSE50))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps [N, 128, 64, 64], [N, 256, 32, 32] and [N, 512, 16, 16]."""
        x, maps = self.input_layer(x), []
        for index, unit in enumerate(self.body):
            x = unit(x)
            if index in _TAPS:
                maps.append(x)
        return maps[0], maps[1], x


def _units(stages: Iterable[tuple[int, int]]) -> Iterable[IRSEUnit]:
    channels = 64
    for width, units in stages:
        for unit in range(units):
            yield IRSEUnit(channels, width, 1 if unit else 2)
            channels = width


class BasicBlock(nn.Module):
    """The residual block of ResNet34 (He et al., 2016)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride > 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet34(nn.Module):
    """ReStyle's ResNet34: without max pooling, PReLU after the first layer; -> [N, 512, 16, 16]."""

    def __init__(self, in_channels: int = 3):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.PReLU(64)
        blocks, channels = [], 64
        for width, count in _RESNET34:
            for block in range(count):
                blocks.append(BasicBlock(channels, width, 1 if block or width == 64 else 2))
                channels = width
        self.body = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """The last map, [N, 512, 16, 16]."""
        return (self.body(self.relu(self.bn1(self.conv1(x)))),)


class EqualizedLinear(nn.Module):
    """A linear layer whose weights are scaled by 1 / sqrt(inputs) at runtime (Karras et al., 2018)."""

    def __init__(self, features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features, features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.weight.shape[1] ** -0.5, self.bias)


class StyleHead(nn.Module):
    """Maps a feature map [N, C, 2^k, 2^k] to one style [N, C], by k halving convolutions and a linear layer."""

    def __init__(self, channels: int, halvings: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(halvings):
            layers += [nn.Conv2d(channels, channels, 3, 2, 1), nn.LeakyReLU(0.01)]
        self.convs = nn.Sequential(*layers)
        self.linear = EqualizedLinear(channels)

    def forward(self, x: Tensor) -> Tensor:
        style: Tensor = self.linear(self.convs(x).flatten(1))
        return style


def upsample_add(coarse: Tensor, fine: Tensor) -> Tensor:
    """A coarse map, bilinearly enlarged to the size of a fine one, plus that one (Lin et al., 2017)."""
    return F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=True) + fine
