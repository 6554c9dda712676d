"""A generator family with its own option, export and file format."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from zeroshift.config.schema import require
from zeroshift.config.settings import GeneratorOptions
from zeroshift.generators.base import Codes, Generator, Latents
from zeroshift.generators.checkpoints.catalogue import CatalogueEntry

ENTRY = CatalogueEntry("example", "example_family", 16, "MIT", package_file="zeroshift_example:example.npz")


@dataclass(frozen=True)
class ExampleOptions(GeneratorOptions):
    """Options of the example family."""

    contrast: float = 1.0
    """Factor of the image before tanh."""

    def validate(self) -> None:
        """Checks the values."""
        require(self.contrast > 0, f"sampling.contrast is {self.contrast}; it must be positive.")


class ExampleFamily(Generator):
    """A sum of smooth basis images, with one code row per layer, so that layers can be chosen adaptively.

    Args:
        resolution: image size.
        z_dim: width of the latent.
    """

    architecture = "example_family"
    Options = ExampleOptions
    unused_settings = frozenset({"class_index", "adapt.noise_mode", "adapt.lora_rank", "source_images_dir"})
    exports: ClassVar[Mapping[str, str]] = {"npz": "zeroshift_example.family:write_npz"}
    export_suffix: ClassVar[Mapping[str, str]] = {"npz": ".npz"}
    num_classes = 0

    def __init__(self, resolution: int = 16, z_dim: int = 8):
        super().__init__()
        self.config = {"resolution": resolution, "z_dim": z_dim}
        self.resolution, self.latent_shape, self.mapper_input_dim = resolution, (z_dim,), z_dim
        self.mean = nn.Linear(z_dim, 3)
        self.detail = nn.Linear(z_dim, 3 * 16)
        self._options = ExampleOptions()

    @classmethod
    def can_read(cls, path: Path) -> bool:
        return path.suffix == ".npz" and path.is_file() and "example_z_dim" in np.load(path)

    @classmethod
    def read(cls, path: Path) -> "ExampleFamily":
        content = np.load(path)
        generator = cls(int(content["example_resolution"]), int(content["example_z_dim"]))
        names = [name for name in content.files if not name.startswith("example_")]
        generator.load_state_dict({name: torch.from_numpy(content[name]) for name in names})
        return generator

    @property
    def options(self) -> GeneratorOptions:
        return self._options

    def configure(self, options: GeneratorOptions) -> None:
        if isinstance(options, ExampleOptions):
            self._options = options
        else:
            super().configure(options)

    def mapper_input(self, latents: Latents, labels: Tensor | None = None) -> Tensor:
        return latents

    def codes(
        self,
        latents: Latents,
        labels: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Codes:
        return (latents * truncation_psi)[:, None].expand(-1, 2, -1)  # [N, 2, z_dim]: one row per layer

    def synthesize(
        self, codes: Codes, *, noise_mode: str = "const", noise_seed: int = 0, samples: Sequence[int] | None = None
    ) -> Tensor:
        mean = self.mean(codes[:, 0])[:, :, None, None]  # [N, 3, 1, 1]
        detail = self.detail(codes[:, 1]).reshape(-1, 3, 4, 4)
        image = mean + nn.functional.interpolate(detail, size=(self.resolution, self.resolution), mode="bilinear")
        return torch.tanh(self._options.contrast * image / math.sqrt(2))

    def layers(self) -> dict[str, nn.Module]:
        return {"mean": self.mean, "detail": self.detail}

    def layer_candidates(self) -> list[str]:
        return ["mean", "detail"]


def write_npz(generator: ExampleFamily, path: Path) -> None:
    """Writes the weights as NumPy arrays."""
    weights = {name: value.detach().cpu().numpy() for name, value in generator.state_dict().items()}
    config = {f"example_{name}": value for name, value in generator.config.items()}
    with open(path, "wb") as file:
        np.savez(file, **weights, **config)
