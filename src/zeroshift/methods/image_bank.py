"""A fixed set of source images that a run draws from, pass after pass, instead of new latents at every step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.core.dtypes import at_least_float32
from zeroshift.core.rng import stream
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Codes, Generator, Latents

__all__ = ["ImageBank"]

_AT_ONCE = 8


@dataclass(frozen=True)
class ImageBank:
    """Source images by row, with all that the source and the encoders say of them: each is worked out once."""

    codes: Codes  # [M, ...]
    mapper_inputs: Tensor | None  # [M, mapper_input_dim]; None where the generator has no context of its own
    images: Tensor  # [M, 3, H, W]
    features: list[Tensor]  # [M, E], one an encoder

    @classmethod
    @torch.no_grad()
    def of_latents(
        cls, generator: Generator, latents: Latents, labels: Tensor | None, encoders: Sequence[Encoder]
    ) -> "ImageBank":
        """The generator's images of latents [M, *latent_shape]."""
        parts = []
        for rows in torch.arange(len(latents)).split(_AT_ONCE):
            some, classes = latents[rows], None if labels is None else labels[rows]
            codes = generator.codes(some, classes)
            images = at_least_float32(generator.synthesize(codes))
            parts.append((codes, generator.mapper_input(some, classes), images))
        code_parts, mapper_inputs, image_parts = zip(*parts, strict=True)
        known, images = None if mapper_inputs[0] is None else torch.cat(mapper_inputs), torch.cat(image_parts)
        return cls(torch.cat(code_parts), known, images, _features(images, encoders))

    @classmethod
    @torch.no_grad()
    def of_images(cls, generator: Generator, images: Tensor, codes: Codes, encoders: Sequence[Encoder]) -> "ImageBank":
        """Real images [M, 3, resolution, resolution] with the codes to which they were inverted."""
        return cls(codes, generator.inverted_mapper_input(codes), images, _features(images, encoders))

    def draw(self, seed: int, purpose: str, step: int, samples: Sequence[int], batch: int) -> Tensor:
        """Rows [len(samples)] for `samples` of a batch; no two of a batch are the same, and a pass takes each once.

        What a pass leaves over when batches do not fill it is left out of it.

        Raises:
            ZeroshiftError: if the batch is larger than the bank.
        """
        size = len(self.codes)
        if batch > size:
            raise ZeroshiftError(
                f"A batch of {batch} needs as many different images, but the run draws from {size}. Give it more "
                "(--source-images-dir, --num-latents), or lower the batch (--batch, --prompts.batch_size)."
            )
        number, place = divmod(step, size // batch)
        order = torch.randperm(size, generator=stream(seed, "bank", purpose, number))
        return order[[(place * batch + sample) % size for sample in samples]]


def _features(images: Tensor, encoders: Sequence[Encoder]) -> list[Tensor]:
    return [torch.cat([encoder.encode_image(some) for some in images.split(_AT_ONCE)]) for encoder in encoders]
