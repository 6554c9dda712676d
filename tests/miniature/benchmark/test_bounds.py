"""Upper bounds: training on true images brings a generator closer to them."""

import pytest
import torch

from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.miniature.benchmark.bounds import BOUNDS
from zeroshift.miniature.benchmark.sheets import held_out_people
from zeroshift.miniature.benchmark.variants import FITTED, SOURCES, TRUTH
from zeroshift.miniature.world.domains import parse_domain
from zeroshift.miniature.world.renderer import render


def test_every_bound_has_a_function() -> None:
    assert {variant.bound for variant in (*SOURCES.values(), *FITTED.values(), TRUTH)} == set(BOUNDS)


@pytest.mark.slow
def test_the_fitted_generator_gets_closer_to_the_truth() -> None:
    source, domain = load_generator("miniature"), parse_domain("pencil sketch")
    latents = held_out_people(8)
    errors = []
    for steps in (0, 4):
        drawn = BOUNDS["fitted"](source, domain, 0, steps)(latents).detach()
        errors.append(float((drawn - render(latents, domain)).square().mean()))
    assert errors[1] < 0.85 * errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["miniature-diffusion", "miniature-autoencoder"])
def test_the_fitted_diffusion_model_gets_closer_to_the_truth(generator: str) -> None:
    source, domain = load_generator(generator), parse_domain("pencil sketch")
    assert isinstance(source, Diffusion)
    source.configure(DDIMOptions(t0=0.6, noise_steps=1, steps=2, invert_steps=4, clip_sample=False))
    latents = held_out_people(4)
    codes, before = source.invert(render(latents)), [weight.clone() for weight in source.parameters()]
    errors = []
    for steps in (0, 20):
        fitted = BOUNDS[FITTED[generator].bound](source, domain, 0, steps)
        assert isinstance(fitted, Diffusion)
        with torch.inference_mode():
            errors.append(float((fitted.synthesize(codes) - render(latents, domain)).square().mean()))
    assert errors[1] < 0.7 * errors[0]
    assert all(torch.equal(one, two) for one, two in zip(before, source.parameters(), strict=True))
