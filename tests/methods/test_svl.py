"""SVL against its equations, in value and gradient, and its training and resuming."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.core.distributed import Distributed
from zeroshift.core.rng import normal
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.methods.config_file import from_json, to_json
from zeroshift.methods.configure import preset, resolve
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.svl import (
    SVL,
    SVLOptions,
    first_moment,
    learn_variations,
    relation,
    second_moment,
    variation_loss,
)
from zeroshift.training.adaptation import Adaptation

OPTIONS = SVLOptions(variations=3, variation_steps=20, fisher_samples=2)
CONFIG = AdaptConfig(
    target="zombie", method="svl", options=OPTIONS,
    adapt=AdaptStage(steps=4, batch_size=3, layers=("all",), noise_mode="const", directional_weight=0.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path) -> Encoder:
    return load_encoder(str(tiny_encoder))


def make(generator: Path, encoders: list[Encoder], **changes: Any) -> TrainingContext:
    config = resolve(dataclasses.replace(CONFIG, encoders=("miniature",) * len(encoders), **changes))
    return TrainingContext(config, load_generator(str(generator)).requires_grad_(False), encoders, Distributed("cpu"))


def trained(context: TrainingContext) -> Adaptation:
    return Adaptation(context, SVL(context))


def normalize(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def same(fast: Tensor, naive: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(fast, naive)
    for a, b in zip(torch.autograd.grad(fast, inputs), torch.autograd.grad(naive, inputs), strict=True):
        torch.testing.assert_close(a, b)


def cos(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b) / (a.norm() * b.norm())


def test_variation_loss_equals_its_naive_twin() -> None:
    text, free = randn(7).detach(), randn(4, 7, seed=1)
    perturbations = [text.norm() * row / row.norm() for row in free]
    near = sum(1 - cos(text + e, text) for e in perturbations) / 4
    apart = sum(cos(a, b) ** 2 for i, a in enumerate(perturbations) for j, b in enumerate(perturbations) if i != j) / 12
    same(variation_loss(text, free, 0.7), near + 0.7 * apart, free)


def test_variations_stay_close_and_differ() -> None:
    text, start = normalize(randn(24).detach()), randn(4, 24, seed=1).detach()
    variations = learn_variations(text, start, 300, 0.02, 1.0)
    torch.testing.assert_close((variations - text).norm(dim=1), text.norm().expand(4))
    before = variation_loss(text, start, 1.0)
    assert variation_loss(text, variations - text, 1.0) < before - 0.05
    assert F.cosine_similarity(variations, text).min() > 0.7


def test_moments_equal_their_naive_twins() -> None:
    images, texts = randn(5, 6), randn(3, 6, seed=1)
    same(first_moment(images, texts), 1 - cos(images.mean(dim=0), texts.mean(dim=0)), images, texts)
    outer = [sum(torch.outer(row, row) for row in rows) / len(rows) for rows in (images, texts)]
    same(second_moment(images, texts), (outer[0] - outer[1]).square().sum(), images, texts)


def test_the_gradient_of_the_first_step_is_bounded() -> None:
    """While all images equal those of the source, the gradient is no larger than that of ordinary directions."""
    texts, none = normalize(randn(3, 6, seed=1)), torch.zeros(5, 6, dtype=torch.float64, requires_grad=True)
    some = randn(5, 6)
    first = first_moment(none, texts)
    assert first == 1
    (gradient,), (usual,) = torch.autograd.grad(first, none), torch.autograd.grad(first_moment(some, texts), some)
    assert 0 < gradient.norm() < 10 * usual.norm()


def test_relation_equals_its_naive_twin() -> None:
    source, target = randn(2, 4, 6), randn(2, 4, 6, seed=1)
    total = torch.zeros((), dtype=torch.float64)
    for view in range(2):
        for i in range(4):
            others = [j for j in range(4) if j != i]
            p, q = (
                torch.stack([5 * cos(x[view, i], x[view, j]) for j in others]).softmax(dim=0) for x in (source, target)
            )
            total = total + (p * (p / q).log()).sum() / 8
    same(relation(source, target, 5.0), total, source, target)
    assert relation(source, source, 5.0).abs() < 1e-12


def test_importance_is_the_mean_squared_gradient(tiny_generator: Path, encoder: Encoder) -> None:
    context = make(tiny_generator, [encoder])
    importance = SVL(context).fisher()
    assert not any(parameter.requires_grad for parameter in context.source.parameters())
    name = "synthesis.b8.conv1.bias"
    weight = context.source.get_parameter(name).requires_grad_()
    squares = []
    for sample in range(2):
        image = context.source(normal((16,), 0, "fisher", samples=[sample]))
        direction = normal((3, 16, 16), 0, "fisher images", samples=[sample])
        squares.append(torch.autograd.grad((image * direction).sum() / (3 * 16 * 16) ** 0.5, weight)[0] ** 2)
    torch.testing.assert_close(importance[name], (squares[0] + squares[1]) / 2)
    assert set(importance) == {f"{n}.{m}" for n, x in context.source.layers().items() for m, _ in x.named_parameters()}


@pytest.mark.slow
def test_importance_predicts_how_far_images_change(tiny_generator: Path, encoder: Encoder) -> None:
    """sum(F d^2) for independent changes d: the mean squared change of the images, within sampling error."""
    context = make(tiny_generator, [encoder], options=dataclasses.replace(OPTIONS, fisher_samples=200))
    importance = SVL(context).fisher()
    z = context.fresh_latents.draw("changes", 0, range(64)).latents
    before, ratios = context.source(z), []
    state = {name: value.clone() for name, value in context.source.state_dict().items()}
    for seed in range(8):
        random, predicted = torch.Generator().manual_seed(seed), 0.0
        for name, part in importance.items():
            change = 1e-3 * torch.randn(part.shape, generator=random)
            context.source.get_parameter(name).data.add_(change)
            predicted += float((part * change.square()).sum())
        ratios.append(float((context.source(z) - before).square().mean()) / predicted)
        context.source.load_state_dict(state)
    assert 0.5 < sum(ratios) / len(ratios) < 2


def test_losses_of_a_step(tiny_generator: Path, encoder: Encoder) -> None:
    """The losses of the second step, computed naively from the current weights."""
    context = make(tiny_generator, [encoder])
    method = SVL(context)
    adaptation = Adaptation(context, method)
    adaptation.step(0)
    codes = context.source.codes(context.fresh_latents.draw("adapt", 1, range(3)).latents)
    source, target = (
        normalize(encoder.encode_image(generator.synthesize(codes))).detach()
        for generator in (context.source, adaptation.target)
    )
    moved, texts = normalize(target - source), method._directions[0]
    changed = sum(
        float(
            (part * (adaptation.target.get_parameter(name) - context.source.get_parameter(name)).square())
            .sum()
            .detach()
        )
        for name, part in method._importance.items()
    )
    losses = adaptation.step(1)
    assert losses["ewc"] == pytest.approx(changed, rel=1e-4)
    assert losses["ewc"] > 0
    assert losses["mean"] == pytest.approx(float(first_moment(moved, texts)), abs=1e-4)
    assert losses["moment"] == pytest.approx(float(second_moment(moved, texts)), abs=1e-4)
    assert losses["relation"] == pytest.approx(float(relation(source, target, 20.0)), abs=1e-4)
    assert losses["directional"] == 0
    parts = sum(losses[name] for name in ("ewc", "mean", "moment", "relation"))
    assert losses["loss"] == pytest.approx(parts, abs=1e-6)


def test_several_encoders_and_augmentations(tiny_generator: Path, encoder: Encoder) -> None:
    adapt = dataclasses.replace(CONFIG.adapt, augmentations=2)
    options = dataclasses.replace(OPTIONS, ewc_weight=0.0)
    one = trained(make(tiny_generator, [encoder], adapt=adapt, options=options))
    two = trained(make(tiny_generator, [encoder, encoder], adapt=adapt, options=options, encoder_weights=(0.5, 0.5)))
    two._method._directions[1] = two._method._directions[0]  # each encoder has its own variations
    for step in range(2):
        assert one.step(step)["loss"] == pytest.approx(two.step(step)["loss"], abs=1e-5)


def test_resumes_bit_for_bit(tiny_generator: Path, encoder: Encoder) -> None:
    whole, resumed = (trained(make(tiny_generator, [encoder])) for _ in range(2))
    whole.step(0)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    assert whole.step(1) == resumed.step(1)
    for a, b in zip(whole.target_ema.parameters(), resumed.target_ema.parameters(), strict=True):
        assert torch.equal(a, b)


def test_invalid_settings_are_refused(tiny_generator: Path, encoder: Encoder) -> None:
    for changes, sentence in (
        ({"variations": 1}, "variations is 1"),
        ({"ewc_weight": -1.0}, "ewc_weight is -1.0"),
        ({"relation_scale": 0.0}, "must be positive"),
    ):
        with pytest.raises(ZeroshiftError, match=sentence):
            resolve(dataclasses.replace(CONFIG, options=SVLOptions(**changes)))
    for adapt in (AdaptStage(batch_size=2), AdaptStage(batch_size=4, grad_accumulation_steps=2)):
        with pytest.raises(ZeroshiftError, match="compares the images of a batch with each other"):
            SVL(make(tiny_generator, [encoder], adapt=adapt))


def test_presets() -> None:
    for name, layers in (("published", "all"), ("miniature", "adaptive")):
        config = resolve(preset(name, "zombie", method="svl"))
        assert config.adapt.layers == (layers,)
        assert config.adapt.directional_weight == 0
        assert from_json(to_json(config)) == config
