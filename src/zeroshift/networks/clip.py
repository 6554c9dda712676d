"""CLIP encoders as feature networks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder
from zeroshift.networks.base import FeatureNetwork
from zeroshift.networks.registry import Network

__all__ = ["OPEN_CLIP", "ClipNetwork"]


class ClipNetwork(FeatureNetwork):
    """The image features of a CLIP encoder, with text features for measures that compare images with labels."""

    provides = frozenset({"features", "texts"})

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """Features [N, E], not normalized."""
        return self.encoder.encode_image(images)

    def encode_labels(self, labels: Sequence[str]) -> Tensor:
        """Label features [len(labels), E]: means over the encoder's templates (`Encoder.label_feature`)."""
        return torch.stack([self.encoder.label_feature(label) for label in labels]).cpu()


OPEN_CLIP = Network(
    "a CLIP model: open_clip:MODEL/WEIGHTS or open_clip:FILE", lambda name: ClipNetwork(load_encoder(name))
)
