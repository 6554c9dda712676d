"""Compass: its directions against a naive twin, mixtures, and errors."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.adaptations import perturbed
from zeroshift.clip.bridge import Bridge, LinearMap, count_mentions, save_bridge, shift_map
from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.core.distributed import Distributed
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.io.images import save_png, to_uint8
from zeroshift.methods.base import Pairs
from zeroshift.methods.compass import Compass, CompassOptions
from zeroshift.methods.configure import preset, resolve
from zeroshift.methods.context import TrainingContext
from zeroshift.training.adaptation import Adaptation

ADAPT = AdaptStage(
    steps=3, batch_size=4, layers=("all",), noise_mode="const", augmentations=2, clamp_images=True, range_weight=5.0
)
ATTRIBUTES = {"hair": ("long hair", "short hair"), "hat": ("a hat",), "glasses": ("glasses",)}


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path) -> Encoder:
    return load_encoder(str(tiny_encoder))


@pytest.fixture(scope="module")
def bridge(encoder: Encoder) -> Bridge:
    """A bridge with a random map."""
    draw = torch.Generator().manual_seed(0)
    size = encoder.embed_dim
    probes = F.normalize(encoder.encode_text(["a photo", "a person with long hair", "a pencil sketch"]), dim=-1)
    linear = LinearMap(torch.randn(size, size, generator=draw), torch.randn(size, generator=draw))
    return Bridge(linear, ATTRIBUTES, count_mentions(["a photo, long hair"], ATTRIBUTES), probes, 0.5)


@pytest.fixture(scope="module")
def bridge_file(bridge: Bridge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bridge") / "bridge.safetensors"
    save_bridge(bridge, path)
    return path


def make(generator: Path, encoders: list[Encoder], bridges: tuple[str, ...], **changes: Any) -> TrainingContext:
    names = {field.name for field in dataclasses.fields(CompassOptions)}
    options = {name: changes.pop(name) for name in list(changes) if name in names}
    config = AdaptConfig(
        **{
            "target": "zombie", "method": "compass", "adapt": ADAPT, "encoders": ("tiny",) * len(encoders),
            "options": CompassOptions(bridges=bridges, captions=200, **options), **changes,
        }
    )  # fmt: skip
    source = load_generator(str(generator)).requires_grad_(False)
    return TrainingContext(resolve(config), source, encoders, Distributed("cpu"))


def trained(context: TrainingContext) -> Adaptation:
    return perturbed(Compass(context))


def naive_directions(features: Tensor, predict: LinearMap, copies: int, text: Tensor) -> Tensor:
    """The directions with loops over images and copies."""
    count = len(features) // copies
    directions = []
    for i in range(count):
        rows = [features[copy * count + i] for copy in range(copies)]
        shift = torch.stack([row / row.norm() @ predict.weight + predict.bias for row in rows]).mean(dim=0)
        mixed = shift / shift.norm() + 0.5 * text / text.norm()
        directions.append(mixed / mixed.norm())
    return torch.stack(directions)


def test_directions_are_those_of_predicted_shifts_of_each_image(
    tiny_generator: Path, encoder: Encoder, bridge: Bridge, bridge_file: Path
) -> None:
    context = make(tiny_generator, [encoder, encoder], (str(bridge_file),) * 2)
    adaptation = trained(context)
    part = adaptation._source_part(context.fresh_latents.draw("adapt", 0, range(4), noise="source"), 0)
    predict = shift_map(bridge, encoder, "photo", "zombie", 200)
    text = encoder.label_feature("zombie") - encoder.label_feature("photo")
    for features, directions in zip(part.source_features, part.text_directions, strict=True):
        assert len(features) == 8
        torch.testing.assert_close(directions, naive_directions(features, predict, 2, text))
    assert (part.text_directions[0][0] - part.text_directions[0][1]).norm() > 1e-3, "each image has its own"


def test_a_step_logs_the_terms_and_the_directions(tiny_generator: Path, encoder: Encoder, bridge_file: Path) -> None:
    context = make(tiny_generator, [encoder], (str(bridge_file),))
    adaptation = trained(context)
    update = adaptation.update(context.fresh_latents.draw("adapt", 0, range(4), noise="source"), None, 0)
    assert {"directional", "structure", "range"} < set(update.losses)
    assert update.text_directions[0].shape == (4, encoder.embed_dim)


def images_of(features: Tensor, copies: int) -> list[Tensor]:
    """The mean over copies of unit features, with loops."""
    count = len(features) // copies
    rows = [row / row.norm() for row in features]
    return [torch.stack([rows[copy * count + i] for copy in range(copies)]).mean(dim=0) for i in range(count)]


def naive_people(sources: list[Tensor], targets: list[Tensor], predict: LinearMap) -> Tensor:
    """The people loss of the last step, with two copies; the mean images are those of all goals and targets before."""
    goals, images, weights = [], [], []
    for age, (source, target) in enumerate(zip(reversed(sources[:-1]), reversed(targets[:-1]), strict=True)):
        for before, after in zip(images_of(source, 2), images_of(target, 2), strict=True):
            goals.append(0.9**age * (before + before @ predict.weight + predict.bias))
            images.append(0.9**age * after)
            weights.append(0.9**age)
    mean_goal, mean_image = (torch.stack(rows).sum(dim=0) / sum(weights) for rows in (goals, images))
    losses = []
    for before, after in zip(images_of(sources[-1], 2), images_of(targets[-1], 2), strict=True):
        own, wanted = after - mean_image, before + before @ predict.weight + predict.bias - mean_goal
        losses.append(1 - own @ wanted / (own.norm() * wanted.norm()))
    return torch.stack(losses).mean()


def test_the_people_loss_compares_the_differences_between_images(
    tiny_generator: Path, encoder: Encoder, bridge: Bridge, bridge_file: Path
) -> None:
    changes = {"people_weight": 0.4, "structure_weight": 0.0, "structure_hold": 0.0, "encoder_weights": (2.0,)}
    context = make(tiny_generator, [encoder], (str(bridge_file),), **changes)
    method, predict = Compass(context), shift_map(bridge, encoder, "photo", "zombie", 200)
    draw = torch.Generator().manual_seed(0)
    sources = [torch.randn(6, encoder.embed_dim, generator=draw) for _ in range(4)]
    targets = [torch.randn(6, encoder.embed_dim, generator=draw).requires_grad_() for _ in range(4)]
    image = torch.zeros(3, 3, 4, 4)
    for step, (source, target) in enumerate(zip(sources, targets, strict=True)):
        method.begin_step(step, context.source)
        pairs = Pairs(step, range(3), [], image, image, [source], [target], [[]], [[]], lambda _: [])
        loss = method.extra_losses(pairs)["people"]
        if step == 0:
            assert loss == 0, "no mean image is known"
    expected = (
        0.4
        * context.config.weights[0]
        * naive_people(sources, [t.detach() for t in targets[:3]] + targets[3:], predict)
    )
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    (gradient,), (naive,) = (torch.autograd.grad(each, targets[-1]) for each in (loss, expected))
    assert naive.abs().max() > 1e-3
    torch.testing.assert_close(gradient, naive, rtol=1e-3, atol=1e-6)
    restored = Compass(context)
    restored.load_state_dict(method.state_dict())
    for each in (method, restored):
        each.begin_step(4, context.source)
    assert torch.equal(restored.means()[0], method.means()[0])


def test_further_texts_and_example_images_take_their_share(
    tiny_generator: Path, encoder: Encoder, bridge: Bridge, bridge_file: Path, tmp_path: Path
) -> None:
    files = (str(bridge_file),)
    features = [torch.randn(8, encoder.embed_dim, generator=torch.Generator().manual_seed(1))]
    zombie, elf = (
        shift_map(bridge, encoder, "photo", text, 200)(F.normalize(features[0], dim=-1))
        .unflatten(0, (2, -1)).mean(dim=0)
        for text in ("zombie", "elf")
    )  # fmt: skip
    mixed = Compass(make(tiny_generator, [encoder], files, target_texts=("elf=3",)))
    torch.testing.assert_close(mixed.shifts(features)[0], 0.25 * zombie + 0.75 * elf, rtol=1e-4, atol=1e-5)

    picture = tmp_path / "example.png"
    save_png(picture, to_uint8(torch.linspace(-1, 1, 16).expand(1, 3, 16, 16).sign())[0])
    context = make(tiny_generator, [encoder], files, target_images=(str(picture),), image_weight=0.4)
    with_image = Compass(context)
    (example,) = with_image.target_domain.example_shifts()
    torch.testing.assert_close(with_image.shifts(features)[0], 0.6 * zombie + 0.4 * example, rtol=1e-4, atol=1e-5)


def test_missing_and_wrong_bridges_are_refused(tiny_generator: Path, encoder: Encoder, bridge_file: Path) -> None:
    with pytest.raises(ZeroshiftError, match=r"tiny ships no bridge .*zeroshift bridge --encoder tiny"):
        Compass(make(tiny_generator, [encoder], ()))
    with pytest.raises(ZeroshiftError, match="bridges names 2 files for 1 encoder"):
        Compass(make(tiny_generator, [encoder], (str(bridge_file),) * 2))
    with pytest.raises(ZeroshiftError, match="text_weight is -1"):
        CompassOptions(text_weight=-1.0).validate()
    with pytest.raises(ZeroshiftError, match="people_weight is -1"):
        CompassOptions(people_weight=-1.0).validate()
    with pytest.raises(ZeroshiftError, match="captions is 5"):
        CompassOptions(captions=5).validate()
    with pytest.raises(ZeroshiftError, match="structure_weight is -1"):
        CompassOptions(structure_weight=-1.0).validate()


def test_presets_train_all_layers_with_images_in_range() -> None:
    for name in ("published", "standard", "published-diffusion", "diffusion", "miniature", "miniature-diffusion"):
        adapt = preset(name, "zombie", method="compass").adapt
        assert adapt.layers == ("all",)
        assert (adapt.clamp_images, adapt.range_weight) == (True, 5.0)
