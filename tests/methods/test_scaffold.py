"""Scaffold: its structure loss against a naive twin, its levels, and images kept in range."""

import dataclasses
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.adaptations import perturbed
from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.core.distributed import Distributed
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.methods.base import Pairs
from zeroshift.methods.configure import resolve
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.ipl import PromptStage
from zeroshift.methods.scaffold import Scaffold, ScaffoldOptions
from zeroshift.training.adaptation import Adaptation

PROMPTS = PromptStage(steps=1, batch_size=2)
ADAPT = AdaptStage(
    steps=3, batch_size=4, layers=("all",), noise_mode="const", augmentations=2, clamp_images=True, range_weight=5.0
)


def make(generator: Path, encoders: list[Encoder], adapt: AdaptStage = ADAPT, **options: Any) -> TrainingContext:
    config = AdaptConfig(
        target="zombie", method="scaffold", adapt=adapt, options=ScaffoldOptions(PROMPTS, **options),
        encoders=("miniature",) * len(encoders),
    )  # fmt: skip
    source = load_generator(str(generator)).requires_grad_(False)
    return TrainingContext(resolve(config), source, encoders, Distributed("cpu"))


def trained(context: TrainingContext) -> Adaptation:
    return perturbed(Scaffold(context))


@pytest.fixture
def encoder(tiny_encoder: Path) -> Encoder:
    return load_encoder(str(tiny_encoder))


@pytest.fixture(scope="module")
def resnet() -> Encoder:
    """A random encoder with a ResNet, as the miniature one."""
    text = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = open_clip.CLIP(16, vision, text)
    tokenizer: Any = open_clip.SimpleTokenizer(context_length=24)
    return Encoder(model, tokenizer, image_mean=(0.5,) * 3, image_std=(0.5,) * 3)


def naive_structure(source: Tensor, target: Tensor) -> Tensor:
    """The structure loss with a loop over images and places."""
    total = torch.zeros(())
    for a, b in zip(source.flatten(2), target.flatten(2), strict=True):  # [C, places]
        for place in range(a.shape[1]):
            one, other = (F.cosine_similarity(x[:, place : place + 1], x, dim=0) for x in (a, b))  # [places]
            total = total + (one - other).square().mean() / a.shape[1]
    return total / len(source)


@pytest.mark.parametrize("levels", [(), (0,), (1, 0)])
def test_structure_compares_self_similarities_per_level_and_encoder(
    tiny_generator: Path, encoder: Encoder, resnet: Encoder, levels: tuple[int, ...]
) -> None:
    context = make(tiny_generator, [encoder, resnet], structure_levels=levels)
    context = dataclasses.replace(context, config=dataclasses.replace(context.config, encoder_weights=(1.0, 0.5)))
    adaptation = trained(context)
    method = adaptation._method
    assert method.map_levels() == [levels or (0,), levels or (2,)]  # the middle of 2 blocks and of 5 levels
    adaptation.target.requires_grad_(True)
    batch = context.fresh_latents.draw("adapt", 0, range(4), noise="source")
    part = adaptation._source_part(batch, 0)
    pairs = adaptation._pairs(part, 0)
    for maps, features in zip(pairs.target_maps, pairs.target_features, strict=True):
        assert all(len(each) == len(features) == 8 for each in maps)
    ours = method.extra_losses(pairs)["structure"]
    naive = sum(
        24.0 * weight * torch.stack([naive_structure(a, b) for a, b in zip(s, t, strict=True)]).mean()
        for weight, s, t in zip((1.0, 0.5), pairs.source_maps, pairs.target_maps, strict=True)
    )
    weights = [conv.weight for conv in adaptation.target.synthesis.convs()]
    assert ours.item() == pytest.approx(naive.item(), rel=1e-4)
    gradients = [torch.autograd.grad(loss, weights, retain_graph=True) for loss in (ours, naive)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_features_beside_maps_equal_features_alone(encoder: Encoder, resnet: Encoder) -> None:
    images = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for each in (encoder, resnet):
        for levels in ([0], [1, 0], [each.num_levels - 1]):
            features, maps = each.encode_with_maps(images, levels)
            torch.testing.assert_close(features, each.encode_image(images))
            assert len(maps) == len(levels)
            assert all(one.dim() == 4 and len(one) == 2 for one in maps)
    tower = resnet.image_tower
    with torch.no_grad():
        expected = tower.layer2(tower.layer1(tower.stem(resnet._preprocess(images))))
        torch.testing.assert_close(resnet.encode_with_maps(images, [2])[1][0], expected)


@pytest.mark.slow
def test_a_vision_transformer_gives_the_patch_tokens_of_its_middle_block() -> None:
    """A random ViT-B/32, the published encoder's architecture: 7 x 7 patch tokens of block 6 of 12."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None)
    tokenizer: Any = open_clip.get_tokenizer("ViT-B-32-quickgelu")
    encoder = Encoder(model, tokenizer, image_mean=(0.5,) * 3, image_std=(0.5,) * 3, templates=["a {}"])
    images = (torch.rand(1, 3, 64, 64) * 2 - 1).requires_grad_()
    assert encoder.num_levels == 12
    features, (tokens,) = encoder.encode_with_maps(images, [(encoder.num_levels - 1) // 2])
    assert tokens.shape == (1, 768, 7, 7)
    blocks: list[Tensor] = []
    handle = model.visual.transformer.resblocks[5].register_forward_hook(lambda m, i, output: blocks.append(output))
    torch.testing.assert_close(encoder.encode_image(images), features)
    handle.remove()
    torch.testing.assert_close(tokens.flatten(2).mT, blocks[0][:, 1:])  # without the class token
    (gradient,) = torch.autograd.grad(tokens.sum(), images)
    assert gradient.abs().sum() > 0


def test_a_step_logs_both_terms_and_no_weight_of_zero_costs_a_map(tiny_generator: Path, encoder: Encoder) -> None:
    losses = trained(make(tiny_generator, [encoder])).step(0)
    assert {"directional", "structure", "range"} < set(losses)
    assert losses["structure"] > 0
    without = trained(make(tiny_generator, [encoder], structure_weight=0.0, structure_hold=0.0))
    assert without._method.map_levels() == [()]
    assert "structure" not in without.step(0)


@pytest.mark.parametrize(("until", "expected"), [(1.0, 5 / 8), (0.5, 2 / 8), (0.25, 2 / 8)])
def test_the_structure_weight_falls_linearly_to_its_final_value(
    tiny_generator: Path, encoder: Encoder, until: float, expected: float
) -> None:
    options = {"structure_weight": 8.0, "structure_final": 2.0, "structure_until": until}
    adaptation = trained(make(tiny_generator, [encoder], **options))
    batch = adaptation._context.fresh_latents.draw("adapt", 0, range(4), noise="source")
    part = adaptation._source_part(batch, 0)
    pairs = adaptation._pairs(part, 0)
    first, middle, last = (
        adaptation._method.extra_losses(dataclasses.replace(pairs, step=step))["structure"].item() for step in range(3)
    )
    assert middle == pytest.approx(first * expected)
    assert last == pytest.approx(first * 2 / 8)


def naive_variance(steps: list[Tensor], copies: int) -> float:
    """Variance of the unit features of the images of several steps, each with its weight."""
    images, weights = [], []
    for age, features in enumerate(reversed(steps)):
        unit = [row / row.norm() for row in features]
        count = len(unit) // copies
        for i in range(count):
            images.append(torch.stack([unit[copy * count + i] for copy in range(copies)]).mean(dim=0))
            weights.append(0.9**age)
    shares = torch.tensor(weights)[:, None] / sum(weights)
    mean = (shares * torch.stack(images)).sum(dim=0)
    return float((shares[:, 0] * (torch.stack(images) - mean).square().sum(dim=1)).sum())


def test_structure_is_held_while_target_images_are_too_much_alike(
    tiny_generator: Path, encoder: Encoder, resnet: Encoder
) -> None:
    hold = {"structure_hold": 10.0, "structure_variance": 20.0, "structure_margin": 30.0}
    context = make(tiny_generator, [encoder, resnet], structure_weight=1.0, **hold)
    adaptation = trained(context)
    method, late = adaptation._method, 2
    method.begin_step(0, adaptation.target)
    assert method.variance().tolist() == [1, 1], "no image yet"
    seen: dict[str, list[list[Tensor]]] = {"source": [[], []], "target": [[], []]}
    for step in range(2):
        batch = context.fresh_latents.draw("adapt", step, range(4), noise="source")
        pairs = adaptation._pairs(adaptation._source_part(batch, step), step)
        method.extra_losses(pairs)
        for index in range(2):
            seen["source"][index].append(pairs.source_features[index])
            seen["target"][index].append(pairs.target_features[index].detach())
        method.begin_step(step + 1, adaptation.target)
    source, target = ([naive_variance(each, copies=2) for each in seen[name]] for name in ("source", "target"))
    assert source[1] < 1e-4 < source[0], "the random ResNet's features hardly differ: its ratio would be rounding"
    expected = [target[0] / source[0], 1.0]
    assert method.variance().tolist() == pytest.approx(expected, rel=1e-3)
    held = [10 * min(1, max(0, (20 - each) / 30)) for each in expected]
    assert max(held) > 0, "else the test would show nothing"
    assert method.structure_weights(late).tolist() == pytest.approx(held, rel=1e-3)
    assert method.structure_weights(0).tolist() == pytest.approx([max(1, each) for each in held], rel=1e-3)


def test_one_image_per_step_gives_a_variance_over_the_steps(tiny_generator: Path, encoder: Encoder) -> None:
    context = make(tiny_generator, [encoder], dataclasses.replace(ADAPT, batch_size=1), structure_hold=24.0)
    method = Scaffold(context)
    draw = torch.Generator().manual_seed(0)
    for step in range(40):
        source = F.normalize(torch.randn(2, encoder.embed_dim, generator=draw), dim=1)
        target = F.normalize(source + 3 * torch.ones(encoder.embed_dim), dim=1)  # nearly the same image
        image, maps = torch.zeros(1, 3, 4, 4), [[torch.zeros(2, 1, 2, 2)]]
        method.extra_losses(Pairs(step, range(1), [], image, image, [source], [target], maps, maps, lambda _: []))
        method.begin_step(step + 1, context.source)
        if step == 0:
            assert method.variance().tolist() == [1], "one image has no variance"
    assert 0 < method.variance().item() < 0.1
    assert method.structure_weights(99).tolist() == [24]


def test_parts_of_a_batch_and_a_restored_state_measure_the_same_variance(
    tiny_generator: Path, encoder: Encoder
) -> None:
    weights = []
    for parts in (1, 2):
        adapt = dataclasses.replace(ADAPT, grad_accumulation_steps=parts)
        adaptation = trained(
            make(tiny_generator, [encoder], adapt, structure_weight=0.0, structure_hold=24.0, structure_variance=99.0)
        )
        adaptation.step(0)
        method = adaptation._method
        restored = Scaffold(adaptation._context)
        restored.load_state_dict(method.state_dict())
        for each in (method, restored):
            each.begin_step(1, adaptation.target)
            weights.append(each.structure_weights(1).item())
        restored.load_state_dict({})  # of a checkpoint of an earlier version
    assert weights[0] > 0
    assert weights == pytest.approx([weights[0]] * 4, rel=1e-5)


def test_levels_and_weights_are_checked(tiny_generator: Path, encoder: Encoder) -> None:
    with pytest.raises(ZeroshiftError, match=r"structure_levels has 7, but .* the levels 0 to 1"):
        Scaffold(make(tiny_generator, [encoder], structure_levels=(7,)))
    with pytest.raises(ZeroshiftError, match="structure_weight is -1"):
        make(tiny_generator, [encoder], structure_weight=-1.0)
    with pytest.raises(ZeroshiftError, match="structure_final is -2"):
        make(tiny_generator, [encoder], structure_final=-2.0)
    with pytest.raises(ZeroshiftError, match="structure_hold is -3"):
        make(tiny_generator, [encoder], structure_hold=-3.0)
    with pytest.raises(ZeroshiftError, match="structure_variance is -4"):
        make(tiny_generator, [encoder], structure_variance=-4.0)
    with pytest.raises(ZeroshiftError, match=r"structure_margin is 0\.0"):
        make(tiny_generator, [encoder], structure_margin=0.0)
    for until in (0.0, 1.5):
        with pytest.raises(ZeroshiftError, match=f"structure_until is {until}"):
            make(tiny_generator, [encoder], structure_until=until)
    with pytest.raises(ZeroshiftError, match=r"prompts\.steps is 0"):
        ScaffoldOptions(dataclasses.replace(PROMPTS, steps=0)).validate()


def test_the_structure_loss_keeps_what_the_direction_alone_changes(tiny_generator: Path, encoder: Encoder) -> None:
    """After the same steps, images with the loss are closer to the source's structure than without it."""
    distances = []
    for weight in (0.0, 50.0):
        adapt = dataclasses.replace(ADAPT, steps=12, lr=0.01)
        context = make(
            tiny_generator, [encoder], adapt, structure_weight=weight, structure_final=weight, structure_hold=0.0
        )
        adaptation = Adaptation(context, Scaffold(context))
        for step in range(12):
            adaptation.step(step)
        batch = context.fresh_latents.draw("test", 0, range(8), noise="source")
        with torch.no_grad():
            maps = [
                encoder.encode_with_maps(generator.synthesize(batch.codes), [0])[1][0]
                for generator in (context.source, adaptation.target)
            ]
        distances.append(float(naive_structure(*maps)))
    assert distances[1] < 0.8 * distances[0]
