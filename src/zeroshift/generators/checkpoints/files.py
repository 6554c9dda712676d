"""Generators from and to files. What a file is, is told by its content, not by its name."""

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.rosinality import read_rosinality, write_rosinality
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.io.atomic import atomic_write

__all__ = ["FORMATS", "architecture_of", "export_generator", "generator_metadata", "load_generator", "save_generator"]

FORMATS = ("safetensors", "rosinality-pt", "diffusers")
_SUFFIXES = (".safetensors", ".pt", ".pth", ".pkl", ".ckpt", ".bin")
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # first pickle of a torch.save file before version 1.6


def load_generator(name_or_path: str | Path, device: str | torch.device = "cpu") -> Generator:
    """A generator in evaluation mode, from a file or folder, or a known name ("miniature": an embedded one).

    Files: our safetensors, .pt of rosinality's layout, .pkl of stylegan2-ada-pytorch and stylegan3. Folders: diffusers'
    unconditional pipelines (DDPM, DDIM, LDM). No code in them is ever executed. Known names (`zeroshift models` lists
    them) and models of the Hugging Face Hub ("google/ddpm-cat-256") are downloaded once.

    Raises:
        ZeroshiftError: a missing, damaged or foreign file, an unknown name.
    """
    from zeroshift.generators.checkpoints import catalogue as hub

    name, path = str(name_or_path), Path(name_or_path)
    looks_like_name = not path.is_absolute() and len(path.parts) <= 2 and path.suffix not in _SUFFIXES
    if name in hub.EMBEDDED or (looks_like_name and not path.exists()):
        path = hub.resolve(name)
    return _read(path).to(device).eval()


def architecture_of(name_or_path: str | Path) -> str | None:
    """What `Generator.architecture` will be, as far as that can be told without loading or fetching anything."""
    from zeroshift.generators.checkpoints import catalogue as hub

    name, path = str(name_or_path), Path(name_or_path)
    known = {checkpoint.name: checkpoint.architecture for checkpoint in hub.known_checkpoints()}
    if name in known and (name in hub.EMBEDDED or not path.exists()):
        return known[name]
    if path.is_dir() or (not path.exists() and "/" in name and path.suffix not in _SUFFIXES):
        return Diffusion.architecture
    try:
        return generator_metadata(path)["architecture"]
    except ZeroshiftError:  # none of ours, or none at all
        return None


def generator_metadata(path: str | Path) -> dict[str, Any]:
    """What `save_generator` wrote beside the weights: "architecture", "config", and the metadata it was given.

    Raises:
        ZeroshiftError: a missing or damaged file, or one that zeroshift did not write.
    """
    with _safetensors(Path(path)) as file:
        return _described(Path(path), file.metadata())


def save_generator(generator: Generator, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file whose metadata rebuilds the module, atomically.

    `metadata` is kept with it (say, what the generator was adapted to); "architecture" and "config" are reserved.
    """
    described = {**(metadata or {}), "architecture": generator.architecture, "config": generator.config}
    tensors = {name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"zeroshift": json.dumps(described)})


def export_generator(generator: Generator, path: str | Path, format: str = "safetensors") -> None:
    """Writes a generator as "safetensors" (ours), "rosinality-pt" or "diffusers".

    rosinality-pt is what the published GAN programs open; diffusers a folder that `DDIMPipeline.from_pretrained` opens
    (`LDMPipeline.from_pretrained`, if it has a decoder).

    Raises:
        ZeroshiftError: an unknown format, or a generator that the format cannot hold.
    """
    if format not in FORMATS:
        raise ZeroshiftError(f"Unknown format {format!r}: choose one of {', '.join(FORMATS)}.")
    if format == "safetensors":
        save_generator(generator, path)
    elif format == "rosinality-pt" and isinstance(generator, StyleGAN2):
        write_rosinality(generator, path)
    elif format == "diffusers" and type(generator) is Diffusion:
        from zeroshift.generators.checkpoints.diffusers import write_pipeline

        write_pipeline(generator, Path(path))
    else:
        holds = "StyleGAN2 generators" if format == "rosinality-pt" else "unconditional diffusion models"
        raise ZeroshiftError(f"The format {format} holds {holds} only, not {generator.architecture}.")


def _read(path: Path) -> Generator:
    if path.is_dir():
        from zeroshift.generators.checkpoints.diffusers import read_pipeline

        return read_pipeline(path)
    try:
        with open(path, "rb") as file:
            head = file.read(len(_TORCH_LEGACY))
    except FileNotFoundError as error:
        raise ZeroshiftError(f"There is no generator file {path}.") from error
    except OSError as error:
        raise ZeroshiftError(f"{path} cannot be read: {error.strerror}.") from error
    if not head:
        raise ZeroshiftError(f"{path} is empty.")
    # First, as the length that it begins with may begin like any other kind of file.
    if head[5:9] == b"\0\0\0{":
        return _read_safetensors(path)
    if head.startswith(b"PK\x03\x04") or head == _TORCH_LEGACY:
        from zeroshift.generators.checkpoints import diffae as diffae_checkpoint

        return diffae_checkpoint.read_diffae(path) if diffae_checkpoint.is_diffae(path) else read_rosinality(path)
    if head.startswith(b"\x80"):
        from zeroshift.generators.checkpoints import nvidia

        return nvidia.load_pkl(path)
    raise ZeroshiftError(
        f"{path} is no generator file: expected safetensors, a .pt of rosinality's StyleGAN2 or an NVIDIA .pkl."
    )


def _read_safetensors(path: Path) -> Generator:
    with _safetensors(path) as file:
        described = _described(path, file.metadata())
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    architectures = _architectures()
    if described["architecture"] not in architectures:
        raise ZeroshiftError(f"{path} holds a generator of unknown architecture {described['architecture']!r}.")
    try:
        generator = architectures[described["architecture"]](**described["config"])
        generator.load_state_dict(tensors)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ZeroshiftError(f"{path} is damaged: its weights do not fit its description.") from error
    return generator


def _architectures() -> dict[str, Callable[..., Generator]]:
    from zeroshift.generators.diffusion.autoencoder import DiffusionAutoencoder
    from zeroshift.generators.stylegan.stylegan3 import StyleGAN3

    return {kind.architecture: kind for kind in (StyleGAN2, StyleGAN3, Diffusion, DiffusionAutoencoder)}


@contextlib.contextmanager
def _safetensors(path: Path):
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except ZeroshiftError:
        raise
    except FileNotFoundError as error:
        raise ZeroshiftError(f"There is no generator file {path}.") from error
    except Exception as error:  # safetensors' own exceptions, of several types
        raise ZeroshiftError(f"{path} is damaged: it is no complete safetensors file.") from error


def _described(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        described = json.loads((metadata or {})["zeroshift"])
        if isinstance(described["architecture"], str) and isinstance(described["config"], dict):
            return described
    except (KeyError, TypeError, ValueError):
        pass
    raise ZeroshiftError(f"{path} was not written by zeroshift: its metadata does not say what generator it holds.")
