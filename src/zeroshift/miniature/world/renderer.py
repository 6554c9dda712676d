"""The renderer of the miniature world: an image is a function of a latent, a domain and a noise seed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zeroshift.core.rng import normal
from zeroshift.miniature.world.anatomy import build_scene
from zeroshift.miniature.world.domains import DOMAINS, SOURCE, Domain
from zeroshift.miniature.world.factors import NUM_FACTORS, values
from zeroshift.miniature.world.media import DEPICT

__all__ = ["CHUNK", "render", "sample_latents"]

CHUNK = 64  # images rendered at a time; their buffers fit into the processor's cache


def sample_latents(seed: int, samples: Sequence[int]) -> Tensor:
    """Latents [len(samples), 32] of the people with these numbers; the same as the miniature generator samples."""
    return normal((NUM_FACTORS,), seed, "latents", samples=samples)


@torch.no_grad()
def render(
    latents: Tensor, domain: Domain = SOURCE, noise_seed: int = 0, samples: Sequence[int] | None = None
) -> Tensor:
    """Images of people in a domain. Each image depends on its own row alone.

    Args:
        latents: [N, 32], interpreted as in `world.factors`.
        domain: see `parse_domain`.
        noise_seed, samples: the texture (paper, stone, glass) of row i depends on (noise_seed, samples[i]);
            samples defaults to 0 … N - 1. Photos have no texture.

    Returns:
        [N, 3, 64, 64] float32 in [-1, 1].

    Raises:
        ValueError: if latents are not [N, 32] or the domain is unknown.
    """
    if latents.dim() != 2 or latents.shape[1] != NUM_FACTORS:
        raise ValueError(f"Latents must be [N, {NUM_FACTORS}], not {tuple(latents.shape)}.")
    if domain not in DOMAINS:
        raise ValueError(f"There is no domain {domain!r}. Use parse_domain to get one from a label.")
    indices = list(range(len(latents))) if samples is None else list(samples)
    if len(indices) != len(latents):
        raise ValueError(f"There are {len(latents)} latents but {len(indices)} samples; pass one sample per latent.")
    images = []
    for start in range(0, len(latents), CHUNK):
        part = slice(start, start + CHUNK)
        calls = 0

        def noise(*shape: int, rows: list[int] = indices[part]) -> Tensor:
            nonlocal calls
            calls += 1
            return normal(shape, noise_seed, "grain", calls, samples=rows).to(latents.device)

        scene = build_scene(values(latents[part].float()), domain.being)
        images.append(DEPICT[domain.medium](scene, noise) * 2 - 1)
    return torch.cat(images) if images else latents.new_empty(0, 3, 64, 64)
