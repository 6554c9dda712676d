"""Inversion by optimization: codes in W or W+ that make a generator draw given photos.

The projector of StyleGAN2 (Karras et al., 2020, appendix D), with the numbers of its program in stylegan2-ada-pytorch.
All photos of a batch are optimized together, but do not influence each other.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.core.rng import normal
from zeroshift.generators.base import Codes, Generator, StyleSpace
from zeroshift.inversion.distance import Distance
from zeroshift.inversion.inverted import render
from zeroshift.inversion.options import InversionOptions

__all__ = ["Step", "autocorrelation", "learning_rate", "project"]

Step = Callable[[int, Tensor], None]
"""Called after each step with its number, from 1, and the current images [N, 3, R, R]."""

_NOISE_WEIGHT = 1e5
_RAMP_UP, _RAMP_DOWN = 0.05, 0.25  # parts of the steps
_CODE_NOISE, _CODE_NOISE_PART = 0.05, 0.75


def project(
    generator: Generator,
    space: StyleSpace,
    photos: Tensor,
    distance: Distance,
    options: InversionOptions,
    start: Codes | None = None,
    step_done: Step = lambda step, images: None,
) -> tuple[Codes, dict[str, Tensor]]:
    """Codes [N, num_ws, w_dim] of photos [N, 3, R, R] in [-1, 1], and changes of noise maps by name, [N, 1, R, R] each.

    Args:
        start: codes to start from, such as an encoder's; None: the mean w. With a start, no noise is added to the
            codes, because it serves to find the region of a photo.
        step_done: see `Step`.
    """
    rows = 1 if options.space == "w" else space.num_ws
    if start is None:
        codes = space.mean.expand(len(photos), rows, -1).clone()
    else:
        codes = start.mean(dim=1, keepdim=True) if rows == 1 else start.clone()
    codes.requires_grad_(True)
    stored = dict(generator.named_buffers())
    names = space.noise_maps if options.noise_maps else ()
    noises = {name: stored[name].expand(len(photos), 1, -1, -1).clone().requires_grad_(True) for name in names}
    searched = [codes, *noises.values()]
    optimizer = torch.optim.Adam(searched, lr=options.lr)
    goal = distance.features(photos)
    for step in range(options.steps):
        optimizer.param_groups[0]["lr"] = options.lr * learning_rate(step / options.steps)
        shaken = codes if start is not None else codes + _code_noise(codes, space, options, step)
        changes = {name: noise - stored[name] for name, noise in noises.items()}
        images = render(generator, shaken.expand(-1, space.num_ws, -1), changes)
        loss = distance.between(distance.features(images), goal).sum()
        for noise in noises.values():
            loss = loss + _NOISE_WEIGHT * autocorrelation(noise).sum()
        for value, gradient in zip(searched, torch.autograd.grad(loss, searched), strict=True):
            value.grad = gradient  # and none for the weights, which may be trainable
        optimizer.step()
        with torch.no_grad():
            for noise in noises.values():
                _normalize(noise)
        step_done(step + 1, images.detach())
    found = {name: (noise - stored[name]).detach() for name, noise in noises.items()} if options.steps else {}
    return codes.detach().expand(-1, space.num_ws, -1).contiguous(), found


def learning_rate(progress: float) -> float:
    """Factor of the learning rate: a linear rise over the first 5 % of the steps, a cosine fall over the last 25 %."""
    fall = min(1.0, (1 - progress) / _RAMP_DOWN)
    return (0.5 - 0.5 * math.cos(fall * math.pi)) * min(1.0, progress / _RAMP_UP)


def _code_noise(codes: Tensor, space: StyleSpace, options: InversionOptions, step: int) -> Tensor:
    """Gaussian noise that falls to 0 over the first three quarters of the steps; the same for every photo."""
    strength = space.deviation * _CODE_NOISE * max(0.0, 1 - step / options.steps / _CODE_NOISE_PART) ** 2
    if not strength:
        return torch.zeros_like(codes[:1])
    return strength * normal(codes.shape[1:], options.seed, "inversion", step, samples=[0]).to(codes)


def autocorrelation(noise: Tensor) -> Tensor:
    """Squared correlations of noise maps [N, 1, R, R] with themselves, shifted by a pixel, over a pyramid: [N].

    Karras et al. (2020), appendix D: it keeps the picture out of the noise.
    """
    total = torch.zeros(len(noise), dtype=noise.dtype, device=noise.device)
    while True:
        for axis in (2, 3):
            total = total + (noise * noise.roll(1, dims=axis)).mean(dim=(1, 2, 3)).square()
        if noise.shape[-1] <= 8:
            return total
        noise = F.avg_pool2d(noise, 2)


def _normalize(noise: Tensor) -> None:
    """Gives every map [N, 1, R, R] mean 0 and mean square 1, in place."""
    noise -= noise.mean(dim=(2, 3), keepdim=True)
    noise *= noise.square().mean(dim=(2, 3), keepdim=True).rsqrt()
