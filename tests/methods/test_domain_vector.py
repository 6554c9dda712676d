"""The domain vector: trained parameters, delivered generator and vector file."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.core.distributed import Distributed
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.generators.stylegan.stylegan3 import StyleGAN3
from zeroshift.methods.config_file import from_json, to_json
from zeroshift.methods.configure import preset, resolve
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.domain_vector import (
    DomainVector,
    DomainVectorOptions,
    Modulation,
    apply_vector,
    in_domain,
    modulated_layers,
    vector_between,
)
from zeroshift.training.adaptation import Adaptation

CONFIG = AdaptConfig(
    target="zombie", method="domain-vector",
    adapt=AdaptStage(steps=3, batch_size=2, layers=("all",), noise_mode="const", lr=0.05, ema_decay=0.5),
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path) -> Encoder:
    return load_encoder(str(tiny_encoder))


def trained(generator: Path, encoders: list[Encoder], steps: int, **changes: Any) -> Adaptation:
    config = resolve(dataclasses.replace(CONFIG, encoders=("miniature",) * len(encoders), **changes))
    context = TrainingContext(
        config, load_generator(str(generator)).requires_grad_(False), encoders, Distributed("cpu")
    )
    adaptation = Adaptation(context, DomainVector(context))
    for step in range(steps):
        adaptation.step(step)
    return adaptation


def test_six_thousand_numbers_at_1024_pixels() -> None:
    with torch.device("meta"):
        generator = StyleGAN2(1024)
    assert sum(layer.weight.shape[1] for layer in modulated_layers(generator).values()) == 6048
    assert not any(name.endswith("torgb") for name in modulated_layers(generator))


def test_stylegan3_has_a_vector_too() -> None:
    generator = StyleGAN3(resolution=16, z_dim=8, w_dim=8, channel_base=256, channel_max=16, num_layers=4)
    modulation = Modulation(generator)
    assert 0 < modulation.vector.numel() == sum(len(b) for n, b in modulation().items() if n.endswith("bias"))
    named = dict(generator.named_parameters())
    assert all(torch.equal(value, named[name]) for name, value in modulation().items())


def test_in_domain_equals_its_naive_twin() -> None:
    random = torch.Generator().manual_seed(0)
    source, target = (torch.randn(2, 4, 6, generator=random, dtype=torch.float64).requires_grad_() for _ in range(2))
    total = torch.zeros((), dtype=torch.float64)
    for view in range(2):
        for i in range(4):
            for j in range(i):
                change = [F.cosine_similarity(x[view, i], x[view, j], dim=0) for x in (source, target)]
                total = total + (change[0] - change[1]) ** 2 / 6 / 2
    fast = in_domain(source, target)
    torch.testing.assert_close(fast, total)
    for a, b in zip(
        torch.autograd.grad(fast, (source, target)), torch.autograd.grad(total, (source, target)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_styles_are_scaled_and_nothing_else(tiny_generator: Path) -> None:
    """The generator with d equals the source with all styles multiplied by d."""
    source = load_generator(str(tiny_generator))
    target = load_generator(str(tiny_generator))
    modulation = Modulation(source)
    with torch.no_grad():
        modulation.vector.copy_(
            1 + 0.3 * torch.randn(modulation.vector.shape, generator=torch.Generator().manual_seed(1))
        )
        for name, weight in modulation().items():
            target.get_parameter(name).copy_(weight)
    parts = dict(zip(modulated_layers(source), modulation.vector.detach().split(modulation._sizes), strict=True))
    for name, layer in modulated_layers(source).items():
        layer.affine.register_forward_hook(lambda _, inputs, style, d=parts[name]: style * d)
    z = source.sample_latents(0, range(2))
    with torch.no_grad():
        torch.testing.assert_close(target(z), source(z), atol=1e-5, rtol=1e-4)


def test_the_gradient_of_the_vector(tiny_generator: Path, encoder: Encoder) -> None:
    """The gradient of the vector through the weights, against hooks that multiply the styles by it."""
    adaptation = trained(tiny_generator, [encoder], 1, options=DomainVectorOptions(in_domain_weight=0.5))
    context, method = adaptation._context, adaptation._method
    vector = adaptation._reparametrization.vector.detach().clone().requires_grad_()
    hooked = load_generator(str(tiny_generator)).requires_grad_(False)
    parts = dict(zip(modulated_layers(hooked), vector.split(adaptation._reparametrization._sizes), strict=True))
    for name, layer in modulated_layers(hooked).items():
        layer.affine.register_forward_hook(lambda _, inputs, style, d=parts[name]: style * d)
    codes = context.source.codes(context.fresh_latents.draw("adapt", 1, range(2)).latents)
    source, target = (encoder.encode_image(generator.synthesize(codes)) for generator in (context.source, hooked))
    unit = F.normalize
    (text,) = method.text_directions([], 1)
    directional = (1 - F.cosine_similarity(unit(unit(target) - unit(source)), text)).mean()
    (directional + 0.5 * in_domain(source[None], target[None])).backward()
    losses = adaptation.step(1)
    assert losses["directional"] == pytest.approx(directional.item(), abs=1e-5)
    torch.testing.assert_close(adaptation._reparametrization.vector.grad, vector.grad, atol=1e-5, rtol=1e-3)


def test_only_the_vector_trains(tiny_generator: Path, encoder: Encoder) -> None:
    adaptation = trained(tiny_generator, [encoder], 2)
    source = dict(adaptation._context.source.named_parameters())
    names = set(adaptation._reparametrization())
    for generator in (adaptation.target, adaptation.target_ema):
        for name, parameter in generator.named_parameters():
            assert torch.equal(parameter, source[name]) == (name not in names), name
    assert (
        sum(group.numel() for group in adaptation._optimizer.param_groups[0]["params"])
        == adaptation._reparametrization.vector.numel()
    )
    torch.testing.assert_close(
        vector_between(adaptation._context.source, adaptation.target),
        adaptation._reparametrization.vector.detach(),
        atol=1e-5,
        rtol=1e-5,
    )


def test_the_adaptive_choice_reaches_parts_of_the_vector(tiny_generator: Path, encoder: Encoder) -> None:
    adapt = dataclasses.replace(CONFIG.adapt, layers=("synthesis.b8.conv0",))
    adaptation = trained(tiny_generator, [encoder], 1, adapt=adapt)
    moved = dict(
        zip(
            modulated_layers(adaptation.target),
            adaptation._reparametrization.vector.split(adaptation._reparametrization._sizes),
            strict=True,
        )
    )
    assert {name for name, part in moved.items() if not torch.equal(part, torch.ones_like(part))} == {
        "synthesis.b8.conv0"
    }


def test_the_file_adapts_the_source_again(tiny_generator: Path, encoder: Encoder, tmp_path: Path) -> None:
    adaptation = trained(tiny_generator, [encoder], 3)
    adaptation._method.save(tmp_path, adaptation.target_ema)
    path = tmp_path / "domain-vector.safetensors"
    assert path.stat().st_size < 2**11
    source = load_generator(str(tiny_generator))
    z = source.sample_latents(0, range(3))
    with torch.no_grad():
        moved = apply_vector(source, path)(z)
        torch.testing.assert_close(moved, adaptation.target_ema(z), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(moved, source(z), atol=1e-3)


def test_unsuitable_vector_files_are_refused(tiny_generator: Path, tmp_path: Path) -> None:
    source = load_generator(str(tiny_generator))
    with pytest.raises(ZeroshiftError, match="There is no file"):
        apply_vector(source, tmp_path / "missing.safetensors")
    save_file({"vector": torch.ones(3)}, tmp_path / "bare.safetensors")
    with pytest.raises(ZeroshiftError, match="is not a domain vector"):
        apply_vector(source, tmp_path / "bare.safetensors")
    save_file(
        {"vector": torch.ones(3)}, tmp_path / "other.safetensors",
        metadata={"zeroshift": '{"architecture": "stylegan2", "config": {}}'},
    )  # fmt: skip
    with pytest.raises(ZeroshiftError, match="generator of other sizes"):
        apply_vector(source, tmp_path / "other.safetensors")


def test_several_encoders(tiny_generator: Path, encoder: Encoder) -> None:
    one = trained(tiny_generator, [encoder], 2)
    two = trained(tiny_generator, [encoder, encoder], 2, encoder_weights=(0.5, 0.5))
    torch.testing.assert_close(one._reparametrization.vector, two._reparametrization.vector, atol=1e-4, rtol=1e-4)


def test_resumes_bit_for_bit(tiny_generator: Path, encoder: Encoder) -> None:
    whole, resumed = trained(tiny_generator, [encoder], 2), trained(tiny_generator, [encoder], 0)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    assert whole.step(2) == resumed.step(2)
    assert torch.equal(whole._reparametrization.vector, resumed._reparametrization.vector)
    for a, b in zip(whole.target_ema.parameters(), resumed.target_ema.parameters(), strict=True):
        assert torch.equal(a, b)


def test_invalid_settings_are_refused(tiny_generator: Path, encoder: Encoder) -> None:
    with pytest.raises(ZeroshiftError, match="in_domain_weight is -1"):
        resolve(dataclasses.replace(CONFIG, options=DomainVectorOptions(-1.0)))
    with pytest.raises(ZeroshiftError, match="compares the images of a batch"):
        trained(tiny_generator, [encoder], 0, adapt=AdaptStage(batch_size=1))
    trained(tiny_generator, [encoder], 0, adapt=AdaptStage(batch_size=1), options=DomainVectorOptions(0.0))


def test_presets() -> None:
    published = resolve(preset("published", "zombie", method="domain-vector"))
    assert (published.adapt.lr, published.adapt.batch_size, published.adapt.betas) == (0.1, 4, (0.9, 0.999))
    assert from_json(to_json(published)) == published
