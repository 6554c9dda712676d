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
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.methods.base import Method, check_finite
from zeroshift.methods.configure import resolve
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.ipl import IPL, IPLOptions, PromptStage
from zeroshift.methods.nada import NADA
from zeroshift.methods.registry import METHODS

PROMPTS = PromptStage(steps=3, batch_size=4, num_context=2)
CONFIG = AdaptConfig(target="zombie", options=IPLOptions(PROMPTS), adapt=AdaptStage(noise_mode="const"))


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path) -> Encoder:
    return load_encoder(str(tiny_encoder))


@pytest.fixture
def context(tiny_generator: Path, encoder: Encoder) -> TrainingContext:
    return make(tiny_generator, [encoder])


def make(generator: Path, encoders: list[Encoder], **changes: Any) -> TrainingContext:
    config = resolve(dataclasses.replace(CONFIG, encoders=("miniature",) * len(encoders), **changes))
    return TrainingContext(config, load_generator(str(generator)).requires_grad_(False), encoders, Distributed("cpu"))


def normalize(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def test_built_in_methods_are_registered() -> None:
    assert set(METHODS) >= {"ipl", "nada", "air", "svl", "domain-vector"}
    assert all(issubclass(METHODS[name], Method) for name in METHODS)


def test_nada_from_labels(context: TrainingContext, encoder: Encoder) -> None:
    method = NADA(context)
    (direction,) = method.text_directions([torch.zeros(3, 16)], 0)
    features = [
        torch.stack([normalize(encoder.encode_text([template.format(label)])[0]) for template in encoder.templates])
        for label in ("photo", "zombie")
    ]
    torch.testing.assert_close(direction, normalize((features[1] - features[0]).mean(dim=0, keepdim=True)))
    assert method.text_directions([torch.zeros(3, 16)], 9)[0] is direction, "computed once"
    torch.testing.assert_close(method.targets[0], encoder.encode_text(["zombie"])[0])


def naive_prompt_loss(
    context: TrainingContext, method: IPL, latents: Tensor, domain_weight: float, source_weight: float
) -> Tensor:
    """Stage 1 as in the equations: prompts one by one, templates encoded again, explicit sums over images."""
    encoder, source, mapper = context.encoders[0], context.source, method.mappers[0]
    images, sources, targets = [], [], []
    for z in latents:
        ctx = mapper(source.mapper_input(z[None]))
        images.append(normalize(encoder.encode_image(source(z[None]))[0]))
        prompts = [encoder.encode_prompts(ctx, label)[0] for label in ("photo", "zombie")]
        base = [encoder.encode_text([f"a photo of a {label}."])[0] for label in ("photo", "zombie")]
        sources.append(normalize(prompts[0] + base[0]))
        targets.append(normalize(prompts[1] + base[1]))
    logits = encoder.logit_scale * torch.stack(images) @ torch.stack(sources).T
    pairs = range(len(latents))
    rows = -sum(logits[i, i] - logits[i].logsumexp(dim=0) for i in pairs) / len(latents)
    columns = -sum(logits[i, i] - logits[:, i].logsumexp(dim=0) for i in pairs) / len(latents)
    target_term = sum(1 - t @ normalize(encoder.label_feature("zombie")) for t in targets) / len(latents)
    source_term = sum(1 - s @ normalize(encoder.label_feature("photo")) for s in sources) / len(latents)
    return (rows + columns) / 2 + domain_weight * (target_term + source_weight * source_term)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (2.0, 0.5)])
def test_stage_1_equals_its_naive_twin(tiny_generator: Path, encoder: Encoder, weights: tuple[float, float]) -> None:
    prompts = dataclasses.replace(PROMPTS, domain_weight=weights[0], source_weight=weights[1], lr=1e-9)
    context = make(tiny_generator, [encoder], options=IPLOptions(prompts))
    method = IPL(context)
    latents = context.fresh_latents.draw("prompts", 0, range(4)).latents
    loss = naive_prompt_loss(context, method, latents, *weights)
    twin = torch.autograd.grad(loss, list(method.mappers.parameters()))
    (stage,) = method.stages()
    assert stage.step(0)["loss"] == pytest.approx(loss.item(), abs=1e-5)
    for parameter, gradient in zip(method.mappers.parameters(), twin, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-7, rtol=1e-3)


def test_stage_1_learns(tiny_generator: Path, encoder: Encoder) -> None:
    context = make(tiny_generator, [encoder], options=IPLOptions(dataclasses.replace(PROMPTS, batch_size=8, lr=0.02)))
    (stage,) = IPL(context).stages()
    losses = [stage.step(step)["loss"] for step in range(25)]
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize("base_text", ["published", "label", "none"])
def test_ipl_directions(tiny_generator: Path, encoder: Encoder, base_text: Any) -> None:
    context = make(tiny_generator, [encoder], options=IPLOptions(dataclasses.replace(PROMPTS, base_text=base_text)))
    method = IPL(context)
    mapper_input = context.source.mapper_input(context.fresh_latents.draw("adapt", 0, range(3)).latents)
    (directions,) = method.text_directions([mapper_input], 0)
    texts = {
        "published": ("a photo of a", "a photo of a"),
        "label": ("a photo of a photo.", "a photo of a zombie."),
        "none": None,
    }[base_text]
    for row, direction in zip(mapper_input, directions, strict=True):
        ctx = method.mappers[0](row[None])
        ends = []
        for index, label in enumerate(("photo", "zombie")):
            feature = encoder.encode_prompts(ctx, label)[0]
            ends.append(normalize(feature if texts is None else feature + encoder.encode_text([texts[index]])[0]))
        torch.testing.assert_close(direction, normalize(ends[1] - ends[0]), atol=1e-5, rtol=1e-4)
    assert not directions.requires_grad


def test_each_encoder_has_its_own_mapper(tiny_generator: Path, encoder: Encoder) -> None:
    context = make(tiny_generator, [encoder, encoder], encoder_weights=(1.0, 0.5))
    method = IPL(context)
    assert len(method.mappers) == 2
    assert not torch.equal(method.mappers[0].layers[0].weight, method.mappers[1].layers[0].weight)
    mapper_input = context.source.mapper_input(context.fresh_latents.draw("adapt", 0, range(2)).latents)
    directions = method.text_directions([mapper_input, mapper_input], 0)
    assert [tuple(d.shape) for d in directions] == [(2, 24), (2, 24)]
    singles = []
    for index, weight in enumerate((1.0, 0.5)):
        single = make(tiny_generator, [encoder])
        alone = IPL(single)
        alone.mappers[0].load_state_dict(method.mappers[index].state_dict())
        singles.append(weight * alone.stages()[0].step(0)["loss"])
    assert method.stages()[0].step(0)["loss"] == pytest.approx(sum(singles), abs=1e-5)


def test_labels_that_are_too_long_are_refused_early(tiny_generator: Path, encoder: Encoder) -> None:
    with pytest.raises(ZeroshiftError, match="longer than the encoder's 24 tokens"):
        IPL(
            make(
                tiny_generator,
                [encoder],
                target="zombie " * 18,
                options=IPLOptions(PromptStage(num_context=8, base_text="none")),
            )
        )


def test_losses_that_are_not_finite() -> None:
    check_finite({"loss": 1.0}, "adapt", 0)
    with pytest.raises(ZeroshiftError, match="loss became nan at step 3 of stage 'adapt'"):
        check_finite({"loss": float("nan")}, "adapt", 2)


def test_mapper_input_of_a_generator_without_codes_is_the_image_feature(
    tiny_generator: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make(tiny_generator, [encoder])
    latents = context.fresh_latents.draw("adapt", 0, range(2)).latents
    (inputs,) = context.fresh_latents.batch(latents, "source", 0, range(2)).mapper_inputs
    assert torch.equal(inputs, context.source.mapper_input(latents))
    batch = context.fresh_latents.batch(latents, "source", 0, range(2))
    images = batch.images
    monkeypatch.setattr(type(context.source), "mapper_input", lambda *_: None)
    monkeypatch.setattr(context.source, "mapper_input_dim", None)
    (inputs,) = batch.mapper_inputs
    torch.testing.assert_close(inputs, normalize(encoder.encode_image(images)))
    assert context.mapper_input_dims == [encoder.embed_dim]
    (directions,) = IPL(context).text_directions([inputs], 0)
    assert directions.shape == (2, encoder.embed_dim)


def test_the_preview_of_the_prompt_stage_shows_how_likely_each_prompt_is(
    tiny_generator: Path, encoder: Encoder
) -> None:
    context = make(tiny_generator, [encoder])
    (stage,) = IPL(context).stages()
    found = stage.preview(3)
    assert found is not None
    tiles, columns = found
    assert (columns, tiles.shape) == (4, (16, 3, 16, 16))
    batch = context.fresh_latents.draw("preview", 0, range(3))
    torch.testing.assert_close(tiles[1:4], batch.images)
    torch.testing.assert_close(tiles[[4, 8, 12]], batch.images)
    cells = tiles.unflatten(0, (4, 4))[1:, 1:]
    assert (cells.amax(dim=(2, 3, 4)) == cells.amin(dim=(2, 3, 4))).all(), "one color each"
    torch.testing.assert_close(((1 - cells[..., 0, 0, 0]) / 2).sum(dim=1), torch.ones(3), msg="probabilities")
