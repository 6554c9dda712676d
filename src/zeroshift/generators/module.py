"""Any torch module z -> image as a generator.

A factory is a function or class without arguments, named "package.module:function". Files of wrapped modules name their
factory; `zeroshift.generators.trust` decides whether it may be imported.
"""

import copy
import dataclasses
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor, nn

from zeroshift.core.dtypes import at_least_float32
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import LAYER_CHOICE_SETTINGS, Codes, Generator, Latents
from zeroshift.generators.trust import is_trusted, trust

__all__ = ["ModuleGenerator", "ModuleSpec", "build", "trust", "wrap_generator"]

MAX_MAPPER_INPUT = 4096  # numbers; for larger latents, the mapper gets the encoder's image feature
_EXPECTED = "a ModuleSpec or (module, latent_shape, resolution)"
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class ModuleSpec:
    """What a factory returns."""

    module: nn.Module
    """Maps latents [N, *latent_shape] to images [N, 1 or 3, resolution, resolution]; conditional modules take
    (latents, class indices [N])."""
    latent_shape: Sequence[int]
    """Shape of the standard normal latent of one image, such as (128,) or (100, 1, 1)."""
    resolution: int
    """Height and width of the images."""
    value_range: tuple[float, float] = (-1.0, 1.0)
    """Values of black and white."""
    name: str = "module"
    """Name for error messages."""
    num_classes: int = 0
    """Number of classes; 0: unconditional."""


class ModuleGenerator(Generator):
    """A torch module as a generator. The codes are the latents; for conditional modules, the class index is appended.

    The module runs in evaluation mode, so that batch normalization uses its running statistics. There is no truncation
    and there are no noise inputs. A gray image is repeated to 3 channels. State dicts have the module's own keys.

    Args:
        spec: the module and its shapes.
        factory: "package.module:function" that made it; empty for a module without a factory.

    Raises:
        ZeroshiftError: if the module's images are not as described.
    """

    architecture = "module"
    unused_settings = frozenset(
        {
            "truncation_psi", "source_images_dir", "adapt.lora_rank", "adapt.noise_mode",
            "adapt.gradient_checkpointing", *LAYER_CHOICE_SETTINGS,
        }
    )  # fmt: skip

    def __init__(self, spec: ModuleSpec, factory: str = ""):
        super().__init__()
        _check_spec(spec)
        self.module = spec.module
        self.latent_shape = tuple(int(size) for size in spec.latent_shape)
        self.resolution, self.num_classes = int(spec.resolution), int(spec.num_classes)
        self._latent_size = math.prod(self.latent_shape)
        self.mapper_input_dim = self._latent_size if self._latent_size <= MAX_MAPPER_INPUT else None
        self._low, self._high = (float(value) for value in spec.value_range)
        self.config = {
            "factory": factory,
            "name": spec.name,
            "latent_shape": list(self.latent_shape),
            "resolution": self.resolution,
            "value_range": [self._low, self._high],
            "num_classes": self.num_classes,
        }
        self.eval()
        self._check_images(spec.name)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], module: nn.Module | None = None) -> "ModuleGenerator":
        """The generator from its factory, or around a copy of `module`, whose weights are then replaced.

        Raises:
            ZeroshiftError: if the factory is missing, not trusted, or returns a module of another shape.
        """
        factory = str(config["factory"])
        if module is not None:
            shapes = {name: value for name, value in config.items() if name != "factory"}
            return cls(ModuleSpec(copy.deepcopy(module), **shapes), factory)
        if not factory:
            raise ZeroshiftError(
                f"It holds the weights of a module without a factory ({config['name']}). Pass a module of the same "
                "architecture: load_generator(path, module=...)."
            )
        made = build(factory)
        if made.config != config:
            different = [name for name, value in config.items() if made.config[name] != value]
            raise ZeroshiftError(
                f"The factory {factory} makes a module with another {' and '.join(different)} than the saved one."
            )
        return made

    def train(self, mode: bool = True) -> "ModuleGenerator":
        """Leaves the module in evaluation mode, whatever `mode` is."""
        super().train(mode)
        self.module.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own state dict."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads a state dict of the module."""
        return self.module.load_state_dict(state_dict, strict=strict, assign=assign)

    def mapper_input(self, latents: Latents, labels: Tensor | None = None) -> Tensor | None:
        """The latents as rows [N, mapper_input_dim]; None if they have more than 4096 numbers."""
        return None if self.mapper_input_dim is None else latents.flatten(1)

    def codes(
        self,
        latents: Latents,
        labels: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Codes:
        """The latents [N, *latent_shape]; of a conditional module rows [N, numbers + 1] with the class index last."""
        if latents.shape[1:] != self.latent_shape:
            raise ZeroshiftError(f"Latents must be [N, {_shape(self.latent_shape)}], not {list(latents.shape)}.")
        if not self.num_classes:
            return latents
        if labels is None or labels.shape[:1] != latents.shape[:1]:
            raise ZeroshiftError(f"This generator has {self.num_classes} classes: give one label per latent.")
        indices = labels if labels.ndim == 1 else labels.argmax(dim=1)
        return torch.cat([latents.flatten(1), indices[:, None].to(latents)], dim=1)

    def synthesize(
        self, codes: Codes, *, noise_mode: str = "const", noise_seed: int = 0, samples: Sequence[int] | None = None
    ) -> Tensor:
        """Images [N, 3, resolution, resolution] in [-1, 1]. There are no noise inputs: all modes agree."""
        images = at_least_float32(self._images(codes))
        if (self._low, self._high) != (-1, 1):
            images = (images - self._low) * (2 / (self._high - self._low)) - 1
        return images.repeat(1, 3, 1, 1) if images.shape[1] == 1 else images

    def _images(self, codes: Codes) -> Any:
        dtype = next(parameter.dtype for parameter in self.parameters())
        if not self.num_classes:
            return self.module(codes.to(dtype))
        latents = codes[:, :-1].reshape(len(codes), *self.latent_shape)
        return self.module(latents.to(dtype), codes[:, -1].round().long())

    def layers(self) -> dict[str, nn.Module]:
        """The blocks with weights: the module's children, with the members of containers in their place."""
        return dict(_blocks(self.module, "module"))

    @torch.no_grad()
    def _check_images(self, name: str) -> None:
        """Generates two images twice to check shape and determinism."""
        latents = self.sample_latents(0, range(2))
        labels = torch.zeros(2, dtype=torch.long, device=self.device) if self.num_classes else None
        codes = self.codes(latents, labels)
        try:
            images = self._images(codes)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise ZeroshiftError(
                f"{name} does not accept latents of shape {list(latents.shape)} ({type(error).__name__}: {error}). "
                "Check the latent shape."
            ) from error
        if not isinstance(images, Tensor):
            raise ZeroshiftError(f"{name} returns a {type(images).__name__}. It must return the images as one tensor.")
        shape, size = list(images.shape), self.resolution
        if len(shape) != 4 or shape[0] != 2 or shape[1] not in (1, 3):
            raise ZeroshiftError(
                f"{name} returns images of shape {shape} for 2 latents. They must be [2, 3, {size}, {size}], or "
                f"[2, 1, {size}, {size}] for gray ones."
            )
        if shape[2] != shape[3]:
            raise ZeroshiftError(
                f"{name} generates images of {shape[2]} x {shape[3]} pixels. They must be square: crop or pad them in "
                "the module."
            )
        if shape[2] != size:
            raise ZeroshiftError(
                f"{name} generates images of {shape[2]} pixels, but its resolution is given as {size}."
            )
        if not images.isfinite().all():
            raise ZeroshiftError(f"{name} generates images with values that are not finite. Check its weights.")
        if not torch.equal(images, self._images(codes)):
            warnings.warn(
                f"{name} generates different images from the same latents. Results of a run will not be reproducible; "
                "take the noise from the latents.",
                stacklevel=4,
            )


def wrap_generator(
    module: nn.Module,
    latent_shape: Sequence[int],
    resolution: int,
    *,
    value_range: tuple[float, float] = (-1.0, 1.0),
    name: str = "module",
    num_classes: int = 0,
) -> ModuleGenerator:
    """Makes a generator of a torch module. Its arguments are those of `ModuleSpec`.

    The module is not copied. To load a file saved from it, pass a module again: `load_generator(path, module=module)`.
    A generator from a factory, `load_generator("package.module:function")`, does not need this.

    Raises:
        ZeroshiftError: if the module's images are not as described.

    Examples:
        >>> layers = torch.nn.Linear(8, 3 * 16 * 16), torch.nn.Tanh(), torch.nn.Unflatten(1, (3, 16, 16))
        >>> generator = wrap_generator(torch.nn.Sequential(*layers), (8,), resolution=16)
        >>> generator(generator.sample_latents(0, range(2))).shape
        torch.Size([2, 3, 16, 16])
    """
    return ModuleGenerator(ModuleSpec(module, latent_shape, resolution, value_range, name, num_classes))


def build(factory: str) -> ModuleGenerator:
    """Imports and calls a factory that the user has named or trusted.

    The factory returns a ModuleSpec, a ModuleGenerator or a tuple (module, latent_shape, resolution); or it is a class
    of modules with the attributes latent_shape and resolution.

    Raises:
        ZeroshiftError: if the factory is not trusted, cannot be imported or returns something else.
    """
    if not is_trusted(factory):
        raise ZeroshiftError(
            f"The generator needs the code of {factory}, which you have not named or trusted on this machine; it was "
            f"not imported. If you know the code, run: zeroshift models --trust {factory}"
        )
    try:
        make: Any = resolve_name(factory)
    except (ImportError, AttributeError) as error:
        raise ZeroshiftError(
            f"{factory} cannot be imported ({error}). Give an installed package or a file in the current folder, as "
            "package.module:function."
        ) from error
    made = make() if callable(make) and not isinstance(make, nn.Module) else make
    if isinstance(made, ModuleGenerator):
        made.config["factory"] = factory
        return made
    spec = _as_spec(made, factory)
    if spec.name == ModuleSpec.name:
        spec = dataclasses.replace(spec, name=factory)
    return ModuleGenerator(spec, factory)


def _as_spec(made: Any, factory: str) -> ModuleSpec:
    if isinstance(made, ModuleSpec):
        return made
    if isinstance(made, tuple) and len(made) == 3 and isinstance(made[0], nn.Module):
        return ModuleSpec(*made)
    if isinstance(made, nn.Module) and hasattr(made, "latent_shape") and hasattr(made, "resolution"):
        latent_shape: Any = made.latent_shape
        resolution: Any = made.resolution
        optional: dict[str, Any] = {
            name: getattr(made, name) for name in ("value_range", "num_classes") if hasattr(made, name)
        }
        return ModuleSpec(made, latent_shape, resolution, **optional)
    raise ZeroshiftError(f"{factory} returns a {type(made).__name__}. It must return {_EXPECTED}.")


def _check_spec(spec: ModuleSpec) -> None:
    """Checks what can be checked without generating an image."""
    name = spec.name
    if not isinstance(spec.module, nn.Module):
        raise ZeroshiftError(f"{name} is a {type(spec.module).__name__}. It must be a torch.nn.Module.")
    if not any(parameter.is_floating_point() for parameter in spec.module.parameters()):
        raise ZeroshiftError(f"{name} has no parameters, so there is nothing to adapt.")
    shape: Any = spec.latent_shape
    if not isinstance(shape, Sequence) or not shape or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ZeroshiftError(f"The latent shape of {name} is {shape!r}. It must be positive sizes, such as (128,).")
    if not isinstance(spec.resolution, int) or spec.resolution < 1:
        raise ZeroshiftError(f"The resolution of {name} is {spec.resolution!r}. It must be a positive whole number.")
    low, high = spec.value_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ZeroshiftError(
            f"The value range of {name} is {spec.value_range}. It must be (black, white), such as (0, 1)."
        )
    if spec.num_classes < 0:
        raise ZeroshiftError(f"{name} has {spec.num_classes} classes. Give 0 for an unconditional module.")
    if not all(isinstance(value, Tensor) for value in spec.module.state_dict().values()):
        raise ZeroshiftError(f"The state dict of {name} holds values other than tensors, which cannot be saved.")


def _blocks(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    direct = list(module.parameters(recurse=False))
    if direct:
        yield f"{path}.parameters", nn.ParameterList(direct)
    for name, child in module.named_children():
        if isinstance(child, _CONTAINERS):
            yield from _blocks(child, f"{path}.{name}")
        elif any(True for _ in child.parameters()):
            yield f"{path}.{name}", child


def _shape(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))
