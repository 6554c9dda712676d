"""The losses of CLIP-guided adaptation, as pure functions of features.

Features are [N, embed_dim]; the functions normalize them where a formula has unit vectors.
"IPL" is Guo et al., "Zero-shot generative model adaptation via image-specific prompt learning", CVPR 2023;
"NADA" is Gal et al., "StyleGAN-NADA: CLIP-guided domain adaptation of image generators", 2022.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "clamp_images",
    "contrastive",
    "directional",
    "domain_regularization",
    "global_similarity",
    "identity",
    "normalize",
    "offset",
    "out_of_range",
    "self_similarity",
    "structure",
]

SAME = 1e-4  # unit features closer than this count as equal
FIRST = 0.2  # distance assumed for such a pair


def normalize(x: Tensor) -> Tensor:
    """Rows of x divided by their norm."""
    norm: Tensor = x.norm(dim=-1, keepdim=True)
    return x / norm


def offset(source: Tensor, target: Tensor) -> Tensor:
    """Unit direction from source to target features, both [N, E] -> [N, E].

    normalize(normalize(target) - normalize(source)).

    NADA, equation 2 (ΔI); IPL, equation 6. Where G_t = G_s, as at the first step without random noise, the equation is
    0/0. NADA's program then shifts the image slightly. Here the direction of such a pair is zero, with the gradient of
    a pair at distance `FIRST` / 2: enough to start, but too little to dominate Adam's second moment for long.
    """
    difference = normalize(target) - normalize(source)
    distance = difference.norm(dim=-1, keepdim=True)
    return difference / torch.where(distance < SAME, FIRST, distance)


def directional(
    source: Tensor, target: Tensor, text_direction: Tensor, form: Literal["cosine", "log"] = "cosine"
) -> Tensor:
    """mean(1 - cos(image direction, text direction)): NADA, equation 2; with one direction per image, IPL, equation 6.

    With form "log": mean of -log((2 - L) / 2), where L is 1 - cos of a pair, as in DiffusionCLIP's program.

    Args:
        source, target: image features of G_s(w) and G_t(w), [N, E].
        text_direction: unit vectors, [N, E] or [1, E].
    """
    # The published program divides by the norm a second time. Adam's first steps depend on the signs of gradients, so
    # its rounding is reproduced. eps is smaller than every nonzero norm; it matters only for a zero direction.
    loss = 1 - F.cosine_similarity(offset(source, target), text_direction, eps=0.5)
    return (loss if form == "cosine" else -torch.log1p(-loss / 2)).mean()


class _ClampImages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        ctx.save_for_backward(images)
        return images.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        images: Tensor = ctx.saved_tensors[0]
        returns = images * gradient > 0  # a descent step moves the value towards zero
        return gradient * ((images.abs() <= 1) | returns)


def clamp_images(images: Tensor) -> Tensor:
    """Images clamped to [-1, 1], as they are saved, with a gradient that can return values to the range.

    Outside the range the gradient passes if a descent step moves the value towards the range, and is zero otherwise.
    `Tensor.clamp` has no gradient there, so a value that has left the range would never return.
    """
    clamped: Tensor = _ClampImages.apply(images)
    return clamped


def out_of_range(images: Tensor) -> Tensor:
    """Mean squared excess of pixel values over [-1, 1]: mean(relu(|x| - 1)^2)."""
    return F.relu(images.abs() - 1).square().mean()


def self_similarity(maps: Tensor) -> Tensor:
    """Cosines between all places of feature maps: [N, C, h, w] -> [N, hw, hw].

    What is similar to what within an image describes its layout without its appearance (Shechtman and Irani, "Matching
    local self-similarities", 2007). Tumanyan et al., "Splicing ViT features", 2022, equation 3, uses it to keep the
    structure of an image while its appearance changes.
    """
    places = F.normalize(maps.flatten(2), dim=1)  # [N, C, hw]
    return places.mT @ places


def structure(source: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of the self-similarities of source and target maps, [N, C, h, w] each."""
    return (self_similarity(source) - self_similarity(target)).square().mean()


def identity(source: Tensor, target: Tensor) -> Tensor:
    """mean(1 - cos) of face recognition features of pairs, [N, E] each: DiffusionCLIP, equation 12 (L_face)."""
    return (1 - F.cosine_similarity(source, target)).mean()


def contrastive(images: Tensor, texts: Tensor, logit_scale: float) -> Tensor:
    """Contrastive loss of paired image and prompt features, [N, E] each: IPL, equation 3.

    The paper writes a sum of cosines. Its program, followed here, uses CLIP's symmetric cross-entropy with CLIP's own
    logit scale (Radford et al., 2021, figure 3).
    """
    logits = logit_scale * normalize(images) @ normalize(texts).T  # [images, texts]
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def domain_regularization(prompts: Tensor, label: Tensor) -> Tensor:
    """mean(1 - cos) between learned prompts [N, E] and the feature of the domain label [E]: IPL, equation 4."""
    return (1 - F.cosine_similarity(prompts, label)).mean()


def global_similarity(images: Tensor, label: Tensor, logit_scale: float) -> Tensor:
    """mean(1 - logit / 100) of image features [N, E] and one label feature [E]: NADA, equation 1.

    Used to rank layers (NADA, section 4.2), never to train weights.
    """
    return (1 - logit_scale * normalize(images) @ normalize(label) / 100).mean()
