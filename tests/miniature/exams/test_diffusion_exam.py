"""The exam of the diffusion models."""

import numpy as np
import pytest
import torch

from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.miniature.exams import diffusion_exam
from zeroshift.miniature.networks.encoders import EVALUATOR_CONFIG, Evaluator, load_evaluator, save_encoder
from zeroshift.miniature.world.renderer import render, sample_latents


class Truthful:
    """Samples renders of other people; inversion and synthesis lose 10 % of the contrast."""

    sampling = DDIMOptions()

    def configure(self, sampling):
        self.sampling = sampling

    def sample_latents(self, seed, samples):
        return sample_latents(seed + 1, samples)

    def __call__(self, latents):
        assert (self.sampling.t0, self.sampling.steps) == (1.0, 20)
        return render(latents)

    def invert(self, images):
        return images

    def synthesize(self, codes):
        return 0.9 * codes


@pytest.mark.slow
def test_the_exam_reproduces_known_distances_and_psnr(tmp_path):
    torch.manual_seed(0)
    save_encoder(Evaluator(**EVALUATOR_CONFIG).eval(), tmp_path / "judge.safetensors")
    evaluator = load_evaluator(tmp_path / "judge.safetensors")
    evaluator.templates = evaluator.templates[:1]
    generator = Truthful()
    results = diffusion_exam.examine(generator, evaluator, seed=5, count=40)
    assert generator.sampling == DDIMOptions()
    assert results["floor"] > 0
    assert results["distance"] == pytest.approx(results["floor"], rel=0.6)  # its samples are renders, too
    photos = render(sample_latents(5, range(80, 96))).numpy()
    assert results["round_trip"] == pytest.approx(20 * np.log10(2 / np.sqrt(np.mean((0.1 * photos) ** 2))), rel=1e-3)
    generator.__class__ = type("Grey", (Truthful,), {"__call__": lambda self, latents: 0.2 * render(latents)})
    assert diffusion_exam.examine(generator, evaluator, seed=5, count=40)["distance"] > 3 * results["distance"]
