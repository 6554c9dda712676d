"""Figures with the renderer's own images, the truth of the miniature world."""

from dataclasses import replace

import torch
from torch import Tensor

from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.io.figures import Figure

__all__ = ["people_of", "true_images"]

_KNOWN_PEOPLE = 81000  # first of the seeds of people shown to miniature diffusion models; no training saw them


def true_images(config: AdaptConfig, latents: Tensor) -> Tensor | None:
    """What the samples look like in the target domain, if the generator is the embedded one and knows the domain."""
    return people_of(config.target, latents) if config.generator == "miniature" else None


def people_of(target: str, latents: Tensor) -> Tensor | None:
    """The renderer's pictures of people of the miniature world in a domain; None for a label that it has none of."""
    from zeroshift.miniature.world.domains import parse_domain
    from zeroshift.miniature.world.renderer import render

    try:
        return render(latents, parse_domain(target))
    except ZeroshiftError:
        return None


@torch.inference_mode()
def _of_known_people(config: AdaptConfig, source: Generator, target: Generator, num: int) -> list[Figure]:
    """Photos of people of the miniature world, and what the adapted generator and the renderer make of them."""
    from zeroshift.miniature.world.renderer import render, sample_latents

    latents = sample_latents(_KNOWN_PEOPLE + config.seed, range(num))
    photos = render(latents)
    target.set_sampling(replace(config.diffusion, steps=config.diffusion.invert_steps))  # fewer would leave halos
    translated = target.synthesize(source.invert(photos.to(source.device))).cpu()
    figures = [
        Figure(config.source, "photos, which the source generator inverts", photos),
        Figure(config.target, "the adapted generator, from there", translated),
    ]
    truth = people_of(config.target, latents)
    return figures if truth is None else [*figures, Figure("truth", "the renderer's own picture", truth)]
