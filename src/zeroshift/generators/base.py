"""What a generator is to the rest of the package: latents in, codes between, images out, layers by name."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroshift.config.settings import Sampling
from zeroshift.core.rng import normal
from zeroshift.errors import ZeroshiftError

__all__ = ["NOISE_MODES", "Codes", "Generator", "Latents", "style_mix", "truncate"]

Latents = Tensor  # [N, *latent_shape], Gaussian
Codes = Tensor  # what synthesize reads; StyleGAN: ws [N, num_ws, w_dim]

NOISE_MODES = ("const", "random", "none")


class Generator(nn.Module, ABC):
    """A pretrained image generator. Images are NCHW float32 around [-1, 1]."""

    architecture: str  # "stylegan2", "stylegan3", "diffusion"
    resolution: int
    mapper_input_dim: int | None  # None: a sample has no code that `context` could give
    latent_shape: tuple[int, ...]
    num_classes: int  # 0: unconditional
    config: dict[str, Any]  # JSON-able constructor arguments: type(self)(**config) rebuilds the module

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.parameters()).device

    def sample_latents(self, seed: int, samples: Sequence[int]) -> Latents:
        """Gaussian latents [len(samples), *latent_shape]; row i depends on (seed, samples[i]) alone."""
        return normal(self.latent_shape, seed, "latents", samples=samples).to(self.device)

    def mapper_input(self, latents: Latents, labels: Tensor | None = None) -> Tensor | None:
        """What the latent mapper of IPL sees of a sample, [N, mapper_input_dim]; never truncated.

        None where `mapper_input_dim` is: the mapper then sees the encoder's feature of the source image.
        """
        return None

    @abstractmethod
    def codes(
        self,
        latents: Latents,
        labels: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Codes:
        """Codes for `synthesize`. `labels`: class indices [N] or rows [N, num_classes], for conditional models only."""

    @abstractmethod
    def synthesize(
        self, codes: Codes, *, noise_mode: str = "const", noise_seed: int = 0, samples: Sequence[int] | None = None
    ) -> Tensor:
        """Images [N, 3, resolution, resolution].

        `noise`: "const" (the stored noise images), "random" (row i depends on (noise_seed, samples[i]) alone;
        samples default to 0, 1, 2, ...) or "none".
        """

    def forward(
        self,
        latents: Latents,
        labels: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: str = "const",
        noise_seed: int = 0,
        samples: Sequence[int] | None = None,
    ) -> Tensor:
        """`synthesize` of `codes`."""
        codes = self.codes(latents, labels, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesize(codes, noise_mode=noise_mode, noise_seed=noise_seed, samples=samples)

    @property
    def num_training_images(self) -> int:
        """How many pictures of one code `pictures` gives."""
        return 1

    def training_images(
        self, codes: Codes, *, noise_mode: str = "const", noise_seed: int = 0, samples: Sequence[int] | None = None
    ) -> Iterator[Tensor]:
        """The images [N, 3, resolution, resolution] to train on, one after another, each with a graph of its own.

        Arguments as for `synthesize`, which makes the only one, unless a family can do with less memory.
        """
        yield self.synthesize(codes, noise_mode=noise_mode, noise_seed=noise_seed, samples=samples)

    def invert(self, images: Tensor) -> Codes:
        """Codes of real images [N, 3, resolution, resolution] in [-1, 1], which `synthesize` turns back into them.

        Raises:
            ZeroshiftError: if this family cannot.
        """
        raise ZeroshiftError(
            f"A {self.architecture} generator cannot take real images: it has no inversion. Diffusion models have."
        )

    def inverted_mapper_input(self, codes: Codes) -> Tensor | None:
        """The context [N, mapper_input_dim] of codes that `invert` gave; None where `mapper_input_dim` is."""
        return None

    def set_sampling(self, sampling: Sampling) -> None:
        """How images are made from now on, by a family that has a choice; others take no notice."""

    def add_lora(self, rank: int, seed: int) -> None:
        """From now on `layers` are low-rank updates beside the weights, and the weights themselves stay as they are.

        Raises:
            ZeroshiftError: if this family has none.
        """
        raise ZeroshiftError(f"A {self.architecture} generator has no low-rank updates. Leave adapt.lora_rank out.")

    def merged(self) -> "Generator":
        """The same generator with its low-rank updates, if any, added to the weights."""
        return self

    def deliver(self, folder: Path) -> None:
        """Writes into a run folder what other programs open, where a family has such a form."""

    @abstractmethod
    def layers(self) -> dict[str, nn.Module]:
        """Adaptable layers by name ("synthesis.b64.conv0"), from input to output; the name is the module's path."""

    def layer_candidates(self) -> list[str] | None:
        """The layer that each row of a sample's codes votes for in the adaptive choice; None: no such choice here."""
        return None


def truncate(ws: Tensor, w_avg: Tensor, truncation_psi: float, cutoff: int | None = None) -> Tensor:
    """Pulls the first `cutoff` rows (default: all) of ws [N, num_ws, w_dim] towards w_avg [w_dim].

    w' = w_avg + truncation (w - w_avg), the truncation trick (Karras et al., 2019, section 2.1 and appendix B).
    """
    if truncation_psi == 1:
        return ws
    cutoff = ws.shape[1] if cutoff is None else cutoff
    return torch.cat([torch.lerp(w_avg.to(ws), ws[:, :cutoff], truncation_psi), ws[:, cutoff:]], dim=1)


def style_mix(coarse: Codes, fine: Codes, crossover: int) -> Codes:
    """Style mixing (Karras et al., 2019, section 3.1): rows before `crossover` from `coarse`, the rest from `fine`.

    Both are [N, num_ws, w_dim] (or broadcast over N); 0 <= crossover <= num_ws, else ZeroshiftError.
    """
    num_ws = coarse.shape[1]
    if coarse.shape[1:] != fine.shape[1:]:
        raise ZeroshiftError(f"Cannot mix codes of shapes {tuple(coarse.shape)} and {tuple(fine.shape)}.")
    if not 0 <= crossover <= num_ws:
        raise ZeroshiftError(f"The crossover layer must lie between 0 and {num_ws}, not at {crossover}.")
    takes_coarse = torch.arange(num_ws, device=coarse.device)[:, None] < crossover  # [num_ws, 1]
    return torch.where(takes_coarse, coarse, fine)
