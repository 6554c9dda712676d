"""Real images: as codes, each inverted once and kept in the cache for whoever asks again; and in another domain."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from zeroshift.config.settings import Sampling
from zeroshift.generators.base import Codes, Generator
from zeroshift.io.atomic import atomic_write
from zeroshift.io.images import find_images, read_image, square

__all__ = ["invert", "read_folder"]

_AT_ONCE = 4


def read_folder(folder: str | Path, resolution: int) -> Tensor:
    """The images of a folder [M, 3, resolution, resolution] in [-1, 1], the middle of each, by name.

    Raises:
        ZeroshiftError: if there is no such folder, it holds no images, or one cannot be read.
    """
    return torch.stack([square(read_image(path), resolution) for path in find_images(folder)])


def invert(
    generator: Generator, images: Tensor, cache: Path, done: Callable[[int, int], None] = lambda number, of: None
) -> Codes:
    """Codes of images [M, 3, resolution, resolution], on the generator's device, from `cache` as far as they are there.

    What is missing is worked out and written a few images at a time, each file whole or not at all: an interrupted
    inversion goes on where it stopped.

    Args:
        cache: a folder; a file in it is named by all that an image's codes depend on.
        done: is told how many of how many images are inverted.
    Raises:
        ZeroshiftError: if the generator cannot invert images, or the cache cannot be written.
    """
    files = [cache / f"{key}.safetensors" for key in _keys(generator, images)]
    found = [_read(file) for file in files]
    missing = [index for index, codes in enumerate(found) if codes is None]
    for first in range(0, len(missing), _AT_ONCE):
        some = missing[first : first + _AT_ONCE]
        for index, codes in zip(some, generator.invert(images[some].to(generator.device)).cpu(), strict=True):
            found[index] = codes
            with atomic_write(files[index]) as temporary:
                save_file({"codes": codes.contiguous()}, temporary)
        done(len(images) - len(missing) + first + len(some), len(images))
    return torch.stack([codes for codes in found if codes is not None]).to(generator.device)


def _read(file: Path) -> Tensor | None:
    try:
        return load_file(file)["codes"]
    except (FileNotFoundError, SafetensorError, KeyError):  # not there, or damaged: to be made again
        return None


def _keys(generator: Generator, images: Tensor) -> Sequence[str]:
    """What tells an image's codes from any other's: weights, schedule, how it is inverted, pixels."""
    config = generator.config
    if "sampling" in config:  # of which the way back from the codes does not matter
        sampling = Sampling(**config["sampling"])
        config = {**config, "sampling": [sampling.t0, sampling.invert_steps, sampling.clip_sample]}
    common = hashlib.sha256(json.dumps([generator.architecture, config], sort_keys=True).encode())
    for name, value in sorted(generator.state_dict().items()):
        common.update(name.encode())
        common.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    keys = []
    for image in images:
        own = common.copy()
        own.update(image.contiguous().numpy())
        keys.append(own.hexdigest()[:32])
    return keys
