"""Ground truth for the miniature generators: the renderer's images of the same people."""

from collections.abc import Sequence
from dataclasses import replace
from typing import overload

import torch
from torch import Tensor

from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator, Latents
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.io.figures import Figure
from zeroshift.miniature.world.domains import Domain, parse_domain
from zeroshift.miniature.world.factors import FACTORS, class_indices, values
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["DiffusionTruth", "StyleGANTruth"]

_HELD_OUT_SEED = 81000  # first seed of the people in reports of diffusion models; they appear in no training


class StyleGANTruth:
    """The truth of the miniature StyleGAN2, whose latents are the renderer's (`zeroshift.evaluation.truth.Truth`)."""

    def images(self, target: str, latents: Latents) -> Tensor | None:
        """The renderer's images [N, 3, 64, 64] of latents [N, 32]; None for an unknown domain."""
        return _render(target, latents.cpu())

    def references(self, target: str, num: int, seed: int) -> Sequence[Tensor] | None:
        """The renderer's images of people num to 2 num - 1 of the seed; None for an unknown domain."""
        try:
            return _Renders(parse_domain(target), num, seed)
        except ZeroshiftError:
            return None

    def factors(self, latents: Latents) -> list[dict[str, float | str]] | None:
        """The factors of each person: numbers, and names of classes."""
        latents = latents.cpu()
        numbers, classes = values(latents), class_indices(latents)
        return [
            {
                factor.name: factor.classes[int(classes[factor.name][row])]
                if factor.is_class
                else round(float(numbers[factor.name][row]), 5)
                for factor in FACTORS
            }
            for row in range(len(latents))
        ]

    def figures(self, config: AdaptConfig, source: Generator, target: Generator, num: int) -> list[Figure] | None:
        """None: the standard rows."""
        return None


class DiffusionTruth(StyleGANTruth):
    """The truth of the miniature diffusion models, whose latents are noise without a corresponding person."""

    def images(self, target: str, latents: Latents) -> Tensor | None:
        """None: the latents have no true images."""
        return None

    def factors(self, latents: Latents) -> list[dict[str, float | str]] | None:
        """None: the latents are no people."""
        return None

    @torch.inference_mode()
    def figures(self, config: AdaptConfig, source: Generator, target: Generator, num: int) -> list[Figure] | None:
        """Photos of held-out people, their translations by the adapted generator, and their true target images."""
        latents = sample_latents(_HELD_OUT_SEED + config.seed, range(num))
        photos = render(latents)
        sampling = config.sampling if isinstance(config.sampling, DDIMOptions) else DDIMOptions()
        target.configure(replace(sampling, steps=sampling.invert_steps))  # fewer steps would leave halos
        translated = target.synthesize(source.invert(photos.to(source.device))).cpu()
        figures = [
            Figure(config.source, "photos, inverted by the source generator", photos),
            Figure(config.target, "decoded by the adapted generator", translated),
        ]
        truth = _render(config.target, latents)
        return figures if truth is None else [*figures, Figure("truth", "the renderer's image", truth)]


class _Renders(Sequence[Tensor]):
    """The renderer's images of people num to 2 num - 1 of a seed, drawn on use."""

    def __init__(self, domain: Domain, num: int, seed: int) -> None:
        self._domain, self._num, self._seed = domain, num, seed

    def __len__(self) -> int:
        return self._num

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        """Images [3, 64, 64]."""
        if not isinstance(index, slice):
            return self[index : index + 1][0]  # past the end: IndexError
        samples = range(self._num)[index]
        latents = sample_latents(self._seed, [self._num + sample for sample in samples])
        return list(render(latents, self._domain, samples=samples))


def _render(target: str, latents: Tensor) -> Tensor | None:
    try:
        return render(latents, parse_domain(target))
    except ZeroshiftError:
        return None
