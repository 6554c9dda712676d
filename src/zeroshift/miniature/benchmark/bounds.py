"""Reference results: the unadapted source generator, the same network trained on true images, and the truth.

A bound maps (source generator, target domain, seed, steps) to a function from latents [N, 32] to images.
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
_PEOPLE = 2**20  # training people, who are not in the test set
_MAX_PHOTOS, _DIFFUSION_BATCH = 128, 4  # photos are inverted once, before training
_DIFFUSION_LR = 6e-4  # peak


def unadapted(source: Generator, domain: Domain, seed: int, steps: int) -> Draw:
    """The source generator itself."""
    return source


def true_images(source: Generator, domain: Domain, seed: int, steps: int) -> Draw:
    """The renderer with a noise seed other than that of the reference images: the score of a perfect method."""
    return lambda latents: render(latents, domain, noise_seed=seed + 1)


def fit_to_truth(source: Generator, domain: Domain, seed: int, steps: int) -> Draw:
    """The synthesis network trained on true target images of other people, as the source was trained on photos.

    It shows what the network can represent, to separate limits of the generator from limits of a method.
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
        for optimizer, peak in rates:
            set_rate(optimizer, peak * 0.5 * (1 - step / steps))  # half the rates of training from scratch, decaying
            optimizer.zero_grad()
        loss.backward()
        for optimizer, _ in rates:
            optimizer.step()
    return generator


def fit_diffusion_to_truth(source: Generator, domain: Domain, seed: int, steps: int) -> Draw:
    """All weights of a diffusion model trained to turn inverted photos of people into their true target images.

    As in the methods, generation starts at x_t0 and takes few DDIM steps. The image predicted at each of them is
    compared with the truth and updates the weights; each update is one of `steps`.
    """
    assert isinstance(source, Diffusion)
    num_photos = min(_MAX_PHOTOS, _DIFFUSION_BATCH * max(1, steps // source.sampling.steps))
    latents = sample_latents(seed, range(num_photos))
    truth = render(latents, domain, seed)
    codes = torch.cat([source.invert(part) for part in render(latents, SOURCE, seed).split(32)])
    generator = copy.deepcopy(source).requires_grad_(False)
    generator.configure(replace(source.sampling, train_each_step=True))
    weights = [weight for layer in generator.layers().values() for weight in layer.parameters()]
    optimizer = torch.optim.Adam([weight.requires_grad_(True) for weight in weights], _DIFFUSION_LR, (0.9, 0.99))
    step = 0
    while step < steps:
        people = torch.randint(num_photos, (_DIFFUSION_BATCH,), generator=stream(seed, "fitted", step))
        for images in generator.training_images(codes[people]):
            set_rate(optimizer, _DIFFUSION_LR * min(1.0, (step + 1) / 20, 2 * max(0.0, 1 - step / steps)))
            optimizer.zero_grad()
            portrait_loss(images, truth[people]).backward()
            optimizer.step()
            step += 1
    return generator


BOUNDS: dict[str, Callable[[Generator, Domain, int, int], Draw]] = {
    "source": unadapted,
    "fitted": fit_to_truth,
    "fitted-diffusion": fit_diffusion_to_truth,
    "truth": true_images,
}
