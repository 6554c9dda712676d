"""An inverted photo: codes, and changes of weights and noise that any generator of the same source can take."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from zeroshift.core.finite import is_finite
from zeroshift.errors import DamagedFileError, ZeroshiftError
from zeroshift.generators.base import Codes, Generator, Synthesis
from zeroshift.io.checksums import load_tensors, save_tensors
from zeroshift.io.foreign import parse_json

__all__ = ["Inverted", "render"]

_CHANGE = "change/"  # prefix of changes in a file
_RECORD = "inversion"  # key of the record in the metadata


@dataclass(frozen=True, repr=False)
class Inverted:
    """One inverted photo.

    Attributes:
        codes: what `Generator.synthesize` reads, without the batch axis; StyleGAN: [num_ws, w_dim].
        changes: differences to weights and noise maps of the source generator, by name (PTI: Roich et al., 2021). Added
            to a generator that was adapted from this source, they show the photo in its domain.
        record: how it was made: settings, distance, encoder, PSNR in dB. JSON-able.
    """

    codes: Tensor
    changes: Mapping[str, Tensor] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        quality = f", PSNR {self.record['psnr']} dB" if "psnr" in self.record else ""
        return f"<Inverted: codes {list(self.codes.shape)}, {len(self.changes)} changes{quality}>"

    @property
    def nbytes(self) -> int:
        """Size of the codes and changes, in bytes."""
        return self.codes.nbytes + sum(change.nbytes for change in self.changes.values())

    def save(self, path: Path) -> None:
        """Writes a safetensors file, atomically.

        Raises:
            ZeroshiftError: if it cannot be written.
        """
        changes = {f"{_CHANGE}{name}": value for name, value in self.changes.items()}
        save_tensors(path, {"codes": self.codes, **changes}, {_RECORD: json.dumps(dict(self.record))})

    @classmethod
    def load(cls, path: Path) -> "Inverted":
        """The inverted photo in a file, on the CPU.

        Raises:
            ZeroshiftError: if there is no such file, or it is damaged or of another kind.
        """
        tensors, metadata = load_tensors(path)
        if "codes" not in tensors or _RECORD not in metadata:
            raise ZeroshiftError(f"{path} holds no inverted photo. Give a file that `zeroshift invert` wrote.")
        record = parse_json(metadata[_RECORD], str(path))
        if not all(map(is_finite, tensors.values())) or not isinstance(record, dict):
            raise DamagedFileError(f"{path} is damaged: it holds values that are not finite numbers. Make it again.")
        changes = {name.removeprefix(_CHANGE): value for name, value in tensors.items() if name.startswith(_CHANGE)}
        return cls(tensors["codes"], changes, record)

    def require_generator(self, identity: str) -> None:
        """Raises ZeroshiftError if the photo was inverted into another generator than the one with this identity.

        Photos without a record of their generator pass.
        """
        if self.record.get("generator", identity) != identity:
            raise ZeroshiftError(
                "The inverted photo belongs to another generator, or for diffusion models to another t0. Invert the "
                "photo into the source generator of the run."
            )

    def to(self, device: torch.device | str) -> "Inverted":
        """The same on a device."""
        changes = {name: value.to(device) for name, value in self.changes.items()}
        return Inverted(self.codes.to(device), changes, self.record)


def render(generator: Generator, codes: Codes, changes: Mapping[str, Tensor] | None = None, **options: Any) -> Tensor:
    """Images [N, 3, R, R] of a generator with changed weights; the generator itself stays as it is.

    Args:
        codes: [N, ...].
        changes: differences to add, by name of weight or buffer. Those of noise maps, [R, R], may be [N, 1, R, R].
        options: of `Generator.synthesize`.

    Raises:
        ZeroshiftError: if the generator has no weight of such a name and shape.
    """
    if not changes:
        return generator.synthesize(codes, **options)
    own = {**dict(generator.named_parameters()), **dict(generator.named_buffers())}
    for name, change in changes.items():
        fits = name in own and tuple(change.shape) in _shapes(own[name], len(codes))
        if not fits:
            raise ZeroshiftError(
                f"The inverted photo belongs to another generator: this one has no {name} of shape "
                f"{list(change.shape)}. Invert the photo into this generator."
            )
    changed = {f"generator.{name}": own[name] + change.to(own[name]) for name, change in changes.items()}
    images: Tensor = functional_call(Synthesis(generator), changed, (codes,), options)
    return images


def _shapes(weight: Tensor, images: int) -> list[tuple[int, ...]]:
    """The shapes that a change of a weight may have: its own, and for noise maps one for each image."""
    return [tuple(weight.shape), *([(images, 1, *weight.shape)] if weight.ndim == 2 else [])]
