"""Films of inverted photos: from one to the next, and from the photo to the domain of adapted generators."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from zeroshift.core.finite import require_finite_images
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.inversion.codes import generator_identity
from zeroshift.inversion.inverted import Inverted, render
from zeroshift.io.images import make_grid
from zeroshift.sampling.film import latent_loop, strength_loop

__all__ = ["photo_walk"]


@torch.no_grad()
def photo_walk(
    source: Generator,
    targets: Sequence[Generator],
    photos: Sequence[Inverted],
    *,
    strengths: Sequence[float] = (1.0,),
    mix: Sequence[float] | None = None,
    frames: int = 60,
) -> Iterator[np.ndarray]:
    """Frames of an endless film, uint8 [R, columns * R, 3]: the source on the left, the targets next to it.

    Args:
        source, targets: a generator, and generators adapted from it.
        photos: photos inverted into the source, to visit in a closed loop.
        strengths: strengths of adaptation to pass through during the film: 0 is the source, 1 the target.
        mix: one share per target, to mix all targets in one column; None shows them side by side.
        frames: frames from one photo to the next.
    Raises:
        ZeroshiftError: no `photos` or no `strengths`; photos of different generators; different numbers of shares and
            targets; or images that are not finite numbers.
    """
    if not photos or not strengths:
        raise ZeroshiftError("A film of photos needs at least one photo and one strength.")
    if mix is not None and len(mix) != len(targets):
        raise ZeroshiftError(f"{len(mix)} shares of a mix for {len(targets)} targets: give one share per target.")
    if len({one.codes.shape for one in photos}) > 1:
        raise ZeroshiftError("These photos were inverted into different generators. Invert them into one.")
    columns = [list(mix)] if mix is not None else np.eye(len(targets)).tolist()  # one share per target
    identity = generator_identity(source)
    for one in photos:
        one.require_generator(identity)
    path = _path(source, photos, frames)
    mixed: dict[tuple[float, int], Generator] = {}
    for strength, (codes, changes) in zip(strength_loop(strengths, len(photos) * frames), path, strict=True):
        tiles = [render(source, codes, changes)]
        for number, shares in enumerate(columns):
            if (strength, number) not in mixed:
                mixed = {key: one for key, one in mixed.items() if key[0] == strength}  # the earlier ones are done
                mixed[strength, number] = source.mixed(targets, [strength * share for share in shares])
            tiles.append(render(mixed[strength, number], codes, changes))
        images = torch.cat(tiles).float().cpu()
        require_finite_images(images)
        yield make_grid(images, columns=len(images), gap=0)


def _path(source: Generator, photos: Sequence[Inverted], frames: int) -> Iterator[tuple[Tensor, Mapping[str, Tensor]]]:
    """Codes [1, ...] and changes of weights of each frame.

    Codes of styles and changes move in straight lines, with cosine easing; noise of diffusion models keeps its length.
    """
    straight = source.style_space() is not None
    around = None if straight else latent_loop(torch.stack([one.codes for one in photos]), frames).to(source.device)
    for frame in range(len(photos) * frames):
        if frame % frames == 0:  # only the two photos in use are on the device
            first = photos[frame // frames].to(source.device)
            second = photos[(frame // frames + 1) % len(photos)].to(source.device)
        part = (1 - math.cos(math.pi * (frame % frames) / frames)) / 2
        codes = torch.lerp(first.codes, second.codes, part) if around is None else around[frame]
        yield codes[None], _between(first.changes, second.changes, part)


def _between(first: Mapping[str, Tensor], second: Mapping[str, Tensor], part: float) -> dict[str, Tensor]:
    """Changes between those of two photos; one that is missing is zero."""
    between = {name: (1 - part) * change for name, change in first.items()}
    for name, change in second.items():
        between[name] = between[name] + part * change if name in between else part * change
    return between
