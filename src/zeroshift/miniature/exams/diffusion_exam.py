"""Measurements of the diffusion models: samples, and the inversion and reconstruction of photos."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.evaluation.metrics.frechet import frechet_distance, gaussian
from zeroshift.generators.base import Generator
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.miniature.exams.measure import domain_accuracy, in_chunks, label_features
from zeroshift.miniature.exams.pixels import psnr
from zeroshift.miniature.networks.encoders import load_evaluator
from zeroshift.miniature.world.domains import DOMAINS, SOURCE
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["STEPS", "examine", "print_exam", "sampled", "twenty_steps"]

STEPS = 20  # DDIM steps in each direction
PHOTOS = 16  # photos that are inverted


def examine(generator: Diffusion, evaluator: Encoder, *, seed: int, count: int) -> dict[str, float]:
    """Measures a model of photos of persons, with 20 DDIM steps from or to pure noise.

    Args:
        generator: a diffusion model or diffusion autoencoder; its sampling options are restored afterward.
        evaluator: the encoder whose features are compared.
        seed: seed of noise and people.
        count: number of samples, and of renders in each of the two sets that they are compared with.

    Returns:
        "distance": Fréchet distance between samples and renders in the evaluator's features; "floor": the same between
        two sets of renders; "accuracy": fraction of samples classified as a photo of a person among all 84 domains;
        "round_trip": PSNR in dB of inverted and regenerated photos, over all pixels of all photos.
    """
    photos = render(sample_latents(seed, range(2 * count, 2 * count + PHOTOS)))
    with twenty_steps(generator), torch.no_grad():
        images = sampled(generator, seed, count)
        regenerated = generator.synthesize(generator.invert(photos))
        renders = render(sample_latents(seed, range(2 * count))).chunk(2)
        features, one, other = (in_chunks(evaluator.encode_image, part) for part in (images, *renders))
        labels = label_features(evaluator.encode_text, evaluator.templates, [domain.label for domain in DOMAINS])
    truth = torch.full((count,), DOMAINS.index(SOURCE))
    return {
        "distance": frechet_distance(gaussian(features), gaussian(one)).item(),
        "floor": frechet_distance(gaussian(other), gaussian(one)).item(),
        "accuracy": domain_accuracy(features, labels, truth).mean().item(),
        "round_trip": psnr(regenerated, photos).item(),
    }


def print_exam(generator: Generator, seed: int) -> None:
    """Prints the results of `examine` with 256 samples and the shipped evaluator."""
    assert isinstance(generator, Diffusion)
    for name, value in examine(generator, load_evaluator(), seed=seed, count=256).items():
        print(f"{name}: {value:.4g}")


@contextmanager
def twenty_steps(generator: Diffusion) -> Iterator[None]:
    """A context in which a generator samples from pure noise and inverts to it, in 20 steps each."""
    before = generator.sampling
    generator.configure(DDIMOptions(t0=1.0, steps=STEPS, invert_steps=STEPS))
    try:
        yield
    finally:
        generator.configure(before)


@torch.no_grad()
def sampled(generator: Diffusion, seed: int, count: int) -> Tensor:
    """Images [count, 3, 64, 64] in [-1, 1] of the first latents of a seed."""
    latents = generator.sample_latents(seed, range(count))
    return torch.cat([generator(part) for part in torch.split(latents, 32)]).clamp(-1, 1)
