"""What nothing and everything would reach: the source generator, the same network fitted to the true images, the truth.

A bound is (source generator, target domain, seed, steps) -> a function that draws latents [N, 32] as images.
"""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from zeroshift.core.rng import stream
from zeroshift.generators.base import Generator
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.miniature.exams.pixels import portrait_loss
from zeroshift.miniature.training.generator import KERNEL_RATE, OTHER_RATE, fit, kernels_and_others
from zeroshift.miniature.training.loop import set_rate
from zeroshift.miniature.training.muon import Muon
from zeroshift.miniature.world.domains import SOURCE, Domain
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["BOUNDS", "Draw", "fit_diffusion_to_truth", "fit_to_truth", "true_images", "unadapted"]

Draw = Callable[[Tensor], Tensor]  # latents [N, 32] -> images [N, 3, 64, 64]

_BATCH = 16
_PEOPLE = 2**20  # the exam has none of them
_PHOTOS, _DIFFUSION_BATCH, _DIFFUSION_RATE = 128, 4, 6e-4  # at most, inverted before the training; Adam's highest rate


def unadapted(source: Generator, domain: Domain, seed: int, steps: int) -> Draw:
    """The source generator as it is: where doing nothing stands."""
    return source


def true_images(source: Generator, domain: Domain, seed: int, steps: int) -> Draw:
    """The renderer itself with another grain than the exam's: what the judges say of a perfect result."""
    return lambda latents: render(latents, domain, noise_seed=seed + 1)


def fit_to_truth(source: Generator, domain: Domain, seed: int, steps: int) -> Draw:
    """The synthesis network trained on true target images of other people, as the source was on photos.

    It shows what the network can draw, so that a method is not blamed for what the generator lacks.
    """
    assert isinstance(source, StyleGAN2)
    generator = copy.deepcopy(source).requires_grad_(False)
    generator.synthesis.requires_grad_(True)
    kernels, others = kernels_and_others(generator.synthesis.named_parameters())
    rates = ((Muon(kernels, KERNEL_RATE), KERNEL_RATE), (torch.optim.Adam(others, OTHER_RATE, (0.9, 0.99)), OTHER_RATE))
    for step in range(steps):
        people = torch.randint(_PEOPLE, (_BATCH,), generator=stream(seed, "fitted", step)).tolist()
        latents = sample_latents(seed, people)
        loss, _ = fit(generator, generator.codes(latents), render(latents, domain, seed, people))
        for optimiser, peak in rates:
            set_rate(optimiser, peak * 0.5 * (1 - step / steps))  # half the rates of a start from nothing, falling
            optimiser.zero_grad()
        loss.backward()
        for optimiser, _ in rates:
            optimiser.step()
    return generator


def fit_diffusion_to_truth(source: Generator, domain: Domain, seed: int, steps: int) -> Draw:
    """All weights of a diffusion model trained to lead people's photos, inverted by the source, to their true images.

    The way is that of the methods: from x_t0 in as few steps of DDIM. The image predicted at each of them is held
    against the truth, and moves the weights; that makes one of `steps`.
    """
    assert isinstance(source, Diffusion)
    photos = min(_PHOTOS, _DIFFUSION_BATCH * max(1, steps // source.sampling.steps))
    latents = sample_latents(seed, range(photos))
    truth = render(latents, domain, seed)
    codes = torch.cat([source.invert(part) for part in render(latents, SOURCE, seed).split(32)])
    generator = copy.deepcopy(source).requires_grad_(False)
    generator.set_sampling(replace(source.sampling, train_each_step=True))
    weights = [weight for layer in generator.layers().values() for weight in layer.parameters()]
    optimiser = torch.optim.Adam([weight.requires_grad_(True) for weight in weights], _DIFFUSION_RATE, (0.9, 0.99))
    step = 0
    while step < steps:
        people = torch.randint(photos, (_DIFFUSION_BATCH,), generator=stream(seed, "fitted", step))
        for picture in generator.training_images(codes[people]):
            set_rate(optimiser, _DIFFUSION_RATE * min(1.0, (step + 1) / 20, 2 * max(0.0, 1 - step / steps)))
            optimiser.zero_grad()
            portrait_loss(picture, truth[people]).backward()
            optimiser.step()
            step += 1
    return generator


BOUNDS: dict[str, Callable[[Generator, Domain, int, int], Draw]] = {
    "source": unadapted,
    "source-diffusion": unadapted,
    "source-autoencoder": unadapted,
    "fitted": fit_to_truth,
    "fitted-diffusion": fit_diffusion_to_truth,
    "fitted-autoencoder": fit_diffusion_to_truth,
    "truth": true_images,
}
