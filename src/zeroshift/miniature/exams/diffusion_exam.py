"""What the miniature diffusion models can do: pictures of random people, and photos taken apart and put together."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.config.settings import Sampling
from zeroshift.evaluation.metrics.frechet import frechet_distance, gaussian
from zeroshift.generators.base import Generator
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.miniature.exams.measure import domain_accuracy, in_chunks, label_features
from zeroshift.miniature.exams.pixels import psnr
from zeroshift.miniature.networks.encoders import load_judge
from zeroshift.miniature.world.domains import DOMAINS, SOURCE
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["STEPS", "examine", "print_exam", "sampled", "twenty_steps"]

STEPS = 20  # of DDIM, in either direction
PHOTOS = 16  # that are taken apart


def examine(generator: Diffusion, judge: Encoder, *, seed: int, count: int) -> dict[str, float]:
    """A model of photos of persons, at 20 steps of DDIM from pure noise or to it.

    Args:
        generator: a diffusion model or diffusion autoencoder; its sampling is set back.
        judge: in whose features images are compared.
        seed: of noise and people.
        count: samples to compare with as many renders of other people, and these with as many others.

    Returns:
        distance: Fréchet distance of samples to renders in the judge's features; floor: that of renders to renders;
        accuracy: share of samples that the judge takes for a photo of a person among all 84 domains; round_trip: PSNR
        in dB of photos after inversion and generation, all pixels of all photos together.
    """
    photos = render(sample_latents(seed, range(2 * count, 2 * count + PHOTOS)))
    with twenty_steps(generator), torch.no_grad():
        images = sampled(generator, seed, count)
        again = generator.synthesize(generator.invert(photos))
        renders = render(sample_latents(seed, range(2 * count))).chunk(2)
        features, one, other = (in_chunks(judge.encode_image, pictures) for pictures in (images, *renders))
        labels = label_features(judge.encode_text, judge.templates, [domain.label for domain in DOMAINS])
    truth = torch.full((count,), DOMAINS.index(SOURCE))
    return {
        "distance": frechet_distance(gaussian(features), gaussian(one)).item(),
        "floor": frechet_distance(gaussian(other), gaussian(one)).item(),
        "accuracy": domain_accuracy(features, labels, truth).mean().item(),
        "round_trip": psnr(again, photos).item(),
    }


def print_exam(generator: Generator, seed: int) -> None:
    """Prints what `examine` finds, for 256 samples and the shipped judge."""
    assert isinstance(generator, Diffusion)
    for name, value in examine(generator, load_judge(), seed=seed, count=256).items():
        print(f"{name}: {value:.4g}")


@contextmanager
def twenty_steps(generator: Diffusion) -> Iterator[None]:
    """Within, a generator makes images from pure noise, and noise of images, in 20 steps."""
    before = generator.sampling
    generator.set_sampling(Sampling(t0=1.0, steps=STEPS, invert_steps=STEPS))
    try:
        yield
    finally:
        generator.set_sampling(before)


@torch.no_grad()
def sampled(generator: Diffusion, seed: int, count: int) -> Tensor:
    """Images [count, 3, 64, 64] of the first latents of a seed, in [-1, 1]."""
    latents = generator.sample_latents(seed, range(count))
    return torch.cat([generator(part) for part in latents.split(32)]).clamp(-1, 1)
