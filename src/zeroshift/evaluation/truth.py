"""Generators whose true target images are known, such as those of a renderer."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol

from torch import Tensor

from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator, Latents
from zeroshift.generators.checkpoints.catalogue import CatalogueEntry
from zeroshift.io.figures import Figure

__all__ = ["Truth", "load_truth", "true_images"]


class Truth(Protocol):
    """What the images of a generator should look like in a target domain. Images are [N, 3, R, R] in [-1, 1]."""

    def images(self, target: str, latents: Latents) -> Tensor | None:
        """True target images of the generator's latents [N, ...]; None if they or the domain are unknown."""

    def references(self, target: str, num: int, seed: int) -> Sequence[Tensor] | Tensor | None:
        """`num` true target images for other latents than samples 0 to num - 1 of the seed; None if unknown."""

    def factors(self, latents: Latents) -> list[dict[str, float | str]] | None:
        """What determines the image of each latent [N, ...], by name; None if it is unknown."""

    def figures(self, config: AdaptConfig, source: Generator, target: Generator, num: int) -> list[Figure] | None:
        """Rows of `num` images for the report of a run; None for the standard rows."""


def load_truth(entry: CatalogueEntry | None) -> Truth | None:
    """The truth that a catalogue entry names, None if it names none.

    Raises:
        ZeroshiftError: if it cannot be imported.
    """
    if entry is None or not entry.truth:
        return None
    module, _, attribute = entry.truth.partition(":")
    try:
        named = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ZeroshiftError(
            f"The truth of {entry.name!r} cannot be imported from {entry.truth} ({error}). "
            "Reinstall the package that provides it."
        ) from error
    truth: Truth = named() if isinstance(named, type) else named
    return truth


def true_images(
    entry: CatalogueEntry | None, target: str, source: Generator, seed: int
) -> Callable[[Tensor], Tensor] | None:
    """A function from latents of the source to their true target images; None if these are unknown."""
    truth = load_truth(entry)
    if truth is None or truth.images(target, source.sample_latents(seed, range(1))) is None:
        return None

    def images(latents: Tensor) -> Tensor:
        drawn = truth.images(target, latents)
        assert drawn is not None
        return drawn

    return images
