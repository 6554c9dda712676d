"""The recipes of the miniature diffusion models: photos, loss, trainings that resume, deliveries, exam."""

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline
from safetensors.torch import load_file

from zeroshift.config.settings import Sampling
from zeroshift.core.rng import normal
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.diffusion.autoencoder import DiffusionAutoencoder
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.miniature.exams import diffusion_exam
from zeroshift.miniature.networks.encoders import JUDGE_CONFIG, Judge, load_judge, save_encoder
from zeroshift.miniature.training import autoencoder as train_autoencoder
from zeroshift.miniature.training import denoising
from zeroshift.miniature.training import diffusion as train_diffusion
from zeroshift.miniature.training.photos import Photos
from zeroshift.miniature.training.portraits import Portraits
from zeroshift.miniature.world.factors import NUM_FACTORS
from zeroshift.miniature.world.renderer import render, sample_latents

UNET = {
    "sample_size": 64, "block_out_channels": (4, 4), "norm_num_groups": 2, "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
}  # fmt: skip
ENCODER = {"resolution": 64, "channels": (4, 4, 4, 4), "z_dim": 6, "blocks": 1, "attention": (), "groups": 2}
CONDITIONAL = {**ENCODER, "embed_dim": 8}


@pytest.fixture
def small(monkeypatch):
    """Recipes of tiny sizes."""
    monkeypatch.setattr(Portraits, "BLOCK", 4)
    monkeypatch.setattr(Portraits, "TRUNCATED", 3)
    monkeypatch.setattr(Photos, "FIRST", 2)
    monkeypatch.setattr(Photos, "STEPS_PER_BLOCK", 2)
    monkeypatch.setattr(train_diffusion, "UNET", UNET)
    monkeypatch.setattr(train_autoencoder, "UNET", CONDITIONAL)
    monkeypatch.setattr(train_autoencoder, "ENCODER", ENCODER)
    monkeypatch.setattr(train_autoencoder, "STATISTICS", 16)
    for recipe in (train_diffusion, train_autoencoder):
        monkeypatch.setattr(recipe, "EXAM_PEOPLE", 2)
        monkeypatch.setattr(recipe, "print_exam", lambda *_: None)


def test_photos_are_the_portraits_without_the_truncated(tmp_path, small, monkeypatch):
    photos = Photos(tmp_path, seed=1)
    photos.batch("photos", 6, 8)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"seed1-block{block:05d}.npy" for block in (0, 1, 3, 4, 6)]  # 2 and 5 are truncated
    latents = normal((NUM_FACTORS,), 1, "portraits", samples=range(12, 16))
    assert np.abs(np.load(tmp_path / names[2]) / 127.5 - 1 - render(latents).numpy()).max() < 1.01 / 127.5
    portraits = Portraits(tmp_path / "other", seed=1)
    monkeypatch.setattr(Portraits, "FIRST", 5)
    portraits.batch(0, 1)
    for name in names[:3]:
        assert np.array_equal(np.load(tmp_path / name), np.load(tmp_path / "other" / name))


def test_photos_depend_on_step_and_purpose_alone(tmp_path, small, monkeypatch):
    one = Photos(tmp_path, seed=1).batch("photos", 3, 5)
    monkeypatch.setattr("zeroshift.miniature.training.photos.render", None)  # nothing is rendered again
    again = Photos(tmp_path, seed=1)
    assert torch.equal(one, again.batch("photos", 3, 5))
    assert not torch.equal(one, again.batch("others", 3, 5))
    assert -1 <= one.min() < -0.5 < 0.5 < one.max() <= 1


def test_loss_against_a_spelt_out_sum():
    alphas = Diffusion(UNET, denoising.SCHEDULER).schedule.alphas
    images = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    seen = {}

    def predict(x, timesteps):
        seen.update(x=x, timesteps=timesteps)
        return 0.3 * x

    loss = denoising.velocity_loss(predict, images, alphas, torch.Generator().manual_seed(2))
    total = 0.0
    for x0, xt, t in zip(images.double(), seen["x"].double(), seen["timesteps"], strict=True):
        alpha = float(alphas[t])
        noise = (xt - alpha**0.5 * x0) / (1 - alpha) ** 0.5
        assert 0.5 < noise.std() < 1.6
        velocity = 0.3 * xt
        clean = alpha**0.5 * xt - (1 - alpha) ** 0.5 * velocity
        snr = alpha / (1 - alpha)
        # the velocity's error is that of the clean image, over 1 - alpha
        total += min(snr + 1, 5) / (snr + 1) * float(((clean - x0) ** 2).mean()) / (1 - alpha)
    assert loss.item() == pytest.approx(total / 6, rel=1e-3)


def test_levels_are_uniform_and_spread_over_a_batch():
    drawn = [denoising.levels(10, torch.Generator().manual_seed(seed)) for seed in range(400)]
    for levels in drawn:
        assert sorted((levels // 100).tolist()) == list(range(10)) or levels.sort().values.diff().min() >= 99
    everything = torch.cat(drawn).float()
    assert everything.min() >= 0
    assert everything.max() <= 999
    assert everything.mean() == pytest.approx(499.5, abs=2)
    assert len({tuple(levels.argsort().tolist()) for levels in drawn}) > 100  # not in order


def train(name, folder, **changes):
    recipe, target = {
        "diffusion": (train_diffusion.train_diffusion, "pipeline"),
        "autoencoder": (train_autoencoder.train_autoencoder, "autoencoder.safetensors"),
    }[name]
    settings = {"steps": 4, "batch": 3, "seed": 1, "images": folder.parent / "photos", **changes}
    return recipe(folder, weights=folder / target, **settings)


@pytest.mark.parametrize("name", ["diffusion", "autoencoder"])
def test_interrupted_training_equals_uninterrupted(name, tmp_path, small):
    assert train(name, tmp_path / "whole") == 4
    assert train(name, tmp_path / "parts", minutes=0) == 1
    assert train(name, tmp_path / "parts", minutes=0) == 2
    assert train(name, tmp_path / "parts") == 4
    (whole,), (parts,) = (list((tmp_path / each).rglob("*.safetensors")) for each in ("whole", "parts"))
    whole, parts = load_file(whole), load_file(parts)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert {value.dtype for value in whole.values()} == {torch.float16}


def test_delivered_pipeline_is_diffusers_own(tmp_path, small):
    train("diffusion", tmp_path)
    pipeline = DDIMPipeline.from_pretrained(tmp_path / "pipeline")
    rights = {file.stat().st_mode & 0o777 for file in (tmp_path / "pipeline").rglob("*.*") if file.is_file()}
    (tmp_path / "plain").touch()
    assert rights == {(tmp_path / "plain").stat().st_mode & 0o777}
    generator = load_generator(tmp_path / "pipeline")
    generator.set_sampling(Sampling(t0=1.0, steps=5))
    latents = generator.sample_latents(0, range(2))
    pipeline.scheduler.set_timesteps(5)
    x = latents
    with torch.no_grad():
        for timestep in pipeline.scheduler.timesteps:
            x = pipeline.scheduler.step(pipeline.unet(x, timestep).sample, timestep, x).prev_sample
        torch.testing.assert_close(generator(latents), x, atol=1e-5, rtol=1e-5)


def test_delivered_autoencoder_knows_its_z_sem(tmp_path, small):
    train("autoencoder", tmp_path)
    generator = load_generator(tmp_path / "autoencoder.safetensors")
    assert isinstance(generator, DiffusionAutoencoder)
    people = Photos(tmp_path.parent / "photos", 1).batch("statistics", 0, 16)
    with torch.no_grad():
        z_sem = generator.encoder(people)
    torch.testing.assert_close(generator.z_mean, z_sem.mean(0), atol=2e-3, rtol=2e-2)


def test_rates_before_the_fall_do_not_depend_on_the_number_of_steps():
    assert all(denoising.rate_share(step, 1000) == denoising.rate_share(step, 2000) for step in range(600))
    assert denoising.rate_share(999, 1000) < 0.01


class Truthful:
    """Samples other people's renders; loses a known share of contrast on the way to the noise and back."""

    sampling = Sampling()

    def set_sampling(self, sampling):
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


def test_exam_against_the_truth(tmp_path):
    torch.manual_seed(0)
    save_encoder(Judge(**JUDGE_CONFIG).eval(), tmp_path / "judge.safetensors")
    judge = load_judge(tmp_path / "judge.safetensors")
    judge.templates = judge.templates[:1]
    generator = Truthful()
    found = diffusion_exam.examine(generator, judge, seed=5, count=40)
    assert generator.sampling == Sampling()
    assert found["floor"] > 0
    assert found["distance"] == pytest.approx(found["floor"], rel=0.6)  # its samples are renders, too
    photos = render(sample_latents(5, range(80, 96))).numpy()
    assert found["round_trip"] == pytest.approx(20 * np.log10(2 / np.sqrt(np.mean((0.1 * photos) ** 2))), rel=1e-3)
    generator.__class__ = type("Grey", (Truthful,), {"__call__": lambda self, latents: 0.2 * render(latents)})
    assert diffusion_exam.examine(generator, judge, seed=5, count=40)["distance"] > 3 * found["distance"]
