"""Targets from several texts and from example images, against their equations."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.core.distributed import Distributed
from zeroshift.core.rng import normal
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.truth import load_truth
from zeroshift.generators.checkpoints.catalogue import find_entry
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.io.images import save_png, to_uint8
from zeroshift.methods.air import AIR, AIROptions
from zeroshift.methods.base import Method
from zeroshift.methods.configure import preset, resolve
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.ipl import IPL, IPLOptions, PromptStage
from zeroshift.methods.nada import NADA
from zeroshift.methods.registry import METHODS
from zeroshift.methods.source_images import ImageBank
from zeroshift.methods.svl import SVL, SVLOptions
from zeroshift.training.adaptation import Adaptation

COLORS = ((255, 0, 0), (200, 30, 0))
CONFIG = AdaptConfig(
    target="zombie", options=IPLOptions(PromptStage(steps=3, batch_size=4, num_context=2)),
    adapt=AdaptStage(steps=4, batch_size=4, noise_mode="const", layers=("all",)),
)  # fmt: skip
Make = Callable[..., TrainingContext]


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path) -> Encoder:
    return load_encoder(str(tiny_encoder))


@pytest.fixture
def make(tiny_generator: Path, encoder: Encoder) -> Make:
    def make(**changes: Any) -> TrainingContext:
        config = dataclasses.replace(CONFIG, **changes)
        if config.method != "ipl" and "options" not in changes:
            config = dataclasses.replace(config, options=METHODS[config.method].Options())
        source = load_generator(str(tiny_generator)).requires_grad_(False)
        return TrainingContext(resolve(config), source, [encoder], Distributed("cpu"))

    return make


@pytest.fixture
def paths(tmp_path: Path) -> tuple[str, ...]:
    for index, color in enumerate(COLORS):
        Image.new("RGB", (20 + index, 30), color).save(tmp_path / f"{index}.png")
    return tuple(str(tmp_path / f"{index}.png") for index in range(len(COLORS)))


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def text_direction(encoder: Encoder, text: str) -> Tensor:
    return unit(encoder.label_feature(text) - encoder.label_feature("photo"))


def image_direction(context: TrainingContext) -> tuple[Tensor, Tensor]:
    """Direction to the example images and their mean unit feature: NADA's few-shot direction, written plainly."""
    encoder = context.encoders[0]
    images = [torch.tensor(color).view(1, 3, 1, 1).expand(1, 3, 16, 16) / 127.5 - 1 for color in COLORS]
    target = torch.cat([unit(encoder.encode_image(image)) for image in images]).mean(dim=0)
    latents = torch.cat(
        [normal(context.source.latent_shape, 0, "source images", 0, samples=[sample]) for sample in range(64)]
    )
    source = unit(encoder.encode_image(context.source(latents))).mean(dim=0)
    return unit(target - source), target


def directions(method: Method, inputs: Tensor) -> Tensor:
    return method.target_domain.move(method.text_directions([inputs], 0))[0]


def test_one_label_changes_nothing(make: Make, encoder: Encoder) -> None:
    method = NADA(make(method="nada"))
    (direction,) = method.text_directions([torch.zeros(3, 16)], 0)
    assert method.target_domain.move([direction])[0] is direction
    torch.testing.assert_close(method.targets[0], encoder.encode_text(["zombie"])[0])


def test_example_images_replace_the_label(make: Make, paths: tuple[str, ...]) -> None:
    context = make(method="nada", target_images=paths)
    method = NADA(context)
    expected, mean = image_direction(context)
    torch.testing.assert_close(directions(method, torch.zeros(3, 16)), expected[None], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(method.targets[0], mean, atol=1e-5, rtol=1e-4)


def test_images_and_weighted_texts_are_mixed(make: Make, encoder: Encoder, paths: tuple[str, ...]) -> None:
    context = make(method="nada", target_images=paths, image_weight=0.25, target_texts=("robot=0.5", "a=b"))
    texts = {"zombie": 1.0, "robot": 0.5, "a=b": 1.0}
    assert context.config.weighted_texts == texts
    image, mean = image_direction(context)
    text = unit(sum((w * text_direction(encoder, t) for t, w in texts.items()), torch.zeros(())) / 2.5)
    method = NADA(context)
    expected = unit(0.75 * text + 0.25 * image)
    torch.testing.assert_close(directions(method, torch.zeros(3, 16)), expected[None], atol=1e-5, rtol=1e-4)
    features = sum((w * unit(encoder.encode_text([t])[0]) for t, w in texts.items()), torch.zeros(())) / 2.5
    torch.testing.assert_close(method.targets[0], 0.75 * unit(features) + 0.25 * mean, atol=1e-5, rtol=1e-4)


def test_a_text_that_is_the_label_adds_to_its_weight(make: Make) -> None:
    config = make(target_texts=("zombie=2", "robot")).config
    assert config.weighted_texts == {"zombie": 3.0, "robot": 1.0}


def test_prompts_keep_what_is_specific_to_an_image(make: Make, encoder: Encoder, paths: tuple[str, ...]) -> None:
    """IPL: d' = normalize(d + D_images - D_label) for each image's own direction d."""
    context = make(target_images=paths)
    method = IPL(context)
    inputs = torch.randn(3, 16)
    (own,) = method.text_directions([inputs], 0)
    image, _ = image_direction(context)
    expected = unit(own + image - text_direction(encoder, "zombie"))
    torch.testing.assert_close(directions(method, inputs), expected, atol=1e-5, rtol=1e-4)
    assert (expected.std(dim=0) > 0).any()


def test_the_adapt_stage_follows_the_mixture(make: Make, paths: tuple[str, ...]) -> None:
    context = make(method="nada", target_images=paths)
    method = NADA(context)
    stage = Adaptation(context, method)
    update = stage.update(context.source_images.draw("adapt", 0, range(4)), None, 0)
    torch.testing.assert_close(update.text_directions[0], image_direction(context)[0][None], atol=1e-5, rtol=1e-4)


def test_anchors_and_variations_follow_the_mixture(make: Make, encoder: Encoder) -> None:
    texts = ("robot",)
    air = AIR(make(method="air", target_texts=texts, options=AIROptions(anchor_samples=4, prompt_steps=1)))
    source, target = air._labels[0]
    goal = unit(text_direction(encoder, "zombie") + text_direction(encoder, "robot"))
    torch.testing.assert_close(unit(target - source), goal, atol=1e-5, rtol=1e-4)
    length = (encoder.label_feature("zombie") - source).norm()
    torch.testing.assert_close((target - source).norm(), length, atol=1e-5, rtol=1e-4)

    options = SVLOptions(variation_steps=5, fisher_samples=2)
    plain, mixed = (SVL(make(method="svl", options=options, target_texts=some)) for some in ((), texts))
    context = mixed.context
    stage = Adaptation(context, mixed)
    batch = context.source_images.draw("adapt", 0, range(4))
    losses = stage.update(batch, None, 0).losses
    others = Adaptation(plain.context, plain).update(batch, None, 0).losses
    assert losses["moment"] != others["moment"]


def test_an_image_bank_is_the_source_of_examples(make: Make, encoder: Encoder, paths: tuple[str, ...]) -> None:
    """The bank's features in any number of processes, also from a bank that is smaller than a batch of samples."""
    context = make(method="nada", target_images=paths)
    latents = normal(context.source.latent_shape, 0, "bank", samples=range(6))
    found = []
    for processes in (1, 2):
        bank = ImageBank.of_latents(context.source, latents, None, [encoder], 0, processes)
        found.append(directions(NADA(dataclasses.replace(context, image_bank=bank)), torch.zeros(1, 16)))
    _, mean = image_direction(context)
    source = unit(encoder.encode_image(context.source(latents))).mean(dim=0)
    torch.testing.assert_close(found[0], unit(mean - source)[None], atol=1e-5, rtol=1e-4)
    assert torch.equal(*found)


@pytest.mark.slow
def test_example_images_of_the_source_domain_are_refused(tmp_path: Path) -> None:
    """Three samples of the source are as far from its mean as chance takes them; another domain is farther away."""
    source = load_generator("miniature").requires_grad_(False)
    encoder = load_encoder("miniature")
    paths = tuple(str(tmp_path / f"{index}.png") for index in range(3))
    config = resolve(preset("miniature", "zombie", method="nada", target_images=paths))
    context = TrainingContext(config, source, [encoder], Distributed("cpu"))
    truth = load_truth(find_entry("miniature"))
    assert truth is not None

    def judge(domain: str) -> None:
        references = truth.references(domain, 3, 0)
        assert references is not None
        for path, pixels in zip(paths, to_uint8(torch.stack(list(references))), strict=True):
            save_png(path, pixels)
        NADA(context)

    judge("zombie")
    with pytest.raises(ZeroshiftError, match=r"the 3 example images is 0\.\d+ long, [01]\.\d+ standard errors"):
        judge("photo")


def test_labels_are_not_read_if_images_alone_give_the_direction() -> None:
    config = resolve(preset("miniature", "zombie", method="nada"))
    assert NADA.reads_labels(config)
    images = dataclasses.replace(config, target_images=("a.png",))
    assert not NADA.reads_labels(images)
    assert NADA.reads_labels(dataclasses.replace(images, image_weight=0.5))
    assert IPL.reads_labels(images)
    assert AIR.reads_labels(images)


def test_invalid_target_images_are_refused(make: Make, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    for name, sentence in (("text.png", "text.png cannot be read"), ("missing.png", "There is no image .*missing.png")):
        for method in ("nada", "ipl"):
            with pytest.raises(ZeroshiftError, match=sentence):
                METHODS[method](make(method=method, target_images=(str(tmp_path / name),)))
