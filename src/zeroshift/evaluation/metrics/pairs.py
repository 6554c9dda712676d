"""Measures of image pairs with one latent: structure, identity, agreement with the text."""

import torch.nn.functional as F
from torch import Tensor

from zeroshift.clip.losses import normalize, offset

__all__ = ["clip_distance", "direction_agreement", "pair_similarity", "paired_distance", "structural_consistency"]


def structural_consistency(a: Tensor, b: Tensor) -> Tensor:
    """SCS of each pair of edge maps [N, H, W], in [0, 1]: 2 <a, b> / (|a|² + |b|²). Returns [N].

    Xiao et al., "Few shot generative model adaption via relaxed spatial structural alignment" (RSSA), 2022, section 4.
    """
    a, b = a.flatten(1), b.flatten(1)
    return 2 * (a * b).sum(dim=1) / (a.square().sum(dim=1) + b.square().sum(dim=1)).clamp(min=1e-8)


def pair_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each pair of features [N, E]; with face recognition features, ID. Returns [N]."""
    return F.cosine_similarity(a, b, dim=-1)


def paired_distance(features: Tensor, truth: Tensor) -> float:
    """Mean cosine distance between each image and the true target image of the same person, both [N, E]."""
    return float((1 - pair_similarity(features, truth)).mean())


def clip_distance(images: Tensor, label: Tensor) -> Tensor:
    """1 - cos between image features [N, E] and a label feature [E]: NADA (Gal et al., 2022), equation 1; [N]."""
    return 1 - normalize(images) @ normalize(label)


def direction_agreement(source: Tensor, target: Tensor, source_label: Tensor, target_label: Tensor) -> Tensor:
    """Cosine between the image direction of each pair [N, E] and the text direction of two labels [E]. Returns [N].

    Equals 1 - NADA's directional loss (Gal et al., 2022, equation 2). Directions are between normalized features.
    """
    return offset(source, target) @ normalize(normalize(target_label) - normalize(source_label))
