"""Pictures from generators: the same people in several domains, walks through latents, blends of weights.

Everything follows from (seed, sample): neither the batch size nor the order changes what a sample looks like.
"""

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .config import Sampling
from .errors import ZeroshiftError
from .generators import Generator, load_generator
from .images import make_grid
from .runs import RunFolder
from .team import Team

__all__ = [
    "Person",
    "blend_weights",
    "generate",
    "latent_loop",
    "load_source_and_target",
    "render_batches",
    "require_one_source",
    "strength_loop",
    "walk",
]

Person = tuple[int, int]  # (seed, sample): what determines a latent


def load_source_and_target(
    run: RunFolder, sampling: Sampling | None = None, steps: int | None = None
) -> tuple[Generator, Generator]:
    """The generator that a finished run started from and the one that it delivered, on the best device there is.

    Args:
        sampling: how a diffusion model makes images; as in the run if None.
        steps: its steps from t0 to the image, if they are to be others.
    Raises:
        ZeroshiftError: if the run is not finished, a file of it cannot be read, or its generator takes no steps.
    """
    run.require_generator()
    device = Team(run.config.device).device
    source, target = (load_generator(name, device=device) for name in (run.config.generator, run.generator_path))
    sampling = sampling or run.config.diffusion
    if steps is not None:
        if "sampling" not in source.config:
            raise ZeroshiftError(f"A {source.architecture} generator makes an image in one step. Leave --steps out.")
        sampling = replace(sampling, steps=steps)
    for generator in (source, target):
        generator.set_sampling(sampling)
    return source, target


def require_one_source(runs: Sequence[RunFolder]) -> None:
    """Raises ZeroshiftError unless all runs started from one generator."""
    if len({run.config.generator for run in runs}) > 1:
        raise ZeroshiftError(
            "These runs started from different generators; only targets of one source can be shown together."
        )


def class_labels(generator: Generator, class_index: int | None, num: int) -> Tensor | None:
    """Class indices [num] for a class-conditional generator, None for an unconditional one.

    Raises:
        ZeroshiftError: if the generator needs a class and none is given, or the reverse, or it has no such class.
    """
    if not generator.num_classes:
        if class_index is not None:
            raise ZeroshiftError("This generator has no classes, so none can be chosen. Leave --class-index out.")
        return None
    if class_index is None:
        raise ZeroshiftError(
            f"This generator has {generator.num_classes} classes. Choose one, such as --class-index 0."
        )
    if not 0 <= class_index < generator.num_classes:
        raise ZeroshiftError(f"There is no class {class_index}: this generator has {generator.num_classes} classes.")
    return torch.full((num,), class_index, dtype=torch.long, device=generator.device)


@torch.inference_mode()
def render_batches(
    generators: Sequence[Generator],
    latents: Tensor,
    *,
    truncation: float = 0.7,
    class_index: int | None = None,
    batch_size: int = 8,
) -> Iterator[list[Tensor]]:
    """Batches of images of latents [N, ...]: for each batch one tensor [n, 3, R, R] per generator, on the CPU.

    The codes are those of the first generator, the source: what an adaptation changes comes after them.
    """
    for part in latents.split(batch_size):
        labels = class_labels(generators[0], class_index, len(part))
        codes = generators[0].codes(part.to(generators[0].device), labels, truncation=truncation)
        yield [generator.synthesize(codes.to(generator.device)).float().cpu() for generator in generators]


def generate(
    generators: Sequence[Generator],
    num: int,
    *,
    seed: int = 0,
    truncation: float = 0.7,
    class_index: int | None = None,
    batch_size: int = 8,
) -> Iterator[list[Tensor]]:
    """The same `num` samples of every generator (such as source and target), batch by batch as `render_batches`."""
    latents = generators[0].sample_latents(seed, range(num))
    return render_batches(generators, latents, truncation=truncation, class_index=class_index, batch_size=batch_size)


@torch.no_grad()
def blend_weights(
    source: Generator, targets: Sequence[Generator], amounts: Sequence[float], out: Generator | None = None
) -> Generator:
    """A generator with weights source + Σ amount_i (target_i − source), written into `out` if it is given.

    Amount 0 is the source, 1 the target; several targets of one source mix. Interpolating the weights of a generator
    and its fine-tuned copy: Wang et al., "Deep Network Interpolation for Continuous Imagery Effect Transition", 2019.

    Raises:
        ZeroshiftError: if the generators are not of one architecture and size.
    """
    if any(target.architecture != source.architecture or target.config != source.config for target in targets):
        raise ZeroshiftError("Only generators of one architecture and size can be blended: adapt them from one source.")
    out = copy.deepcopy(source) if out is None else out
    states = [target.state_dict() for target in targets]
    blended = out.state_dict()  # shares memory with out
    for name, weight in source.state_dict().items():
        if weight.is_floating_point():
            value = weight.clone()
            for amount, state in zip(amounts, states, strict=True):
                value += amount * (state[name].to(weight) - weight)
            blended[name].copy_(value)
    return out


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
    truncation: float = 0.7,
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
            [source, *columns], latents, truncation=truncation, class_index=class_index, batch_size=batch_size
        ):
            for tiles in zip(*batch, strict=True):
                yield make_grid(torch.stack(tiles), columns=len(tiles), gap=0)
