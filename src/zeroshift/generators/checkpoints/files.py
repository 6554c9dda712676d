"""Loads, saves and exports generators."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from zeroshift.core.finite import require_finite_weights
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.architectures import looks_like_name
from zeroshift.generators.checkpoints.catalogue import named_entry, parse_description, resolve
from zeroshift.generators.checkpoints.claims import listed, misfits
from zeroshift.generators.checkpoints.hub_models import generator_in
from zeroshift.generators.checkpoints.readers import find_reader, first_bytes, read_foreign
from zeroshift.generators.checkpoints.stylegan_files import load_safetensors
from zeroshift.generators.module import build
from zeroshift.generators.registry import FAMILIES
from zeroshift.generators.trust import is_factory_name, remember
from zeroshift.io.checksums import save_tensors, verify_tensors

__all__ = [
    "export_formats", "export_generator", "export_suffix", "generator_metadata", "load_generator",
    "save_generator",
]  # fmt: skip

NATIVE = "safetensors"  # the format of save_generator


def load_generator(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    *,
    module: nn.Module | None = None,
    trust: bool = True,
) -> Generator:
    """Loads a generator, in evaluation mode.

    No code in a file is executed. A factory ("package.module:function") is code; it is imported only if you name it
    here or have trusted it before (`zeroshift.generators.trust.trust`).

    Args:
        name_or_path: one of
            - a name of the catalogue (`zeroshift models` lists them), downloaded once;
            - a model on the Hugging Face Hub, such as "google/ddpm-cat-256", or one of `zeroshift push`; downloaded
              once;
            - a file: safetensors of `save_generator`, .pt in rosinality's layout, .pkl of stylegan2-ada-pytorch or
              stylegan3, .ckpt of a published diffusion autoencoder, or what a family of another package reads;
            - a folder with an unconditional diffusers pipeline (DDPM, DDIM or LDM);
            - "package.module:function", a factory of any torch module (`ModuleSpec`).
        device: where to put the weights.
        module: for a saved generator that was wrapped without a factory: a module of the same architecture. It is
            copied; its own weights do not change.
        trust: False if the name comes from a file, such as a run's configuration: a factory that you have not named
            or trusted before is then refused.

    Raises:
        ZeroshiftError: a missing, damaged or unsupported file, weights that are not finite numbers, an unknown name, or
            a factory that is not trusted.

    Examples:
        >>> generator = load_generator("miniature")
        >>> generator(generator.sample_latents(0, range(2))).shape
        torch.Size([2, 3, 64, 64])
    """
    name, path = str(name_or_path), Path(name_or_path)
    entry = named_entry(name)
    if entry is None and not os.path.exists(path) and is_factory_name(name):
        if trust:
            remember(name)
        generator: Generator = build(name)
    else:
        if entry is not None or looks_like_name(path):
            path = resolve(name)
        generator = _load_file(path, module)
    require_finite_weights(generator, f"The generator {name}")
    return generator.to(device).eval()


def generator_metadata(path: str | Path) -> dict[str, Any]:
    """The description that `save_generator` wrote: "architecture", "config", and the metadata passed to it.

    Raises:
        ZeroshiftError: a missing or damaged file, or one that zeroshift did not write.
    """
    with _safetensors(Path(path)) as file:
        return _description(Path(path), file.metadata())


def save_generator(generator: Generator, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file with a checksum, from which `load_generator` rebuilds the generator, atomically.

    Args:
        metadata: further strings to store, such as the target domain. "architecture" and "config" are reserved.

    Examples:
        >>> save_generator(load_generator("miniature"), "copy.safetensors", {"target": "photo"})
        >>> copy = load_generator("copy.safetensors")
    """
    described = {**(metadata or {}), "architecture": generator.architecture, "config": generator.config}
    save_tensors(path, generator.state_dict(), {"zeroshift": json.dumps(described)})


def export_formats(architecture: str) -> list[str]:
    """The formats that `export_generator` writes for a family; "safetensors", the first, is ours.

    Raises:
        ZeroshiftError: if there is no such family.
    """
    return [NATIVE, *FAMILIES[architecture].exports]


def export_suffix(architecture: str, format: str) -> str:
    """The usual file suffix of a format, such as ".pt"; empty for a folder."""
    return ".safetensors" if format == NATIVE else FAMILIES[architecture].export_suffix.get(format, "")


def export_generator(generator: Generator, path: str | Path, format: str = NATIVE) -> None:
    """Writes a generator in one of its `export_formats`.

    "safetensors" is the format of `save_generator`; "rosinality-pt" the one of the published StyleGAN2 programs;
    "diffusers" a folder for `DDIMPipeline.from_pretrained` (`LDMPipeline`, if the model has a decoder).

    Raises:
        ZeroshiftError: if the family does not have the format, or the format cannot hold the generator.

    Examples:
        >>> export_generator(load_generator("miniature"), "people.pkl", "nvidia-pkl")
    """
    if format == NATIVE:
        save_generator(generator, path)
    elif format in generator.exports:
        generator.export(Path(path), format)
    else:
        formats = ", ".join((NATIVE, *generator.exports))
        raise ZeroshiftError(
            f"A {generator.architecture} generator cannot be exported as {format!r}. Choose from: {formats}."
        )


def _load_file(path: Path, module: nn.Module | None) -> Generator:
    path = generator_in(path)
    # Checked first: the length at the start of a safetensors file may look like the start of any other file.
    if first_bytes(path)[5:9] == b"\0\0\0{":
        return _load_safetensors(path, module)
    if module is not None:
        raise ZeroshiftError(f"{path} was not written by zeroshift, so it cannot be loaded into a module.")
    return read_foreign(path)


def _load_safetensors(path: Path, module: nn.Module | None) -> Generator:
    with _safetensors(path) as file:
        described = parse_description(file.metadata())
        if described is None:
            reader = find_reader(path)
            if isinstance(reader, type):  # a family of another package
                return reader.read(path)
            return load_safetensors(file, path)
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        _check_claims(path, described, shapes)
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in shapes}
        verify_tensors(path, tensors, file.metadata())
    architecture = described["architecture"]
    try:
        generator = FAMILIES[architecture].from_config(described["config"], module)
        generator.load_state_dict(tensors)
    except ZeroshiftError as error:
        raise ZeroshiftError(f"{path} could not be loaded. {error}") from error
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ZeroshiftError(f"{path} is damaged: its weights do not fit its description.") from error
    return generator


def _check_claims(path: Path, described: Mapping[str, Any], shapes: Mapping[str, list[int]]) -> None:
    """Compares the description in a file with its weights, before memory is allocated for what it claims."""
    architecture = described["architecture"]
    if architecture not in FAMILIES:
        raise ZeroshiftError(
            f"{path} holds a generator of the unknown family {architecture!r:.60}. Install the package that provides "
            f"it; the families are: {', '.join(FAMILIES)}."
        )
    try:
        expected = FAMILIES[architecture].weight_shapes(described["config"])
    except ZeroshiftError as error:
        raise ZeroshiftError(f"{path} could not be loaded. {error}") from error
    wrong = [] if expected is None else misfits(expected, shapes)
    if wrong:
        raise ZeroshiftError(f"{path} could not be loaded. Its weights do not fit its description: {listed(wrong)}.")


@contextlib.contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except ZeroshiftError:
        raise
    except FileNotFoundError as error:
        raise ZeroshiftError(f"There is no generator file {path}.") from error
    except Exception as error:  # safetensors' own exceptions, of several types
        raise ZeroshiftError(f"{path} is damaged: it is not a complete safetensors file.") from error


def _description(path: Path, metadata: Any) -> dict[str, Any]:
    described = parse_description(metadata)
    if described is None:
        raise ZeroshiftError(f"{path} was not written by zeroshift: its metadata does not describe a generator.")
    return described
