"""Codes of real images. Each image is inverted once; the cache keeps its codes for later runs."""

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroshift.core.finite import is_finite
from zeroshift.errors import NotFiniteError, ZeroshiftError
from zeroshift.generators.base import Codes, Generator
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.io.checksums import load_tensors, save_tensors
from zeroshift.io.image_files import ImageReader, find_images
from zeroshift.io.images import square
from zeroshift.io.tensor_files import read_metadata

__all__ = ["add_weights", "generator_hash", "generator_identity", "invert", "read_folder"]

_BATCH_SIZE = 4


def read_folder(folder: str | Path, resolution: int) -> Tensor:
    """The center squares of all images in a folder, [M, 3, resolution, resolution] in [-1, 1], sorted by path.

    Raises:
        ZeroshiftError: if the folder does not exist or holds no images, or if one of them cannot be read.
    """
    with ImageReader() as reader:
        return torch.stack([square(reader.read(path), resolution) for path in find_images(folder)])


def invert(
    generator: Generator, images: Tensor, cache: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> Codes:
    """Codes of images [M, 3, resolution, resolution] in [-1, 1], on the device of the generator.

    Codes in `cache` are reused. Missing and damaged ones are computed a few images at a time and written atomically, so
    that an interrupted inversion continues where it stopped. If they cannot be written, a warning says so.

    Args:
        generator: a generator that can invert images.
        images: on the CPU.
        cache: folder of the cache. File names in it are hashes of everything that the codes of an image depend on.
        progress: called with (number of inverted images, number of images) after each batch.
    Raises:
        ZeroshiftError: if the generator cannot invert images, or the codes are not finite numbers.
    """
    files = [cache / f"{key}.safetensors" for key in _keys(generator, images)]
    codes = [_read(file) for file in files]
    missing = [index for index, code in enumerate(codes) if code is None]
    keeps = True  # until the cache turns out not to be writable
    for first in range(0, len(missing), _BATCH_SIZE):
        batch = missing[first : first + _BATCH_SIZE]
        inverted = generator.invert(images[batch].to(generator.device)).cpu()
        if not is_finite(inverted):
            raise NotFiniteError(
                "The inversion of images gave values that are not finite numbers. Choose another generator, or more "
                "inversion steps."
            )
        for index, code in zip(batch, inverted, strict=True):
            codes[index] = code
            keeps = keeps and _keep(files[index], code)
        progress(len(images) - len(missing) + first + len(batch), len(images))
    return torch.stack([code for code in codes if code is not None]).to(generator.device)


def _keep(file: Path, code: Tensor) -> bool:
    """Writes the codes of an image into the cache; False, with a warning, if it cannot be written."""
    try:
        save_tensors(file, {"codes": code})
    except ZeroshiftError as error:
        warnings.warn(f"{error} The inverted images are used, but not kept for later runs.", stacklevel=3)
        return False
    return True


def _read(file: Path) -> Tensor | None:
    try:
        if "sha256" not in read_metadata(file):  # of an earlier version: nothing tells whether it is intact
            return None
        codes = load_tensors(file)[0]["codes"]
    except (ZeroshiftError, KeyError):  # missing, not readable or damaged: will be recomputed
        return None
    return codes if is_finite(codes) else None


def _keys(generator: Generator, images: Tensor) -> Sequence[str]:
    """One hash per image of everything its codes depend on: weights, noise schedule, inversion settings, pixels."""
    common = generator_hash(generator)
    keys = []
    for image in images:
        key = common.copy()
        key.update(image.contiguous().numpy())
        keys.append(key.hexdigest()[:32])
    return keys


def generator_hash(generator: Generator) -> "hashlib._Hash":
    """A hash of a generator: architecture, configuration, settings that affect inversion, weights and buffers."""
    options = generator.options
    if isinstance(options, DDIMOptions):  # only some settings affect the inversion
        used: Any = [options.t0, options.invert_steps, options.solver, options.clip_sample]
    else:
        used = dataclasses.asdict(options)
    config = {**generator.network_config(generator.config), "sampling": used}
    common = hashlib.sha256(json.dumps([generator.architecture, config], sort_keys=True).encode())
    add_weights(common, generator)
    return common


def generator_identity(generator: Generator) -> str:
    """What codes belong to: a hash of the weights, and for diffusion models of the noise level t0 of the codes."""
    options = generator.options
    level = options.t0 if isinstance(options, DDIMOptions) else None
    total = hashlib.sha256(json.dumps([generator.architecture, level]).encode())
    add_weights(total, generator)
    return total.hexdigest()[:16]


def add_weights(common: "hashlib._Hash", module: nn.Module) -> None:
    """Adds the names and values of all weights and buffers of a module to a hash."""
    for name, value in sorted(module.state_dict().items()):
        common.update(name.encode())
        common.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
