"""Encoders that map an image to W+: the interface, and the published ones, pSp, e4e and ReStyle.

- pSp: Richardson et al., "Encoding in Style", 2021. A feature pyramid with one head per style.
- e4e: Tov et al., "Designing an Encoder for StyleGAN Image Manipulation", 2021. One w plus an offset per style.
- ReStyle: Alaluf et al., 2021. The encoder also sees the current reconstruction, and refines the codes in passes.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Codes, Generator
from zeroshift.inversion.irse import IRSE50, ResNet34, StyleHead, upsample_add

__all__ = ["FlatEncoder", "InversionEncoder", "PublishedEncoder", "PyramidEncoder"]

INPUT_SIZE = 256
REFINEMENTS = 5  # passes of ReStyle, as in its paper
_COARSE, _MIDDLE = 3, 7  # styles of the two coarser maps of the pyramid
_WIDTH = 512

Form = Literal["absolute", "offsets"]  # a style for itself (pSp), or as offset to the first one (e4e)


class InversionEncoder(nn.Module, ABC):
    """A network that maps images to the codes of a generator."""

    name: str
    """What it is, for reports."""

    @abstractmethod
    def require_fit(self, generator: Generator) -> None:
        """Raises ZeroshiftError, naming the sizes, unless the encoder was made for such a generator."""

    @abstractmethod
    def forward(self, images: Tensor, generator: Generator) -> Codes:
        """Codes [N, num_ws, w_dim] of images [N, 3, R, R] in [-1, 1], R the resolution of the generator."""


class PyramidEncoder(nn.Module):
    """pSp's and e4e's network: IR-SE50, a feature pyramid, and a head per style.

    Styles 0 to 2 come from the map of 16 x 16, 3 to 6 from that of 32 x 32, the rest from that of 64 x 64.
    """

    def __init__(self, num_styles: int, form: Form, in_channels: int = 3):
        super().__init__()
        self.form = form
        self.backbone = IRSE50(in_channels)
        halvings = [4 if style < _COARSE else 5 if style < _MIDDLE else 6 for style in range(num_styles)]
        self.styles = nn.ModuleList(StyleHead(_WIDTH, count) for count in halvings)
        self.latlayer1 = nn.Conv2d(256, _WIDTH, 1)
        self.latlayer2 = nn.Conv2d(128, _WIDTH, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Styles [N, num_styles, 512] of images [N, in_channels, 256, 256]."""
        fine, middle, coarse = self.backbone(images)
        middle = upsample_add(coarse, self.latlayer1(middle))
        fine = upsample_add(middle, self.latlayer2(fine))
        maps = [coarse if style < _COARSE else middle if style < _MIDDLE else fine for style in range(len(self.styles))]
        return _combined([head(x) for head, x in zip(self.styles, maps, strict=True)], self.form)


class FlatEncoder(nn.Module):
    """ReStyle's network: IR-SE50 or ResNet34, and a head per style on the last map."""

    def __init__(self, num_styles: int, form: Form, backbone: Literal["irse50", "resnet34"], in_channels: int = 6):
        super().__init__()
        self.form = form
        self.backbone = IRSE50(in_channels) if backbone == "irse50" else ResNet34(in_channels)
        self.styles = nn.ModuleList(StyleHead(_WIDTH, 4) for _ in range(num_styles))

    def forward(self, images: Tensor) -> Tensor:
        """Styles [N, num_styles, 512] of images [N, in_channels, 256, 256]."""
        x = self.backbone(images)[-1]
        return _combined([head(x) for head in self.styles], self.form)


def _combined(styles: list[Tensor], form: Form) -> Tensor:
    stacked = torch.stack(styles, dim=1)
    if form == "offsets":
        return torch.cat([stacked[:, :1], stacked[:, :1] + stacked[:, 1:]], dim=1)
    return stacked


class PublishedEncoder(InversionEncoder):
    """An encoder in the published layout of pSp, e4e or ReStyle.

    Args:
        network: maps images [N, 3 or 6, 256, 256] to styles [N, num_styles, 512].
        latent_avg: [512] or [num_styles, 512], to which styles are added; None for files that have none.
        name: what it is, for messages and reports.
    """

    latent_avg: Tensor | None

    def __init__(self, network: PyramidEncoder | FlatEncoder, latent_avg: Tensor | None, name: str):
        super().__init__()
        self.network, self.name = network, name
        self.register_buffer("latent_avg", latent_avg)

    @property
    def refines(self) -> bool:
        """Whether the network also gets the current reconstruction (ReStyle)."""
        first: nn.Conv2d = next(module for module in self.network.modules() if isinstance(module, nn.Conv2d))
        return first.in_channels == 6

    def forward(self, images: Tensor, generator: Generator) -> Codes:
        """As `InversionEncoder.forward`."""
        small = _resized(images)
        average = torch.zeros((), device=images.device) if self.latent_avg is None else self.latent_avg
        start = average.expand(len(images), len(self.network.styles), _WIDTH)
        if not self.refines:
            codes: Codes = start + self.network(small)
            return codes
        codes = start
        for _ in range(REFINEMENTS):  # the first pass sees the average image
            current = _resized(generator.synthesize(codes))
            codes = codes + self.network(torch.cat([small, current], dim=1))
        return codes

    def require_fit(self, generator: Generator) -> None:
        """As `InversionEncoder.require_fit`."""
        space = generator.style_space()
        if space is None:
            raise ZeroshiftError(f"{self.name} gives styles, and a {generator.architecture} generator has none.")
        if (space.num_ws, space.w_dim) != (len(self.network.styles), _WIDTH):
            pixels = 2 ** (len(self.network.styles) // 2 + 1)
            raise ZeroshiftError(
                f"{self.name} gives {len(self.network.styles)} styles of width {_WIDTH}, for a StyleGAN2 of {pixels} "
                f"pixels; this generator needs {space.num_ws} of width {space.w_dim}. Choose the encoder that belongs "
                "to the generator."
            )


def _resized(images: Tensor) -> Tensor:
    """Images at the encoder's size. Larger ones are averaged in whole blocks, as in the published programs."""
    size = images.shape[-1]
    if size > INPUT_SIZE and size % INPUT_SIZE == 0:
        return nn.functional.avg_pool2d(images, size // INPUT_SIZE)
    if size == INPUT_SIZE:
        return images
    from torchvision.transforms.v2.functional import InterpolationMode, resize  # takes seconds to import

    resized: Tensor = resize(images, [INPUT_SIZE, INPUT_SIZE], InterpolationMode.BILINEAR, antialias=True)
    return resized
