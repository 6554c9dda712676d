"""Samples of one or more generators from shared latents.

A sample depends on (seed, sample number) only; the batch size changes it by rounding.

A generator has no preferred truncation, so `truncation_psi` has no default here. The setting of a run is
`run.config.truncation_psi`; it is the default of every command that draws samples of a run.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from zeroshift.core.finite import require_finite_images
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Codes, Generator

__all__ = ["decode", "generate", "render_batches", "source_codes"]


def class_labels(generator: Generator, class_index: int | None, num: int) -> Tensor | None:
    """Class indices [num] for a class-conditional generator, None for an unconditional one.

    Raises:
        ZeroshiftError: if the class of a conditional generator is missing or out of range, or an unconditional
            generator gets a class.
    """
    if not generator.num_classes:
        if class_index is not None:
            raise ZeroshiftError("This generator has no classes. Leave out --class-index.")
        return None
    if class_index is None:
        raise ZeroshiftError(
            f"This generator has {generator.num_classes} classes. Choose one, such as --class-index 0."
        )
    if not 0 <= class_index < generator.num_classes:
        raise ZeroshiftError(f"There is no class {class_index}: this generator has {generator.num_classes} classes.")
    return torch.full((num,), class_index, dtype=torch.long, device=generator.device)


@torch.inference_mode()
def render_batches(
    generators: Sequence[Generator],
    latents: Tensor,
    *,
    truncation_psi: float,
    class_index: int | None = None,
    batch_size: int = 8,
) -> Iterator[list[Tensor]]:
    """Images of latents [N, ...] in batches: for each batch one tensor [n, 3, R, R] per generator, on the CPU.

    All generators get the codes of the first one, the source: an adaptation changes only what follows the codes.

    Args:
        generators: the source, then generators adapted from it.
        latents: Gaussian latents of the source.
        truncation_psi: 1 keeps the full variety of samples, smaller values move them toward the mean.
        class_index: class of a class-conditional generator.
        batch_size: images per batch; it changes images by rounding only: few values by one of 255 levels.
    Raises:
        ZeroshiftError: if `class_index` does not fit the generator, or images are not finite numbers.
    """
    for start in range(0, len(latents), batch_size):
        part = latents[start : start + batch_size]
        codes = source_codes(generators[0], part, truncation_psi=truncation_psi, class_index=class_index)
        yield [
            decode(generator, codes, "An adapted generator" if position else "The source generator")
            for position, generator in enumerate(generators)
        ]


@torch.inference_mode()
def source_codes(source: Generator, latents: Tensor, *, truncation_psi: float, class_index: int | None = None) -> Codes:
    """Codes of latents [n, ...]; arguments and errors as in `render_batches`."""
    labels = class_labels(source, class_index, len(latents))
    return source.codes(latents.to(source.device), labels, truncation_psi=truncation_psi)


@torch.inference_mode()
def decode(generator: Generator, codes: Codes, name: str) -> Tensor:
    """Images [n, 3, R, R] of the source's codes, on the CPU.

    Args:
        name: the generator, as the first words of the error.
    Raises:
        ZeroshiftError: if they are not finite numbers.
    """
    images = generator.synthesize(codes.to(generator.device)).float().cpu()
    require_finite_images(images, name)
    return images


def generate(
    generators: Sequence[Generator],
    num: int,
    *,
    seed: int = 0,
    truncation_psi: float,
    class_index: int | None = None,
    batch_size: int = 8,
) -> Iterator[list[Tensor]]:
    """Samples 0 to num - 1 of `seed` of every generator, in batches; arguments and result as in `render_batches`.

    Memory does not grow with `num`. For example, source and target of a run, as `zeroshift generate` draws them::

        for before, after in generate([source, target], 16, truncation_psi=run.config.truncation_psi): ...
    """
    for start in range(0, num, batch_size):
        latents = generators[0].sample_latents(seed, range(start, min(num, start + batch_size)))
        yield from render_batches(
            generators, latents, truncation_psi=truncation_psi, class_index=class_index, batch_size=batch_size
        )
