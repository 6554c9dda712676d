"""Films: walks through latents and blends of weights."""

import copy
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.io.images import make_grid
from zeroshift.sampling.generate import blend_weights, render_batches

__all__ = ["Person", "latent_loop", "strength_loop", "walk"]

Person = tuple[int, int]  # (seed, sample): what determines a latent


def latent_loop(points: Tensor, frames: int) -> Tensor:
    """A smooth closed path through latents [K, ...], `frames` steps from one to the next: [K * frames, ...].

    Periodic Catmull-Rom spline, with the length interpolated on its own: Gaussian latents lie near a sphere, and a
    plain spline would cut through its inside. Frame k * frames shows points[k] exactly.
    """
    k, shape = len(points), points.shape[1:]
    flat = points.reshape(k, -1)
    t = torch.arange(frames, dtype=flat.dtype, device=flat.device)[:, None] / frames  # [frames, 1]
    lengths = flat.norm(dim=1)
    path = []
    for i in range(k):
        before, here, there, after = (flat[(i + shift) % k] for shift in (-1, 0, 1, 2))
        spline = here + 0.5 * t * (
            (there - before)
            + t * ((2 * before - 5 * here + 4 * there - after) + t * (3 * (here - there) + after - before))
        )
        length = torch.lerp(lengths[i], lengths[(i + 1) % k], t * t * (3 - 2 * t))  # smoothstep: no corner in time
        path.append(spline * (length / spline.norm(dim=1, keepdim=True).clamp(min=1e-8)))
    return torch.cat(path).reshape(k * frames, *shape)


def strength_loop(strengths: Sequence[float], frames: int) -> list[float]:
    """`frames` values that pass through the strengths in turn and back to the first, eased by a cosine."""
    path = []
    for frame in range(frames):
        position = frame * len(strengths) / frames
        index, t = int(position), position % 1
        here, there = strengths[index], strengths[(index + 1) % len(strengths)]
        path.append(here + (there - here) * (1 - math.cos(math.pi * t)) / 2)
    return path


def walk(
    source: Generator,
    targets: Sequence[Generator],
    people: Sequence[Person],
    *,
    strengths: Sequence[float] = (1.0,),
    mix: Sequence[float] | None = None,
    frames: int = 60,
    truncation_psi: float = 0.7,
    class_index: int | None = None,
    batch_size: int = 8,
) -> Iterator[np.ndarray]:
    """Frames [R, columns * R, 3] uint8 of an endless film: the source at the left, the targets beside it.

    The film walks through the latents of `people` (`frames` frames from each to the next), while the weights go
    through `strengths` (0 the source, 1 the target). With `mix`, one number per target, there is a single column in
    which the targets are blended in these shares.

    Raises:
        ZeroshiftError: nothing to walk through, or shares that do not fit the targets.
    """
    if not people or not strengths:
        raise ZeroshiftError("A walk needs at least one seed and one strength.")
    if mix is not None and len(mix) != len(targets):
        raise ZeroshiftError(f"{len(mix)} shares of a mix for {len(targets)} targets: give one share per target.")
    shares = [list(mix)] if mix is not None else np.eye(len(targets)).tolist()  # one row per column of the film
    columns = [copy.deepcopy(source) for _ in shares]
    points = torch.cat([source.sample_latents(seed, [sample]) for seed, sample in people])
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
