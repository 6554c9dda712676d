"""Domain vector: trains one scale per input channel (HyperDomainNet for one domain, Alanov et al., 2022).

The published program scales a kernel's input channels after demodulation. Here they are scaled before it, together with
the styles. The vector can then be merged into the affine layers, and the result is an ordinary generator.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zeroshift.clip.losses import normalize
from zeroshift.config.settings import MethodOptions
from zeroshift.core.dtypes import float64
from zeroshift.core.finite import is_finite
from zeroshift.errors import NotFiniteError, ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.io.checksums import load_tensors, save_tensors
from zeroshift.io.foreign import first_line, parse_json
from zeroshift.methods.base import Pairs, require_whole_batches
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.nada import FixedDirection

__all__ = ["DomainVector", "Modulation", "apply_vector", "in_domain", "modulated_layers", "vector_between"]

_FILE = "domain-vector.safetensors"
_RGB_CHANNELS = 3


@dataclass(frozen=True)
class DomainVectorOptions(MethodOptions):
    """Settings of the domain vector method."""

    in_domain_weight: float = 1.0
    """Weight of the in-domain loss, which preserves the pairwise cosines within a batch."""

    def validate(self) -> None:
        """Checks the values.

        Raises:
            ZeroshiftError: if the weight is negative.
        """
        if self.in_domain_weight < 0:
            raise ZeroshiftError(f"in_domain_weight is {self.in_domain_weight}; it must be at least 0.")


def in_domain(source: Tensor, target: Tensor) -> Tensor:
    """In-domain angle consistency: mean squared change of the pairwise cosines of features [..., B, E]."""
    change = (
        normalize(source) @ normalize(source).mT - normalize(target) @ normalize(target).mT
    )  # [..., B, B], zero on the diagonal
    batch = change.shape[-1]
    return change.square().sum(dim=(-2, -1)).mean() / (batch * (batch - 1))


def modulated_layers(generator: Generator) -> dict[str, Any]:
    """The modulated and demodulated convolutions by name: layers with an affine map of w, except RGB layers.

    Raises:
        ZeroshiftError: if the generator has none.
    """
    layers: dict[str, Any] = generator.layers()
    modulated = {
        name: layer
        for name, layer in layers.items()
        if hasattr(layer, "affine") and layer.weight.ndim == 4 and len(layer.weight) != _RGB_CHANNELS
    }
    if not modulated:
        raise ZeroshiftError(
            f"The method 'domain-vector' scales the channels of modulated convolutions, and a {generator.architecture} "
            "generator has none. Choose a StyleGAN, or another method."
        )
    return modulated


class Modulation(nn.Module):
    """The vector d of a domain; computes the weights of G_t from it and the weights of the source."""

    def __init__(self, source: Generator):
        super().__init__()
        self._affine = {
            f"{name}.affine.{kind}": getattr(layer.affine, kind).detach().clone()
            for name, layer in modulated_layers(source).items()
            for kind in ("weight", "bias")
        }
        self._sizes = [len(value) for name, value in self._affine.items() if name.endswith("bias")]
        self.vector = nn.Parameter(torch.ones(sum(self._sizes), device=source.device))

    def forward(self) -> dict[str, Tensor]:
        """The weights of the affine maps with scaled styles, d * (A w + b), by name."""
        parts = [part for part in self.vector.split(self._sizes) for _ in ("weight", "bias")]
        return {
            name: value * (part if value.ndim == 1 else part[:, None])
            for (name, value), part in zip(self._affine.items(), parts, strict=True)
        }


@torch.no_grad()
def vector_between(source: Generator, target: Generator) -> Tensor:
    """The vector d [C] from the source to a target trained by this method, by least squares per channel."""
    parts = []
    layers = modulated_layers(target)
    for name, layer in modulated_layers(source).items():
        before, after = (
            float64(torch.cat([one.affine.weight, one.affine.bias[:, None]], dim=1)) for one in (layer, layers[name])
        )
        parts.append((before * after).sum(dim=1) / before.square().sum(dim=1).clamp(min=1e-30))
    return torch.cat(parts).float()


@torch.no_grad()
def apply_vector(source: Generator, path: str | Path) -> Generator:
    """A copy of the source, moved to the domain of a vector file that a run with this method wrote.

    Raises:
        ZeroshiftError: if the file is missing, damaged or no domain vector, or belongs to another kind of generator.
    """
    tensors, metadata = load_tensors(path)
    try:
        described = parse_json(metadata["zeroshift"], f"The description in {path}")
        vector, architecture, config = tensors["vector"], described["architecture"], described["config"]
    except (KeyError, TypeError) as error:
        raise ZeroshiftError(f"{path} is not a domain vector: it has no {first_line(error)}.") from error
    if not is_finite(vector):
        raise NotFiniteError(f"The domain vector {path} has values that are not finite numbers. Make it again.")
    if (architecture, config) != (source.architecture, json.loads(json.dumps(source.config))):
        raise ZeroshiftError(f"The domain vector {path} belongs to a {architecture} generator of other sizes.")
    target = copy.deepcopy(source)
    modulation = Modulation(source)
    if vector.shape != modulation.vector.shape:
        raise ZeroshiftError(f"The domain vector {path} is damaged: it has the shape {list(vector.shape)}.")
    modulation.vector.copy_(vector)
    named = dict(target.named_parameters())
    for name, weight in modulation().items():
        named[name].copy_(weight)
    return target


class DomainVector(FixedDirection):
    """NADA's direction with HyperDomainNet's parameters: 6,048 of them for StyleGAN2 at 1024 pixels."""

    Options: ClassVar[type[MethodOptions]] = DomainVectorOptions
    curves: ClassVar[Mapping[str, str]] = {
        "in_domain": "How much the adaptation changes similarities between the images of a batch; 0 keeps them all.",
    }
    # HyperDomainNet's configuration for one text, which uses no moving average.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {
            "adapt.batch_size": 4, "adapt.lr": 0.1, "adapt.betas": (0.9, 0.999), "adapt.ema_decay": 0.0,
            "adapt.layers": ("all",),
        },
    }  # fmt: skip

    def __init__(self, context: TrainingContext):
        super().__init__(context)
        self._weight = self.options.in_domain_weight
        if self._weight:
            require_whole_batches(context.config, minimum=2)
        modulated_layers(context.source)

    def reparametrize(self, target: Generator) -> nn.Module:
        """The vector d."""
        return Modulation(target)

    def joint_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """The weighted in-domain loss."""
        if not self._weight:
            return {}
        terms = [
            weight * in_domain(self.gather_batch(source), self.gather_batch(target))
            for weight, source, target in zip(
                self.context.config.weights, pairs.source_features, pairs.target_features, strict=True
            )
        ]
        return {"in_domain": self._weight * torch.stack(terms).sum()}

    def save(self, folder: Path, target: Generator) -> None:
        """Writes the vector (a few KB) to domain-vector.safetensors, for `apply_vector`."""
        config, source = self.context.config, self.context.source
        described = {
            "source": config.source, "target": config.target, "architecture": source.architecture,
            "config": source.config,
        }  # fmt: skip
        vector = vector_between(source, target)
        save_tensors(folder / _FILE, {"vector": vector}, {"zeroshift": json.dumps(described)})
