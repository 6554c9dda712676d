"""The losses of CLIP-guided adaptation, as pure functions of features.

Features are [N, embed_dim]; where a formula speaks of unit vectors, the functions here make them so.
"IPL" is Guo et al., "Zero-shot generative model adaptation via image-specific prompt learning", CVPR 2023;
"NADA" is Gal et al., "StyleGAN-NADA: CLIP-guided domain adaptation of image generators", 2022.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "contrastive",
    "directional",
    "domain_regularization",
    "global_similarity",
    "identity",
    "normalize",
    "offset",
]

SAME = 1e-4  # unit features no farther apart than this are of the same image
FIRST = 0.2  # the distance that such a pair is taken to have


def normalize(x: Tensor) -> Tensor:
    """Rows of x divided by their norm."""
    return x / x.norm(dim=-1, keepdim=True)


def offset(source: Tensor, target: Tensor) -> Tensor:
    """Unit direction from source to target features, both [N, E] -> [N, E].

    normalize(normalize(target) - normalize(source)).

    NADA, equation 2 (ΔI); IPL, equation 6. Where G_t = G_s, as at the first step without random noise, it would be 0/0;
    NADA's program shifts the image a little there. Here the direction of such a pair is zero, and its gradient that of
    a pair about a tenth apart: enough to start by, not so much that Adam's second moment remembers it for long.
    """
    difference = normalize(target) - normalize(source)
    distance = difference.norm(dim=-1, keepdim=True)
    return difference / torch.where(distance < SAME, FIRST, distance)


def directional(
    source: Tensor, target: Tensor, text_direction: Tensor, form: Literal["cosine", "log"] = "cosine"
) -> Tensor:
    """mean(1 - cos(image direction, text direction)): NADA, equation 2; with a direction an image, IPL, equation 6.

    With form "log" it is the mean of -log((2 - L) / 2), L being 1 - cos of a pair, as in DiffusionCLIP's program.

    Args:
        source, target: image features of G_s(w), G_t(w), [N, E].
        text_direction: unit vectors, [N, E] or [1, E].
    """
    # The published program divides by the norm once more. Adam's first steps are signs of gradients, so its rounding is
    # kept; eps, below every other norm, is for a direction of zero alone.
    loss = 1 - F.cosine_similarity(offset(source, target), text_direction, eps=0.5)
    return (loss if form == "cosine" else -torch.log1p(-loss / 2)).mean()


def identity(source: Tensor, target: Tensor) -> Tensor:
    """mean(1 - cos) of a recogniser's features of a pair, [N, E] each: DiffusionCLIP, equation 12 (L_face)."""
    return (1 - F.cosine_similarity(source, target)).mean()


def contrastive(images: Tensor, texts: Tensor, logit_scale: float) -> Tensor:
    """Each prompt must describe its own image and no other of the batch, both [N, E]: IPL, equation 3.

    The paper writes a sum of cosines; its program, followed here, takes CLIP's symmetric cross-entropy with CLIP's
    own logit scale (Radford et al., 2021, figure 3).
    """
    logits = logit_scale * normalize(images) @ normalize(texts).T  # [images, texts]
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def domain_regularization(prompts: Tensor, label: Tensor) -> Tensor:
    """mean(1 - cos): learned prompts [N, E] must stay prompts of the label's domain [E]: IPL, equation 4."""
    return (1 - F.cosine_similarity(prompts, label)).mean()


def global_similarity(images: Tensor, label: Tensor, logit_scale: float) -> Tensor:
    """mean(1 - logit / 100), images [N, E] against one label feature [E]: NADA, equation 1.

    Only ranks layers here (NADA, section 4.2), never trains weights.
    """
    return (1 - logit_scale * normalize(images) @ normalize(label) / 100).mean()
