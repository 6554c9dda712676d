"""Diffusion models in the trainer: DiffusionCLIP (nada) and Diff-IPL (ipl), with all training options."""

import copy
import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline
from PIL import Image
from safetensors.torch import load_file

from tests.helpers.diffusion_models import ddpm, ldm
from zeroshift.clip.loading import load_encoder
from zeroshift.clip.losses import directional
from zeroshift.config.settings import AdaptConfig, AdaptStage, GeneratorOptions
from zeroshift.core.distributed import Distributed
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.inversion.codes import invert, read_folder
from zeroshift.methods.configure import changed
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.ipl import IPLOptions, PromptStage
from zeroshift.methods.registry import METHODS
from zeroshift.training.adaptation import Adaptation
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.trainer import adapt

CONFIG = AdaptConfig(
    target="zombie",
    device="cpu",
    truncation_psi=1.0,
    num_latents=6,
    options=IPLOptions(PromptStage(steps=3, batch_size=4, num_context=2, lr=0.01)),
    adapt=AdaptStage(
        steps=4, batch_size=2, lr=1e-3, lr_final=4e-3, betas=(0.9, 0.999), ema_decay=0.5, layers=("all",),
        noise_mode="const", directional_form="log", directional_weight=3.0, l1_weight=0.3,
    ),
    sampling=DDIMOptions(noise_steps=2, steps=3, invert_steps=3, clip_sample=False),
    preview_every=2,
    preview_samples=2,
    checkpoint_every=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ddpm(tmp_path_factory.mktemp("models") / "ddpm")


@pytest.fixture(scope="module")
def config(pipeline: Path, tiny_encoder: Path) -> AdaptConfig:
    return dataclasses.replace(CONFIG, generator=str(pipeline), encoders=(str(tiny_encoder),))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    draw = torch.Generator().manual_seed(0)
    for number in range(5):
        pixels = torch.randint(0, 256, (3, 24, 4), generator=draw, dtype=torch.uint8).repeat_interleave(5, dim=2)
        (tmp_path / "photos" / "more").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(
            tmp_path / "photos" / ("more" if number > 2 else "") / f"{number}.png"
        )
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path / "cache"))


def change(config: AdaptConfig, *, adapt: dict[str, Any] | None = None, **fields: Any) -> AdaptConfig:
    sampling = {
        key: fields.pop(key) for key in ("train_each_step", "gradient_checkpointing", "steps", "t0") if key in fields
    }
    config = changed(config, {"method": fields.pop("method", config.method)})
    return dataclasses.replace(
        config,
        adapt=dataclasses.replace(config.adapt, **adapt or {}),
        sampling=dataclasses.replace(config.sampling, **sampling),
        **fields,
    )


def make(config: AdaptConfig) -> tuple[TrainingContext, Adaptation]:
    source = load_generator(config.generator).requires_grad_(False)
    source.configure(config.sampling)
    context = TrainingContext(config, source, [load_encoder(name) for name in config.encoders], Distributed("cpu"))
    return context, Adaptation(context, METHODS[config.method](context))


def same(a: Generator, b: Generator) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "form"), [("ipl", {}), ("nada", {"train_each_step": True}), ("nada", {"adapt": {"lora_rank": 2}})]
)
def test_killed_and_resumed_equals_uninterrupted(
    config: AdaptConfig, method: str, form: dict[str, Any], tmp_path: Path
) -> None:
    config = change(config, method=method, **form)

    class Crash:
        def update(self, stage: str, step: int, *_: Any) -> None:
            if (stage, step) == ("adapt", 3):
                raise RuntimeError

    whole = adapt(config, RunFolder.open(tmp_path / "whole", config))
    assert [(record["stage"], record["step"]) for record in whole.history] == [
        *(("prompts", step) for step in range(3) if method == "ipl"),
        *(("adapt", step) for step in range(4)),
    ]
    assert {"loss", "directional", "l1"} <= whole.history[-1].keys()
    with pytest.raises(RuntimeError):
        adapt(config, RunFolder.open(tmp_path / "run", config), progress=Crash())
    resumed = adapt(config, RunFolder.open(tmp_path / "run", config))
    assert same(resumed.generator, whole.generator)
    assert not same(whole.generator, whole.source)
    for one, other in zip(resumed.history, whole.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_the_delivered_pipeline_generates_the_same_images(
    config: AdaptConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`DDIMPipeline.from_pretrained` opens it and generates the same images from x_T."""
    result = adapt(config, RunFolder.open(tmp_path / "run", config))
    delivered = load_generator(tmp_path / "run" / "generator.safetensors")
    assert isinstance(delivered, Diffusion)
    assert delivered.sampling == config.sampling, "samples use the training settings"
    assert same(delivered, result.generator)
    delivered.configure(DDIMOptions(noise_steps=4, steps=6, clip_sample=False))
    latents = delivered.sample_latents(3, range(2))
    pipeline = DDIMPipeline.from_pretrained(tmp_path / "run" / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    monkeypatch.setattr("diffusers.pipelines.ddim.pipeline_ddim.randn_tensor", lambda *_, **__: latents.clone())
    images = pipeline(batch_size=2, num_inference_steps=10, output_type="np").images
    images = torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(delivered(latents).clamp(-1, 1), images, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_latent_diffusion_adapts(config: AdaptConfig, tmp_path: Path) -> None:
    config = change(config, generator=str(ldm(tmp_path / "ldm")), method="nada")
    result = adapt(config, RunFolder.open(tmp_path / "run", config))
    before, after = result.source.state_dict(), result.generator.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"unet"}, "the decoder does not change"


def naive_losses(
    context: TrainingContext, target: Diffusion, images: torch.Tensor, source: torch.Tensor
) -> torch.Tensor:
    """DiffusionCLIP's loss of a batch of pairs, computed naively."""
    encoder, config = context.encoders[0], context.config
    direction = encoder.label_feature(config.target) - encoder.label_feature(config.source)
    direction = direction / direction.norm()
    total = torch.zeros(())
    for one, other in zip(source, images, strict=True):
        moved = directional(encoder.encode_image(one[None]), encoder.encode_image(other[None]), direction[None])
        total = total - 3.0 * torch.log((2 - moved) / 2) + 0.3 * (other - one).abs().mean()
    return total / len(source)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("each_step", [False, True])
def test_gradients_equal_the_naive_ones(config: AdaptConfig, each_step: bool, accumulate: int, float64: None) -> None:
    """One step (one per DDIM step with `train_each_step`) against the same with plain autograd."""
    config = change(
        config,
        method="nada",
        train_each_step=each_step,
        num_latents=0,
        adapt={"grad_accumulation_steps": accumulate, "lr_final": None},
    )
    context, adaptation = make(config)
    with torch.no_grad():  # not at G_s, where directions are 0/0
        for parameter in adaptation.target.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    twin = copy.deepcopy(adaptation.target).requires_grad_(True)
    optimizer = torch.optim.Adam(twin.unet.parameters(), lr=config.adapt.lr, betas=config.adapt.betas)
    batch = context.fresh_latents.draw("adapt", 0, range(2), noise="source")
    update = adaptation.update(batch, None, 0)

    with torch.no_grad():
        x = context.source.codes(batch.latents)
        source = context.source.synthesize(x)
    losses = []
    levels = twin.schedule.descent(0.5, 3)
    for here, there in pairwise(levels):
        x, clean = twin.schedule.step(x, twin.unet(x, here).sample, here, there, clip=False)
        if each_step or there == levels[-1]:
            losses.append(naive_losses(context, twin, clean, source))
            optimizer.zero_grad()
            losses[-1].backward()
            optimizer.step()
            x = x.detach()
    assert update.losses["loss"] == pytest.approx(float(torch.stack(losses).detach().mean()), rel=1e-9)
    for (name, ours), theirs in zip(adaptation.target.named_parameters(), twin.parameters(), strict=True):
        assert ours.grad is not None
        within = 1e-8 * float(theirs.grad.abs().max()) + 1e-14  # shifting the attention keys changes nothing
        torch.testing.assert_close(ours.grad, theirs.grad, atol=within, rtol=0, msg=f"{name} differs")
    moved = sum((a - b).abs().sum() for a, b in zip(twin.parameters(), context.source.parameters(), strict=True))
    apart = sum((a - b).abs().sum() for a, b in zip(adaptation.target.parameters(), twin.parameters(), strict=True))
    assert apart < 1e-6 * moved


@pytest.mark.slow
def test_checkpointing_changes_nothing(config: AdaptConfig) -> None:
    config = change(config, method="nada")
    plain, checked = (adapt(change(config, gradient_checkpointing=on)).generator for on in (False, True))
    for a, b in zip(plain.parameters(), checked.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_learning_rate_decays_geometrically(config: AdaptConfig) -> None:
    _, adaptation = make(change(config, method="nada", num_latents=0, adapt={"steps": 3, "lr": 1e-3, "lr_final": 4e-3}))
    rates = []
    for step in range(3):
        adaptation.step(step)
        rates.append(adaptation._optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 2e-3, 4e-3])


@pytest.mark.slow
def test_low_rank_updates(config: AdaptConfig, tmp_path: Path) -> None:
    """Merged and applied updates agree, diffusers' LoRA loader reads the file, and the source weights do not change."""
    from zeroshift.generators.diffusion.lora_pipeline import LoRADDIMPipeline

    config = change(config, method="nada", adapt={"lora_rank": 2})
    context, adaptation = make(dataclasses.replace(config, num_latents=0))
    for step in range(2):
        adaptation.step(step)
    applied, merged = adaptation.target_ema, adaptation.target_ema.merged()
    assert isinstance(merged, Diffusion)
    assert merged.state_dict().keys() == context.source.state_dict().keys()
    kept = {name.replace(".base_layer", ""): weight for name, weight in applied.unet.named_parameters()}
    for name, weight in context.source.unet.named_parameters():
        assert torch.equal(kept[name], weight), "only the updates train"
    latents = applied.sample_latents(0, range(2))
    with torch.no_grad():
        expected = applied(latents)
        torch.testing.assert_close(merged(latents), expected, atol=1e-5, rtol=1e-4)
        assert (expected - context.source(latents)).abs().max() > 1e-3

    result = adapt(config, RunFolder.open(tmp_path / "run", config))
    assert not hasattr(result.generator.unet, "peft_config")
    state = load_file(tmp_path / "run" / "pytorch_lora_weights.safetensors")
    assert all(name.startswith("unet.") and ".lora_" in name for name in state)
    pipe = LoRADDIMPipeline.from_pretrained(config.generator)
    pipe.load_lora_weights(tmp_path / "run")
    with torch.no_grad():
        output = pipe.unet(latents, 300).sample
        torch.testing.assert_close(output, result.generator.unet(latents, 300).sample, atol=1e-5, rtol=1e-4)
        assert (output - context.source.unet(latents, 300).sample).abs().max() > 1e-4


@pytest.mark.slow
def test_real_images(config: AdaptConfig, photos: Path, tmp_path: Path) -> None:
    config = change(config, source_images_dir=str(photos), num_latents=0)
    reports: list[tuple[int, int]] = []

    class Recorder:
        def update(self, stage: str, step: int, steps: int, *_: Any) -> None:
            if stage == "invert":
                reports.append((step, steps))

    result = adapt(config, progress=Recorder())
    assert reports == [(4, 5), (5, 5)]
    reports.clear()
    again = adapt(config, progress=Recorder())
    assert reports == [], "from the cache"
    assert same(again.generator, result.generator)
    elsewhere = adapt(change(config, t0=0.4), progress=Recorder())
    assert reports == [(4, 5), (5, 5)], "the cache knows t0"
    assert not same(elsewhere.generator, result.generator)


def test_an_interrupted_inversion_resumes(config: AdaptConfig, photos: Path, tmp_path: Path) -> None:
    generator = load_generator(config.generator)
    generator.configure(config.sampling)
    images, cache = read_folder(photos, 16), tmp_path / "kept"
    assert images.shape == (5, 3, 16, 16)
    reports: list[tuple[int, int]] = []

    def stop(number: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        invert(generator, images, cache, stop)
    assert len(list(cache.iterdir())) == 4
    next(cache.iterdir()).write_bytes(b"damaged")
    codes = invert(generator, images, cache, lambda number, of: reports.append((number, of)))
    assert reports == [(5, 5)]
    torch.testing.assert_close(codes, generator.invert(images), atol=1e-5, rtol=1e-4)


def test_a_bank_uses_each_image_once_per_pass(config: AdaptConfig) -> None:
    from zeroshift.methods.source_images import ImageBank

    bank = ImageBank(torch.zeros(7, 1), None, torch.zeros(7, 3, 1, 1), [])
    draws = [bank.rows("adapt", step, range(2), 2).tolist() for step in range(6)]
    for first in (0, 3):
        drawn = [row for batch in draws[first : first + 3] for row in batch]
        assert len(set(drawn)) == 6
    assert draws[:3] != draws[3:], "each pass has its own order"
    assert bank.rows("adapt", 4, [1], 2).tolist() == draws[4][1:], "for any part of the batch"
    assert [bank.rows("adapt", step, [0], 1).item() for step in range(7)] != list(range(7))
    with pytest.raises(ZeroshiftError, match="batch of 8"):
        bank.rows("prompts", 0, range(8), 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_images_dir": "nowhere", "num_latents": 0}, "no folder nowhere"),
        ({"source_images_dir": "nowhere"}, "one or the other"),
        ({"num_latents": 3}, "batch of 4"),
        ({"adapt": {"layers": ("unet.mid",)}}, "unet.mid_block"),
        ({"adapt": {"lr_final": 0.0}}, "lr_final"),
        ({"adapt": {"identity_weight": 1.0, "identity_network": "nobody"}}, "no feature network 'nobody'"),
        ({"t0": 1.5}, "at most 1"),
        ({"steps": 0}, "sampling.steps"),
    ],
)
def test_invalid_settings_are_refused(config: AdaptConfig, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ZeroshiftError, match=message):
        adapt(change(config, **changes))


def test_no_real_images_without_inversion(
    config: AdaptConfig, photos: Path, tiny_generator: Path, tiny_encoder: Path
) -> None:
    wrong = dataclasses.replace(
        config,
        generator=str(tiny_generator),
        source_images_dir=str(photos),
        num_latents=0,
        adapt=AdaptStage(layer_batch_size=2),
        sampling=GeneratorOptions(),
    )
    with pytest.raises(ZeroshiftError, match="has no inversion"):
        adapt(wrong)


def test_a_gan_draws_from_a_fixed_number_of_latents(config: AdaptConfig, tiny_generator: Path) -> None:
    gan = dataclasses.replace(config, generator=str(tiny_generator), adapt=AdaptStage(steps=2, layer_batch_size=2))
    gan = dataclasses.replace(gan, sampling=GeneratorOptions())
    result = adapt(gan)
    assert not same(result.generator, result.source)
    assert all(record["loss"] == record["loss"] for record in result.history)
