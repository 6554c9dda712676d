"""DINOv2's class token, for FD-DINOv2."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import InterpolationMode, normalize, resize

from zeroshift.clip.weights import build, read_weights
from zeroshift.networks.base import IMAGENET_MEAN, IMAGENET_STD, FeatureNetwork, Weights, require_timm
from zeroshift.networks.registry import Network

__all__ = ["DINOV2", "DINOv2"]

_SIZES = {384: "small", 768: "base", 1024: "large", 1536: "giant"}  # by token width


class DINOv2(FeatureNetwork):
    """The class token of DINOv2 at 224 pixels, as in FD-DINOv2 (Stein et al., 2023).

    Position embeddings are interpolated to 16 x 16 as in Meta's own program, which differs from timm.

    Args:
        state: Meta's weights of any of the four sizes, with or without registers.
    """

    WEIGHTS = Weights(
        "dinov2_vitl14_pretrain.pth", "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth"
    )
    provides = frozenset({"features"})
    resolution, grid = 224, 16

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        timm = require_timm()
        from timm.models.vision_transformer import checkpoint_filter_fn

        registers = "_reg4" if "register_tokens" in state else ""
        name = f"vit_{_SIZES[state['cls_token'].shape[-1]]}_patch14{registers}_dinov2"

        def make() -> Any:
            return timm.create_model(name, img_size=self.resolution, num_classes=0)

        state = {**state, "pos_embed": self._positions(state["pos_embed"])}
        with torch.device("meta"):
            outline = make()
        self.network = build(make, checkpoint_filter_fn(state, outline), "The file for DINOv2")

    def _positions(self, embedding: Tensor) -> Tensor:
        """Interpolates [1, 1 + 37 * 37, D] to [1, 1 + 16 * 16, D]."""
        side = math.isqrt(embedding.shape[1] - 1)
        places = embedding[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        scale = (self.grid + 0.1) / side  # the 0.1 is in Meta's program, against rounding down
        places = F.interpolate(places, scale_factor=(scale, scale), mode="bicubic")
        return torch.cat([embedding[:, :1], places.flatten(2).mT], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Class tokens [N, D] of images [N, 3, H, W] in [-1, 1]."""
        size = [self.resolution, self.resolution]
        images = resize((images + 1) / 2, size, InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)  # like Pillow
        tokens: Tensor = self.network(normalize(images, IMAGENET_MEAN, IMAGENET_STD))
        return tokens.float()


DINOV2 = Network("Meta's DINOv2, ViT-L/14", lambda file: DINOv2(read_weights(DINOv2.WEIGHTS.find(file))))
