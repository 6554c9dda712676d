"""The generator interface: latents to codes to images, with adaptable layers by name."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zeroshift.config.settings import GeneratorOptions
from zeroshift.core.rng import normal
from zeroshift.errors import ZeroshiftError

__all__ = [
    "LAYER_CHOICE_SETTINGS",
    "NOISE_MODES",
    "Codes",
    "Generator",
    "Latents",
    "StyleSpace",
    "Synthesis",
    "blend_weights",
    "style_mix",
    "truncate",
]

Latents = Tensor  # [N, *latent_shape], Gaussian
Codes = Tensor  # what synthesize reads; StyleGAN: ws [N, num_ws, w_dim]

NOISE_MODES = ("const", "random", "none")
LAYER_CHOICE_SETTINGS = frozenset(
    f"adapt.{name}"
    for name in (
        "num_layers", "layer_batch_size", "layer_lr", "layer_steps", "layer_codes", "layer_every", "layer_precision",
        "unchosen_gradient",
    )
)  # fmt: skip
"""Settings of the adaptive choice of layers, which generators without `layer_candidates` do not use."""


@dataclass(frozen=True)
class StyleSpace:
    """What the inversion of images into W or W+ must know of a generator.

    Attributes:
        num_ws, w_dim: the codes are [N, num_ws, w_dim].
        mean: [w_dim], the mean w, without truncation.
        deviation: root of the mean squared distance of w to the mean.
        noise_maps: names of the buffers with stored noise, [R, R] each.
    """

    num_ws: int
    w_dim: int
    mean: Tensor
    deviation: float
    noise_maps: tuple[str, ...]


class Generator(nn.Module, ABC):
    """A pretrained image generator. Images are NCHW float32, around [-1, 1].

    A family is a subclass, registered in `zeroshift.generators.registry.FAMILIES` under its `architecture`.
    docs/extending/generator.md shows how to add one.
    """

    architecture: ClassVar[str]
    """Name of the family in FAMILIES; saved files carry it."""
    Options: ClassVar[type[GeneratorOptions]] = GeneratorOptions
    """Class of the family's settings, which are `config.sampling` of a run."""
    preset: ClassVar[str] = "standard"
    """Default preset of the family, a name of PRESETS."""
    unused_settings: ClassVar[frozenset[str]] = frozenset()
    """Dotted names of settings that have no meaning for the family: neither shown nor recorded."""
    exports: ClassVar[Mapping[str, str]] = {}
    """Export formats of other programs: name -> "module:function", called with (generator, path)."""
    export_suffix: ClassVar[Mapping[str, str]] = {}
    """File suffix of each format of `exports`, such as ".pt"; a format without one is a folder."""
    deliveries: ClassVar[Mapping[str, str]] = {}
    """Further files that a finished run writes: name in the run folder -> format of `exports`."""

    resolution: int
    mapper_input_dim: int | None  # None: `mapper_input` is None
    latent_shape: tuple[int, ...]
    num_classes: int  # 0: unconditional
    config: dict[str, Any]  # JSON-able arguments of `from_config`

    @classmethod
    def from_config(cls, config: Mapping[str, Any], module: nn.Module | None = None) -> "Generator":
        """The generator with this `config`, with untrained weights.

        Args:
            config: the constructor's arguments, as read from JSON.
            module: for families that wrap a user's module.

        Raises:
            ZeroshiftError: if the arguments do not fit, or a module is given that this family does not take.
        """
        if module is not None:
            raise ZeroshiftError(f"A {cls.architecture} generator builds its own network. Leave the module out.")
        return cls(**config)

    @classmethod
    def weight_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]] | None:
        """Shapes of the state dict of a generator with this `config`, found without allocating its weights.

        A file is checked against them before its generator is built. None if the family cannot tell.

        Raises:
            ZeroshiftError: as `from_config`.
        """
        return None

    @classmethod
    def network_config(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a `config` that describes the network, without `Options`."""
        return dict(config)

    @classmethod
    def can_read(cls, path: Path) -> bool:
        """Whether `read` opens this file or folder. Decides by content; the path exists.

        Only for files of other programs; files of zeroshift are read without it.
        """
        return False

    @classmethod
    def read(cls, path: Path) -> "Generator":
        """The generator in a file or folder of another program. Called if `can_read` says so.

        Raises:
            ZeroshiftError: if the file is damaged.
        """
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    def sample_latents(self, seed: int, samples: Sequence[int]) -> Latents:
        """Gaussian latents [len(samples), *latent_shape]; row i depends on (seed, samples[i]) alone."""
        return normal(self.latent_shape, seed, "latents", samples=samples).to(self.device)

    def mapper_input(self, latents: Latents, labels: Tensor | None = None) -> Tensor | None:
        """Input of IPL's latent mapper, [N, mapper_input_dim]; never truncated.

        None if `mapper_input_dim` is None: the mapper then gets the encoder's feature of the source image.
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

        `noise_mode`: "const" (the stored noise images), "random" (row i depends on (noise_seed, samples[i]) alone;
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
        """Number of images of one code that `training_images` gives."""
        return 1

    def training_images(
        self, codes: Codes, *, noise_mode: str = "const", noise_seed: int = 0, samples: Sequence[int] | None = None
    ) -> Iterator[Tensor]:
        """Yields the batches of images [N, 3, resolution, resolution] to train on, each with its own graph.

        Takes the arguments of `synthesize`. By default there is one batch, its result; a family can yield several to
        save memory.
        """
        yield self.synthesize(codes, noise_mode=noise_mode, noise_seed=noise_seed, samples=samples)

    def invert(self, images: Tensor) -> Codes:
        """Codes of real images [N, 3, resolution, resolution] in [-1, 1], from which `synthesize` restores them.

        Raises:
            ZeroshiftError: if this family has no inversion of its own; photos may still be found in its `style_space`.
        """
        raise ZeroshiftError(
            f"A {self.architecture} generator has no inversion of its own. Choose a diffusion model, or to translate "
            "photos a StyleGAN."
        )

    def style_space(self) -> StyleSpace | None:
        """The space of W and W+, into which images can be inverted by optimization; None if the codes are no styles."""
        return None

    def inverted_mapper_input(self, codes: Codes) -> Tensor | None:
        """`mapper_input` [N, mapper_input_dim] of codes from `invert`; None if `mapper_input_dim` is None."""
        return None

    @property
    def options(self) -> GeneratorOptions:
        """The settings of the family in use."""
        return GeneratorOptions()

    def configure(self, options: GeneratorOptions) -> None:
        """Sets the settings of the family, an instance of `Options`. A plain GeneratorOptions changes nothing.

        Raises:
            ZeroshiftError: for settings of another family.
        """
        if type(options) is not GeneratorOptions:
            raise ZeroshiftError(
                f"A {self.architecture} generator takes no {type(options).__name__}: these are the settings of another "
                "generator family."
            )

    def checkpoint_gradients(self) -> None:
        """Saves memory in training from now on: `synthesize` keeps few activations and computes the others again.

        Raises:
            ZeroshiftError: if this family has no gradient checkpointing.
        """
        raise ZeroshiftError(
            f"A {self.architecture} generator has no gradient checkpointing. Leave adapt.gradient_checkpointing out."
        )

    def add_lora(self, rank: int, seed: int) -> None:
        """Freezes the weights and adds low-rank updates (LoRA), which become the `layers`.

        Raises:
            ZeroshiftError: if this family has no low-rank updates.
        """
        raise ZeroshiftError(f"A {self.architecture} generator has no low-rank updates. Leave adapt.lora_rank out.")

    def mixed(self, targets: Sequence["Generator"], shares: Sequence[float]) -> "Generator":
        """A generator between this one and generators that were adapted from it, for translating real images.

        A share of 0 is this generator, of 1 the target; several targets mix their domains. By default the weights are
        mixed (`blend_weights`); a family may mix something else.

        Raises:
            ZeroshiftError: if a target is of another architecture or size.
        """
        return blend_weights(self, targets, shares)

    def merged(self) -> "Generator":
        """The same generator with its low-rank updates, if any, added to the weights."""
        return self

    def export(self, path: Path, format: str) -> None:
        """Writes the generator in a format of `exports`.

        Raises:
            ZeroshiftError: for another format, or a generator that the format cannot hold.
        """
        if format not in self.exports:
            raise ZeroshiftError(f"A {self.architecture} generator cannot be exported as {format!r}.")
        write: Callable[[Generator, Path], None] = resolve_name(self.exports[format])
        write(self, path)

    def require_delivery(self, folder: Path) -> None:
        """Raises ZeroshiftError, before the work, if `deliver` may not write into this run folder."""

    def deliver(self, folder: Path) -> None:
        """Writes `deliveries` into a run folder."""
        for name, format in self.deliveries.items():
            self.merged().export(folder / name, format)

    @abstractmethod
    def layers(self) -> dict[str, nn.Module]:
        """Adaptable layers by name ("synthesis.b64.conv0"), from input to output. The name is the module's path."""

    def layer_candidates(self) -> list[str] | None:
        """The candidate layer of each row of the codes, for the adaptive choice of layers.

        None if the codes have no rows: there is no adaptive choice then, and `adaptive` means `all`.
        """
        return None


class Synthesis(nn.Module):
    """`Generator.synthesize` as the forward pass of a module, for functions of PyTorch that take modules."""

    def __init__(self, generator: Generator):
        super().__init__()
        self.generator = generator

    def forward(self, codes: Codes, **options: Any) -> Tensor:
        """Images of codes; `options` as for `synthesize`."""
        return self.generator.synthesize(codes, **options)


def truncate(ws: Tensor, w_avg: Tensor, truncation_psi: float, cutoff: int | None = None) -> Tensor:
    """Pulls the first `cutoff` rows (default: all) of ws [N, num_ws, w_dim] toward w_avg [w_dim].

    w' = w_avg + truncation_psi (w - w_avg), the truncation trick (Karras et al., 2019, section 2.1 and appendix B).
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


@torch.no_grad()
def blend_weights(
    source: Generator, targets: Sequence[Generator], amounts: Sequence[float], out: Generator | None = None
) -> Generator:
    """A generator with weights source + Σ amount_i (target_i − source): 0 is the source, 1 the target.

    Interpolation between a network and its fine-tuned copy: Wang et al., "Deep Network Interpolation for Continuous
    Imagery Effect Transition", CVPR 2019.

    Args:
        source: the generator that all targets were adapted from.
        targets: the adapted generators.
        amounts: one number per target.
        out: generator that receives the weights; a copy of the source if None.
    Raises:
        ZeroshiftError: if architecture or size differ.

    Examples:
        >>> source, target = load_generator("miniature"), load_generator("runs/zombie/generator.safetensors")
        >>> half = blend_weights(source, [target], [0.5])
    """
    if any(target.architecture != source.architecture or target.config != source.config for target in targets):
        raise ZeroshiftError(
            "Only generators of the same architecture and size can be blended. Adapt them from one source."
        )
    out = copy.deepcopy(source) if out is None else out
    states = [target.state_dict() for target in targets]
    blended = out.state_dict()  # shares memory with `out`
    for name, weight in source.state_dict().items():
        if weight.is_floating_point():
            value = weight.clone()
            for amount, state in zip(amounts, states, strict=True):
                value += amount * (state[name].to(weight) - weight)
            blended[name].copy_(value)
    return out
