"""Films: walks through latent space, and interpolation between the weights of source and targets."""

import copy
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator, blend_weights
from zeroshift.io.images import make_grid
from zeroshift.sampling.generate import render_batches

__all__ = ["SampleKey", "latent_loop", "latents_between", "strength_loop", "walk"]

SampleKey = tuple[int, int]  # (seed, sample number), which determine a latent


def latent_loop(points: Tensor, frames: int) -> Tensor:
    """A smooth closed path through latents [K, ...] with `frames` steps between neighbors: [K * frames, ...].

    A periodic Catmull-Rom spline whose norm is interpolated separately: Gaussian latents lie near a sphere, and a plain
    spline would pass through its interior. Frame k * frames is exactly points[k].
    """
    k, shape = len(points), points.shape[1:]
    flat = points.reshape(k, -1)
    t = torch.arange(frames, dtype=flat.dtype, device=flat.device)[:, None] / frames  # [frames, 1]
    lengths = flat.norm(dim=1)
    path = []
    for i in range(k):
        p0, p1, p2, p3 = (flat[(i + shift) % k] for shift in (-1, 0, 1, 2))
        spline = p1 + 0.5 * t * ((p2 - p0) + t * ((2 * p0 - 5 * p1 + 4 * p2 - p3) + t * (3 * (p1 - p2) + p3 - p0)))
        length = torch.lerp(lengths[i], lengths[(i + 1) % k], t * t * (3 - 2 * t))  # smoothstep: continuous speed
        path.append(spline * (length / spline.norm(dim=1, keepdim=True).clamp(min=1e-8)))
    return torch.cat(path).reshape(k * frames, *shape)


def latents_between(start: Tensor, end: Tensor, position: float) -> Tensor:
    """Latents [N, ...] on the way from `start` (position 0) to `end` (1).

    Linear, with the norm interpolated separately, as in `latent_loop`. Positions 0 and 1 are exact.
    """
    if position in (0, 1):
        return end if position else start
    first, last = start.flatten(1), end.flatten(1)
    mixed = torch.lerp(first, last, position)
    length = torch.lerp(first.norm(dim=1), last.norm(dim=1), position)[:, None]
    moved: Tensor = mixed * (length / mixed.norm(dim=1, keepdim=True).clamp(min=1e-8))
    return moved.reshape(start.shape)


def strength_loop(strengths: Sequence[float], frames: int) -> list[float]:
    """`frames` values that pass through all strengths and return to the first one, with cosine easing."""
    path = []
    for frame in range(frames):
        position = frame * len(strengths) / frames
        index, t = int(position), position % 1
        start, end = strengths[index], strengths[(index + 1) % len(strengths)]
        path.append(start + (end - start) * (1 - math.cos(math.pi * t)) / 2)
    return path


def walk(
    source: Generator,
    targets: Sequence[Generator],
    samples: Sequence[SampleKey],
    *,
    truncation_psi: float,
    strengths: Sequence[float] = (1.0,),
    mix: Sequence[float] | None = None,
    frames: int = 60,
    class_index: int | None = None,
    batch_size: int = 8,
) -> Iterator[np.ndarray]:
    """Frames of an endless film, uint8 [R, columns * R, 3]: the source on the left, the targets next to it.

    Args:
        source, targets: a generator, and generators adapted from it.
        samples: samples to visit, in a closed loop.
        truncation_psi: 1 keeps the full variety of samples, smaller values move them toward the mean. The setting of a
            run is `run.config.truncation_psi`.
        strengths: strengths of adaptation to pass through during the film: 0 is the source, 1 the target.
        mix: one share per target, to blend all targets in one column; None shows them side by side.
        frames: frames from one sample to the next.
        class_index: class of a class-conditional generator.
        batch_size: images per batch; it changes the result by rounding only.
    Raises:
        ZeroshiftError: no `samples` or no `strengths`, or different numbers of shares and targets.

    Examples:
        >>> source = load_generator("miniature")
        >>> next(walk(source, [source], [(0, 1), (0, 2)], truncation_psi=1.0)).shape
        (64, 128, 3)
    """
    if not samples or not strengths:
        raise ZeroshiftError("A walk needs at least one seed and one strength.")
    if mix is not None and len(mix) != len(targets):
        raise ZeroshiftError(f"{len(mix)} shares of a mix for {len(targets)} targets: give one share per target.")
    shares = [list(mix)] if mix is not None else np.eye(len(targets)).tolist()  # for each column, one per target
    columns = [copy.deepcopy(source) for _ in shares]
    points = torch.cat([source.sample_latents(seed, [sample]) for seed, sample in samples])
    path = latent_loop(points, frames)
    steps = zip(strength_loop(strengths, len(path)), path, strict=True)
    for strength, group in itertools.groupby(steps, key=lambda step: step[0]):
        for share, column in zip(shares, columns, strict=True):
            blend_weights(source, targets, [strength * part for part in share], out=column)
        latents = torch.stack([latent for _, latent in group])
        for batch in render_batches(
            [source, *columns], latents, truncation_psi=truncation_psi, class_index=class_index, batch_size=batch_size
        ):
            for tiles in zip(*batch, strict=True):
                yield make_grid(torch.stack(tiles), columns=len(tiles), gap=0)
