"""The renderer of the miniature world: a latent, a domain and a noise seed determine an image exactly."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zeroshift.core.rng import normal
from zeroshift.miniature.world.anatomy import build_scene
from zeroshift.miniature.world.domains import DOMAINS, SOURCE, Domain
from zeroshift.miniature.world.factors import NUM_FACTORS, values
from zeroshift.miniature.world.media import DEPICT

__all__ = ["CHUNK", "render", "sample_latents"]

CHUNK = 64  # images at a time: their buffers stay in the processor's cache


def sample_latents(seed: int, samples: Sequence[int]) -> Tensor:
    """Latents [len(samples), 32] of the people `samples` of a seed; the same as the miniature generator's own."""
    return normal((NUM_FACTORS,), seed, "latents", samples=samples)


@torch.no_grad()
def render(
    latents: Tensor, domain: Domain = SOURCE, noise_seed: int = 0, samples: Sequence[int] | None = None
) -> Tensor:
    """What the people of these latents look like in a domain.

    Args:
        latents: [N, 32], read as `factors` explains.
        domain: a `Domain` (see `domains.parse_domain`).
        noise_seed, samples: the grain of paper, stone and glass of row i depends on (noise_seed, samples[i]) alone;
            samples defaults to 0 … N - 1. Photos have no grain.

    Returns:
        [N, 3, 64, 64] float32 in [-1, 1].

    Raises:
        ValueError: if latents are not [N, 32] or the domain is unknown.
    """
    if latents.dim() != 2 or latents.shape[1] != NUM_FACTORS:
        raise ValueError(f"latents must be [N, {NUM_FACTORS}], not {tuple(latents.shape)}")
    if domain not in DOMAINS:
        raise ValueError(f"unknown domain {domain!r}")
    indices = list(range(len(latents))) if samples is None else list(samples)
    if len(indices) != len(latents):
        raise ValueError(f"{len(latents)} latents but {len(indices)} samples")
    pictures = []
    for start in range(0, len(latents), CHUNK):
        part = slice(start, start + CHUNK)
        calls = 0

        def noise(*shape: int, rows: list[int] = indices[part]) -> Tensor:
            nonlocal calls
            calls += 1
            return normal(shape, noise_seed, "grain", calls, samples=rows).to(latents.device)

        scene = build_scene(values(latents[part].float()), domain.being)
        pictures.append(DEPICT[domain.medium](scene, noise) * 2 - 1)
    return torch.cat(pictures) if pictures else latents.new_empty(0, 3, 64, 64)
