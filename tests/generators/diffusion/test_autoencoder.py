"""The diffusion autoencoder as a generator: latents, codes, images, and the maps between them."""

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator, save_generator
from zeroshift.generators.diffusion.autoencoder import DiffusionAutoencoder
from zeroshift.generators.diffusion.options import DDIMOptions

ENCODER = {"resolution": 16, "channels": (8, 16, 16), "z_dim": 6, "blocks": 1, "attention": (8,), "groups": 4}
UNET = {**ENCODER, "channels": (8, 16), "embed_dim": 20}
SCHEDULER = {
    "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False,
    "prediction_type": "v_prediction",  # with random weights, noise prediction would diverge
}  # fmt: skip


@pytest.fixture
def generator():
    torch.manual_seed(0)
    made = DiffusionAutoencoder(UNET, ENCODER, SCHEDULER, {"t0": 0.5, "steps": 4, "noise_steps": 5}).eval()
    for parameter in made.parameters():  # some are zero at first
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5)
    made.fit_statistics(made.encoder(torch.randn(64, 3, 16, 16)).detach() + torch.randn(64, 6))
    return made


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def diffusers_ddim(generator, x, z_sem, steps, inverse=False):
    scheduler = (DDIMInverseScheduler if inverse else DDIMScheduler).from_config(generator.schedule.config)
    scheduler.set_timesteps(steps)
    for timestep in scheduler.timesteps:
        output = generator.unet(x, timestep.expand(len(x)), z_sem)
        x = scheduler.step(output, timestep, x).prev_sample
    return x


@torch.no_grad()
def test_images_are_those_of_diffusers_sampler(generator):
    generator.configure(DDIMOptions(t0=1.0, steps=10))
    latents = generator.sample_latents(0, range(3))
    assert latents.shape == (3, 6 + 3 * 16 * 16)
    z_sem = generator.z_mean + latents[:, :6] @ generator.z_factor.T
    torch.testing.assert_close(generator.mapper_input(latents), z_sem)
    expected = diffusers_ddim(generator, latents[:, 6:].view(3, 3, 16, 16), z_sem, 10)
    torch.testing.assert_close(generator(latents), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_z_sem_has_the_fitted_distribution(generator):
    sample = torch.randn(5000, 6) @ torch.randn(6, 6) + torch.arange(6.0)
    generator.fit_statistics(sample)
    made = generator.mapper_input(generator.sample_latents(0, range(4000)))
    torch.testing.assert_close(made.mean(0), sample.mean(0), atol=0.2, rtol=0)
    scale = sample.T.cov().diagonal().mean()
    assert (made.T.cov() - sample.T.cov()).abs().max() < 0.1 * scale


@pytest.mark.slow
@torch.no_grad()
def test_images_are_reconstructed_from_codes_and_latents(generator, images):
    errors = {}
    for steps in (10, 40):
        generator.configure(DDIMOptions(t0=0.6, steps=steps, invert_steps=steps, noise_steps=steps))
        codes, latents = generator.invert(images), generator.encode_images(images)
        torch.testing.assert_close(generator.condition(codes), generator.encoder(images))
        torch.testing.assert_close(generator.mapper_input(latents), generator.encoder(images), atol=1e-4, rtol=1e-4)
        again = generator.codes(latents)
        errors[steps] = (generator.synthesize(codes) - images).square().mean(), (again - codes).square().mean()
    for few, many in zip(*errors.values(), strict=True):
        assert many < few / 6  # first order, so squared errors should decrease to one sixteenth
    assert errors[40][0] < 0.05
    other = generator.codes(torch.cat([-latents[:, :6], latents[:, 6:]], dim=1))
    assert (other - codes)[:, 6:].square().mean() > 10 * errors[40][1]  # z_sem matters


@torch.no_grad()
def test_truncation_pulls_z_sem_to_its_mean(generator):
    latents = generator.sample_latents(0, range(2))
    half = generator.condition(generator.codes(latents, truncation_psi=0.5))
    torch.testing.assert_close(half, (generator.mapper_input(latents) + generator.z_mean) / 2)
    torch.testing.assert_close(generator.condition(generator.codes(latents)), generator.mapper_input(latents))


def test_gradients_reach_the_network_through_all_steps_and_through_one(generator):
    codes = generator.codes(generator.sample_latents(0, range(2))).detach()
    for each_step, pictures in ((False, 1), (True, 4)):
        generator.configure(DDIMOptions(t0=0.5, steps=4, train_each_step=each_step))
        outputs = list(generator.training_images(codes))
        assert len(outputs) == generator.num_training_images == pictures
        for picture in outputs:
            generator.zero_grad()
            picture.square().mean().backward()
            assert all(parameter.grad.abs().sum() > 0 for parameter in generator.unet.conv_out.parameters())
            assert generator.encoder.out.weight.grad is None
    whole = generator.synthesize(codes)
    generator.configure(DDIMOptions(t0=0.5, steps=4))
    torch.testing.assert_close(whole, generator.synthesize(codes))


def test_layers_are_the_networks_parts_and_leave_the_encoder_out(generator):
    layers = generator.layers()
    assert {"unet.conv_in", "unet.down.0", "unet.mid.1", "unet.up.3", "unet.conv_out"} <= set(layers)
    held = {id(parameter) for layer in layers.values() for parameter in layer.parameters()}
    assert held == {id(parameter) for parameter in generator.unet.parameters()}


@torch.no_grad()
def test_a_file_restores_the_generator(generator, tmp_path):
    save_generator(generator, tmp_path / "a.safetensors")
    again = load_generator(tmp_path / "a.safetensors")
    assert again.config == generator.config
    assert again.sampling == generator.sampling
    latents = generator.sample_latents(3, range(2))
    assert torch.equal(again(latents), generator(latents))


def test_networks_of_different_sizes_give_a_message():
    with pytest.raises(ZeroshiftError, match="differ in z_dim: 6 and 7"):
        DiffusionAutoencoder(UNET, {**ENCODER, "z_dim": 7}, SCHEDULER)


@pytest.mark.parametrize(
    ("unet", "encoder", "message"),
    [
        ({"channels": (10**6, 16)}, {}, r"unet.channels\[0\] is 1000000"),
        ({"blocks": 10**9}, {}, "unet.blocks is 1000000000"),
        ({"resolution": "16"}, {}, "unet.resolution is '16'"),
        ({}, {"groups": 0}, "encoder.groups is 0"),
        ({"groups": 3}, {}, "describe no network that works"),
        ({"time_dim": 5}, {}, "describe no network that works"),
        ({"pace": 1}, {}, "describe no network that works"),
    ],
)
def test_networks_that_cannot_work_are_refused(unet, encoder, message):
    with pytest.raises(ZeroshiftError, match=message):
        DiffusionAutoencoder({**UNET, **unet}, {**ENCODER, **encoder}, SCHEDULER)
