"""Diffusion generators: diffusers is the reference for their schedules, steps and files."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMPipeline,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LDMPipeline,
    PNDMScheduler,
)

from tests.helpers.diffusion_models import DECODER, UNET, ddim, ddpm, ldm, unet
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import export_generator, load_generator, save_generator
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.generators.diffusion.schedule import CLEAN, NoiseSchedule

SCHEDULES = [
    {},
    {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
    {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
    {"prediction_type": "sample", "beta_schedule": "squaredcos_cap_v2", "clip_sample_range": 0.7},
    {"beta_schedule": "scaled_linear", "num_train_timesteps": 400, "timestep_spacing": "trailing"},
]


@pytest.fixture
def small(tmp_path: Path) -> Diffusion:
    generator = load_generator(ddpm(tmp_path / "ddpm")).requires_grad_(False)
    generator.configure(DDIMOptions(noise_steps=2, steps=3, invert_steps=5))
    return generator


def outputs(levels: list[int]) -> dict[int, torch.Tensor]:
    """Example network outputs at each level."""
    draw = torch.Generator().manual_seed(0)
    return {level: torch.randn(2, 3, 4, 4, generator=draw) for level in levels}


@pytest.mark.parametrize("options", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 7, 10, 50])
def test_denoising_steps_agree_with_diffusers(options: dict, steps: int) -> None:
    theirs, ours = DDIMScheduler(**options), NoiseSchedule(options)
    if options.get("timestep_spacing") == "trailing" and len(ours) % steps:
        pytest.skip("diffusers steps to levels that it does not list")
    theirs.set_timesteps(steps)
    levels = ours.descent(1, steps)
    assert levels == [*theirs.timesteps.tolist(), CLEAN]
    assert ours.approach(1, 4) == []
    said = outputs(levels)
    x = mine = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    for here, there in pairwise(levels):
        expected = theirs.step(said[here], here, x)
        mine, clean = ours.step(mine, said[here], here, there)
        torch.testing.assert_close(clean, expected.pred_original_sample, atol=1e-5, rtol=1e-5)
        x = expected.prev_sample
    torch.testing.assert_close(mine, x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"beta_schedule": "sigmoid"},
        {"beta_schedule": "laplace", "prediction_type": "sample"},
        {"beta_schedule": "sigmoid", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3},
    ],
)
def test_schedules_of_ddpm_have_the_same_levels(options: dict) -> None:
    theirs = DDPMScheduler(**options)
    ours = NoiseSchedule(dict(theirs.config))
    assert torch.equal(ours.alphas, theirs.alphas_cumprod)
    again = NoiseSchedule(json.loads(json.dumps(dict(ours.config))))
    assert torch.equal(again.alphas, ours.alphas), "also from our own file"
    exported = DDIMScheduler.from_config(ours.config)
    assert torch.equal(exported.alphas_cumprod, ours.alphas), "and for diffusers"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in diffusers
@pytest.mark.parametrize(
    "kind", [PNDMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler, DPMSolverMultistepScheduler]
)
def test_schedules_of_other_schedulers_are_those_of_diffusers(kind: Any) -> None:
    theirs = kind(beta_schedule="scaled_linear", beta_start=0.001, beta_end=0.01)
    ours = NoiseSchedule(json.loads(theirs.to_json_string()))
    assert torch.equal(ours.alphas, theirs.alphas_cumprod)
    assert ours.config.timestep_spacing == theirs.config.timestep_spacing
    assert not ours.config.clip_sample, "which these schedulers do not"
    assert torch.equal(ours.scheduler.betas, DDIMScheduler.from_config(theirs.config).betas)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"_class_name": "ScoreSdeVeScheduler"}, "is a ScoreSdeVeScheduler. Deterministic DDIM needs"),
        ({"_class_name": ["DDIMScheduler"]}, "_class_name must be a short text"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "timestep_type is 'continuous'"),
        ({"thresholding": True}, "dynamic thresholding"),
        ({"beta_schedule": "unheard-of"}, "beta_schedule is 'unheard-of'.*'linear'"),
        ({"prediction_type": "flow_prediction"}, "prediction_type is 'flow_prediction'"),
        ({"beta_end": float("nan")}, "beta_end is nan"),
        ({"beta_end": 20}, "beta_end is 20"),
        ({"beta_start": "0.1"}, "beta_start is '0.1'"),
        ({"num_train_timesteps": 10**12}, "num_train_timesteps is 1000000000000"),
        ({"num_train_timesteps": True}, "num_train_timesteps is True"),
        ({"trained_betas": [0.1] * 1_000_000}, "trained_betas"),
        ({"trained_betas": [0.1, 0.2]}, "has 2 trained_betas but num_train_timesteps is 1000"),
        ({"trained_betas": [[0.1]], "num_train_timesteps": 1}, r"trained_betas\[0\]"),
        ({"beta_start": 0.0, "beta_end": 0.0}, "levels without noise"),
        ({"rescale_betas_zero_snr": True}, "ends in pure noise.*v_prediction"),
    ],
)
def test_schedules_that_cannot_be_used_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ZeroshiftError, match=message):
        NoiseSchedule(options)


def test_more_steps_than_noise_levels() -> None:
    schedule = NoiseSchedule({"num_train_timesteps": 10, "steps_offset": 1, "beta_start": 0.1, "beta_end": 0.2})
    assert max(schedule.descent(1, 10)) == 9
    with pytest.raises(ZeroshiftError, match="steps is 11, but the model has only 10 noise levels"):
        schedule.descent(1, 11)


@pytest.mark.parametrize("options", [one for one in SCHEDULES if one.get("prediction_type") != "sample"])
def test_inversion_steps_agree_with_diffusers(options: dict) -> None:
    theirs, ours = DDIMInverseScheduler(**options), NoiseSchedule(options)
    theirs.set_timesteps(10)
    levels = ours.descent(1, 10)[::-1]
    assert levels[1:] == theirs.timesteps.tolist()
    said = outputs(levels)
    x = mine = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    for here, there in pairwise(levels):
        x = theirs.step(said[there], there, x).prev_sample
        mine, _ = ours.step(mine, said[there], here, there)
    torch.testing.assert_close(mine, x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", SCHEDULES)
def test_the_trajectories_before_and_after_t0_join(options: dict) -> None:
    schedule = NoiseSchedule(options)
    for t0 in (0.3, 0.5):
        level = schedule.approach(t0, 4)[-1]
        assert level == schedule.descent(t0, 6)[0] == schedule.descent(t0, 40)[0]
        assert abs(level - t0 * len(schedule)) <= 1
        for levels in (schedule.approach(t0, 4), schedule.descent(t0, 6)):
            assert levels == sorted(set(levels), reverse=True)
        assert len(schedule.approach(t0, 4)) == 5
        assert len(schedule.descent(t0, 6)) == 7
        assert schedule.descent(t0, 6)[-1] == CLEAN


@pytest.mark.parametrize(("spacing", "steps"), [("leading", 6), ("trailing", 5)])
def test_equal_steps_around_t0_are_those_of_the_pipeline(
    spacing: str, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ddim(tmp_path / "ddim", timestep_spacing=spacing)
    generator = load_generator(folder)
    generator.configure(DDIMOptions(noise_steps=10 - steps, steps=steps))
    latents = generator.sample_latents(0, range(2))
    with torch.no_grad():
        torch.testing.assert_close(
            generator(latents).clamp(-1, 1), by_pipeline(folder, latents, monkeypatch), atol=1e-5, rtol=0
        )


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"steps_offset": 1}, {"clip_sample": False}])
@pytest.mark.parametrize(
    ("spacing", "steps", "agrees"),
    [
        ("leading", 10, True),
        ("leading", 7, True),
        ("trailing", 10, True),
        ("trailing", 7, False),
        ("linspace", 10, False),
    ],
)
def test_exported_pipelines_draw_our_images_under_the_documented_conditions(
    options: dict, spacing: str, steps: int, agrees: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = load_generator(ddim(tmp_path / "ddim", timestep_spacing=spacing, **options))
    generator.configure(DDIMOptions(t0=1, steps=steps))
    latents = generator.sample_latents(0, range(2))
    if spacing == "linspace":
        with pytest.warns(UserWarning, match="differ from ours: with 'linspace' spacing"):
            export_generator(generator, tmp_path / "exported", "diffusers")
    else:
        export_generator(generator, tmp_path / "exported", "diffusers")
    with torch.no_grad():
        ours = generator(latents).clamp(-1, 1)
    theirs = by_pipeline(tmp_path / "exported", latents, monkeypatch, steps)
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=0) == agrees


def by_pipeline(folder: Path, latents: torch.Tensor, monkeypatch: pytest.MonkeyPatch, steps: int = 10) -> torch.Tensor:
    """Images of a folder by diffusers alone."""
    pipeline = DDIMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    monkeypatch.setattr("diffusers.pipelines.ddim.pipeline_ddim.randn_tensor", lambda *_, **__: latents.clone())
    images = pipeline(batch_size=len(latents), num_inference_steps=steps, output_type="np").images
    return torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1


def test_latent_diffusion_is_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ldm(tmp_path / "ldm")
    generator = load_generator(folder).requires_grad_(False)
    assert generator.latent_shape == (3, 8, 8)
    assert generator.resolution == 16
    generator.configure(DDIMOptions(t0=1, steps=4))
    latents = generator.sample_latents(0, range(2))
    export_generator(generator, tmp_path / "exported", "diffusers")
    for place in (folder, tmp_path / "exported"):
        pipeline = LDMPipeline.from_pretrained(place)
        pipeline.set_progress_bar_config(disable=True)
        where = "diffusers.pipelines.deprecated.latent_diffusion_uncond.pipeline_latent_diffusion_uncond.randn_tensor"
        monkeypatch.setattr(where, lambda *_, **__: latents.clone())
        expected = torch.as_tensor(pipeline(batch_size=2, num_inference_steps=4, output_type="np").images)
        images = generator(latents).clamp(-1, 1).permute(0, 2, 3, 1) / 2 + 0.5
        torch.testing.assert_close(images, expected, atol=1e-5, rtol=0)
    assert generator.invert(torch.zeros(1, 3, 16, 16)).shape == (1, 3, 8, 8)


def test_inversion_returns_the_image(small: Diffusion) -> None:
    """The error decreases with the step size: DDIM inversion is exact in the limit."""
    images = small(small.sample_latents(5, range(2))).clamp(-1, 1)
    errors = []
    for steps in (10, 20, 40):
        small.configure(DDIMOptions(t0=0.3, invert_steps=steps, steps=steps, clip_sample=False))
        errors.append(10 * torch.log10(4 / (small.synthesize(small.invert(images)) - images).square().mean()))
    assert errors[0] + 4 < errors[1] < errors[2] - 4, "PSNR in dB; half the step is a quarter of the error"
    assert errors[2] > 44


def test_round_trip_through_our_file(small: Diffusion, tmp_path: Path) -> None:
    save_generator(small, tmp_path / "g.safetensors")
    loaded = load_generator(tmp_path / "g.safetensors")
    assert isinstance(loaded, Diffusion)
    assert loaded.config == small.config
    assert loaded.sampling == small.sampling, "samples use the training settings"
    latents = small.sample_latents(0, range(2))
    with torch.no_grad():
        assert torch.equal(loaded(latents), small(latents))


def test_a_bare_unet_and_an_old_layout(tmp_path: Path) -> None:
    """Bare: with DDIM's default schedule. Old: the files of U-Net and schedule are next to model_index.json."""
    unet().save_pretrained(tmp_path / "bare")
    folder = ddpm(tmp_path / "old")
    for part in ("unet", "scheduler"):
        for file in (folder / part).iterdir():
            file.rename(folder / file.name)
        (folder / part).rmdir()
    bare, old = load_generator(tmp_path / "bare"), load_generator(folder)
    latents = bare.sample_latents(0, range(1))
    with torch.no_grad():
        assert torch.equal(bare(latents), old(latents))


def test_gradients_flow_through_all_steps_with_and_without_checkpoints(small: Diffusion) -> None:
    codes = small.codes(small.sample_latents(0, range(2)))
    small.unet.requires_grad_(True)
    gradients = []
    for checkpointing in (False, True):
        small.configure(DDIMOptions(steps=3, gradient_checkpointing=checkpointing))
        small.zero_grad()
        small.synthesize(codes).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in small.unet.parameters()])
    # The naive twin: diffusers' scheduler over the same levels.
    small.zero_grad()
    scheduler, x, levels = DDIMScheduler(), codes, small.schedule.descent(0.5, 3)
    assert levels == [500, 250, 0, CLEAN]
    for level in levels[:-1]:
        scheduler.set_timesteps(4)  # of 250 timesteps each
        x = scheduler.step(small.unet(x, level).sample, level, x).prev_sample
    x.square().mean().backward()
    gradients.append([parameter.grad for parameter in small.unet.parameters()])
    for plain_, checked, naive in zip(*gradients, strict=True):
        torch.testing.assert_close(plain_, checked, atol=1e-7, rtol=1e-5)
        torch.testing.assert_close(plain_, naive, atol=1e-6, rtol=1e-4)


def test_mixed_predictions(small: Diffusion, tmp_path: Path) -> None:
    others = [load_generator(tmp_path / "ddpm") for _ in range(2)]
    for seed, other in enumerate(others):
        other.configure(small.sampling)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    codes = small.codes(small.sample_latents(0, range(1)))
    with torch.no_grad():
        ends = [generator.synthesize(codes) for generator in (small, *others)]
        for shares, expected in (((0, 0), ends[0]), ((1, 0), ends[1]), ((0, 1), ends[2])):
            torch.testing.assert_close(small.mixed(others, shares).synthesize(codes), expected, atol=1e-5, rtol=0)
        x = codes
        levels = small.schedule.descent(0.5, 3)
        for here, there in pairwise(levels):
            said = [generator.unet(x, here).sample for generator in (small, *others)]
            x, _ = small.schedule.step(x, 0.3 * said[0] + 0.2 * said[1] + 0.5 * said[2], here, there)
        torch.testing.assert_close(small.mixed(others, (0.2, 0.5)).synthesize(codes), x, atol=1e-5, rtol=0)
        assert torch.equal(small.synthesize(codes), ends[0]), "the source is unchanged"
    others[0].configure(DDIMOptions(steps=9))
    with pytest.raises(ZeroshiftError, match="the same architecture"):
        small.mixed(others, (0.5, 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_class_embeds": 5}, "without classes"),
        ({"in_channels": 1, "out_channels": 1}, "must be 3"),
        ({"out_channels": 5}, "numbers into"),
        ({"sample_size": 17}, "describe no network that works"),
        ({"sample_size": 10**9}, "sample_size is 1000000000"),
        ({"sample_size": None}, "sample_size is None"),
        ({"sample_size": [[16], 16]}, "sample_size is"),
        ({"layers_per_block": 10**9}, "layers_per_block is 1000000000"),
        ({"block_out_channels": [10**7, 16]}, r"block_out_channels\[0\] is 10000000"),
        ({"block_out_channels": [8] * 50}, "block_out_channels"),
        ({"block_out_channels": [8, 16, 16]}, "describe no network that works"),
        ({"attention_head_dim": 0}, "attention_head_dim is 0"),
        ({"norm_num_groups": 5}, "must be divisible by num_groups"),
        ({"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"]}, "describe no network that works"),
        ({"down_block_types": ["DownBlock2D", {"a": 1}]}, r"down_block_types\[1\]"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type is 'fourier'"),
        ({"time_embedding_type": "learned"}, "describe no network that works"),
        ({"time_embedding_type": "learned", "num_train_timesteps": 5}, "knows 5 timesteps"),
        ({"act_fn": "rm"}, "act_fn is 'rm'"),
    ],
)
def test_networks_that_cannot_work_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ZeroshiftError, match=message):
        Diffusion({**UNET, **change}, {})


def test_decoders_that_do_not_fit_are_refused() -> None:
    described = {"_class_name": "VQModel", **DECODER}
    for change, message in (
        ({"_class_name": "AutoencoderTiny"}, "is a AutoencoderTiny"),
        ({"num_vq_embeddings": 10**12}, "num_vq_embeddings is 1000000000000"),
        ({"scaling_factor": 0}, "scaling_factor is 0"),
        ({"latent_channels": 4}, "describe no network that works"),
        ({"down_block_types": ["DownEncoderBlock2D"] * 2, "block_out_channels": [8]}, "describe no network that works"),
    ):
        with pytest.raises(ZeroshiftError, match=message):
            Diffusion({**UNET, "sample_size": 8}, {}, {**described, **change})


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"t0": "half"}, "sampling.t0 is 'half'"),
        ({"steps": 10**12}, "sampling.steps is 1000000000000"),
        ({"pace": 3}, "Unknown settings: sampling.pace"),
        ([3], "sampling must be a JSON object"),
    ],
)
def test_sampling_settings_of_a_file_are_checked(sampling: Any, message: str) -> None:
    with pytest.raises(ZeroshiftError, match=message):
        DDIMOptions.from_saved(sampling)


def test_unsupported_operations_are_refused(small: Diffusion, tiny_generator: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroshiftError, match="cannot be exported as 'rosinality-pt'"):
        export_generator(small, tmp_path / "g.pt", "rosinality-pt")
    gan = load_generator(tiny_generator)
    with pytest.raises(ZeroshiftError, match="cannot be exported as 'diffusers'"):
        export_generator(gan, tmp_path / "folder", "diffusers")
    with pytest.raises(ZeroshiftError, match="has no inversion"):
        gan.invert(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ZeroshiftError, match="low-rank"):
        gan.add_lora(2, 0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ZeroshiftError, match="mine"):
        export_generator(small, tmp_path / "mine", "diffusers")
    assert (tmp_path / "mine" / "letter.txt").exists()
