"""Bridges from texts to images: regression, mentions, captions, predictions, files."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from zeroshift.clip.bridge import (
    BRIDGES,
    Bridge,
    LinearMap,
    caption_pairs,
    count_mentions,
    fit_bridge,
    load_bridge,
    packaged_bridge,
    ridge,
    save_bridge,
    shift_map,
)
from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder
from zeroshift.errors import ZeroshiftError
from zeroshift.miniature.world.captions import attributes
from zeroshift.miniature.world.domains import DOMAINS, SOURCE, parse_domain
from zeroshift.miniature.world.renderer import render, sample_latents

ATTRIBUTES = {"hair": ("with long hair", "with short hair"), "hat": ("in a hat",), "glasses": ("with round glasses",)}


@pytest.fixture(scope="module")
def packaged() -> Bridge:
    bridge = packaged_bridge("miniature")
    assert bridge is not None
    return bridge


@pytest.fixture(scope="module")
def miniature() -> Encoder:
    return load_encoder("miniature")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("strength", [1e-6, 0.3])
def test_ridge_minimizes_the_penalized_error(strength: float) -> None:
    """Against ordinary least squares with rows that stand for the penalty."""
    x, y = noise(50, 4), noise(50, 3, seed=1) + 5
    found = ridge(x, y, strength)
    centered, target = x - x.mean(dim=0), y - y.mean(dim=0)
    penalty = (strength * centered.square().mean() * len(x)) ** 0.5
    rows = torch.cat([centered, penalty * torch.eye(4)])
    expected = torch.linalg.lstsq(rows, torch.cat([target, torch.zeros(4, 3)])).solution
    torch.testing.assert_close(found.weight, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found(x).mean(dim=0), y.mean(dim=0))


def test_mentions_are_counted_by_word_with_further_adjectives_in_between() -> None:
    captions = [
        "a zombie with long wavy brown hair",
        "a zombie with a slim face, short hair and round glasses",
        "an elf with a long face and brown hair, in a hat",
        "an elf wearing a hat",
    ]
    found = count_mentions(captions, ATTRIBUTES)
    assert found[""].captions == 4
    assert found[""].attributes == {"hair": 2, "hat": 2, "glasses": 1}
    assert found["zombie"].captions == 2
    assert found["zombie"].attributes == {"hair": 2, "hat": 0, "glasses": 1}
    assert found["elf"].attributes == {"hair": 0, "hat": 2, "glasses": 0}, "a long face is no long hair"


def test_what_captions_of_a_word_never_say_is_left_out() -> None:
    said = ["a photo, with long hair, in a hat"] * 300 + ["a statue, in a hat"] * 60 + ["a robot, in a hat"] * 40
    mentions = count_mentions(said, ATTRIBUTES)
    bridge = Bridge(LinearMap(torch.eye(2), torch.zeros(2)), ATTRIBUTES, mentions, torch.zeros(3, 2), 0.5)
    assert bridge.described("statue") == {"hat", "glasses"}
    assert bridge.described("Statue of a photo") == {"hat", "glasses"}
    assert bridge.described("robot") == set(ATTRIBUTES), "40 captions are too few to conclude anything"
    assert bridge.described("dragon") == set(ATTRIBUTES)


def test_captions_of_the_embedded_encoder_tell_what_is_visible_in_each_domain(packaged: Bridge) -> None:
    """In pairs that no encoder saw, too: what captions of the medium or of the being do not say."""
    known = set(attributes())
    for domain in DOMAINS:
        assert packaged.described(domain.label) == known & set(domain.visible), domain.label


def test_pairs_of_captions_differ_in_the_label_and_in_what_is_not_said_of_the_target(packaged: Bridge) -> None:
    sources, targets = caption_pairs(packaged, "photo", "marble statue", 200)
    assert (sources, targets) == caption_pairs(packaged, "photo", "marble statue", 200)
    for source, target in zip(sources, targets, strict=True):
        said, kept = source.split(", "), target.split(", ")
        assert (said[0], kept[0]) == ("a photo", "a marble statue")
        assert 3 <= len(said) - 1 <= 7
        assert [phrase for phrase in said[1:] if phrase in kept] == kept[1:]
    text = " ".join(targets)
    assert "glasses" in text
    assert "skin" in " ".join(sources)
    assert "skin" not in text
    assert caption_pairs(packaged, "photo", "alien", 1)[1][0].startswith("an alien")


@pytest.mark.parametrize(
    ("target", "whole", "own"),
    [("zombie", 0.92, 0.3), ("marble statue", 0.93, 0.75), ("mosaic of a robot", 0.93, 0.65)],
)
def test_the_predicted_shift_is_close_to_the_true_one(
    packaged: Bridge, miniature: Encoder, target: str, whole: float, own: float
) -> None:
    """A text direction has a cosine of 0.65 to 0.8 with the mean true shift, and no part of the person's own."""
    latents, people = sample_latents(401, range(64)), range(64)
    with torch.no_grad():
        before, after = (
            F.normalize(miniature.encode_image(render(latents, domain, 401, people)), dim=-1)
            for domain in (SOURCE, parse_domain(target))
        )
    true, predicted = after - before, shift_map(packaged, miniature, "photo", target, 2000)(before)
    assert F.cosine_similarity(true, predicted).mean() > whole
    assert F.cosine_similarity(true.mean(dim=0), predicted.mean(dim=0), dim=0) > 0.97
    single = F.cosine_similarity(true - true.mean(dim=0), predicted - predicted.mean(dim=0))
    assert single.mean() > own


def test_a_fit_finds_the_map_and_measures_it_on_other_images(tiny_encoder: Path) -> None:
    encoder = load_encoder(str(tiny_encoder))
    words = ("zombie", "elf", "sketch", "person", "photo", "picture")
    captions = [f"a {words[i % 6]} of the {words[i // 6 % 6]} {words[i // 36]}" for i in range(216)]
    looks = noise(6, 3, 16, 16)
    images = torch.stack([sum(looks[words.index(word)] for word in c.split() if word in words) for c in captions])
    batches = [(images[i : i + 20].clamp(-1, 1), captions[i : i + 20]) for i in range(0, 216, 20)]
    bridge = fit_bridge(encoder, batches, ATTRIBUTES)
    assert 0.3 < bridge.explained < 1
    shuffled = fit_bridge(encoder, [(batch.flip(0), texts) for batch, texts in batches], ATTRIBUTES)
    assert shuffled.explained < bridge.explained - 0.2
    with pytest.raises(ZeroshiftError, match=r"20 captioned images are too few .* Give at least 96"):
        fit_bridge(encoder, batches[:1], ATTRIBUTES)
    with pytest.raises(ZeroshiftError, match="no difference between the images"):
        fit_bridge(encoder, [(torch.zeros_like(batch), texts) for batch, texts in batches], ATTRIBUTES)


def test_long_captions_are_shortened_to_the_context(tiny_encoder: Path) -> None:
    encoder = load_encoder(str(tiny_encoder))
    long = " ".join(["zombie"] * 60)
    short = encoder.shortened(long)
    assert encoder.shortened("a zombie") == "a zombie"
    assert len(short.split()) == encoder.context_length - 2, "all but the marks of start and end"
    encoder.encode_text([short])
    with pytest.raises(ZeroshiftError, match="longer than the encoder"):
        encoder.encode_text([f"{short} zombie"])


def test_a_file_holds_the_whole_bridge(packaged: Bridge, tmp_path: Path) -> None:
    path = tmp_path / "bridge.safetensors"
    save_bridge(packaged, path)
    read = load_bridge(path)
    assert read.attributes == packaged.attributes
    assert read.mentions == packaged.mentions
    assert read.explained == packaged.explained
    for one, other in zip((*read.map, read.probes), (*packaged.map, packaged.probes), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributes": None}, "is not a bridge"),
        ({"attributes": "[1]"}, "metadata of"),
        ({"attributes": '{"a": ["b"], "c": ["d"], "e": ["f"]}'}, "do not match its attributes"),
        ({"attributes": '{"a": [], "c": ["d"], "e": ["f"]}'}, "metadata of"),
        ({"attributes": '{"a": [" "], "c": ["d"], "e": ["f"]}'}, "metadata of"),
        ({"mentions": '{"": {"captions": 0, "attributes": {}}}'}, "metadata of"),
        ({"mentions": "{}"}, "do not match its attributes"),
        ({"explained": '"much"'}, "is no number"),
        ({"weight": torch.zeros(3, 128)}, "is not a bridge"),
        ({"bias": torch.full((128,), float("nan"))}, "not finite"),
    ],
)
def test_damaged_files_are_refused(packaged: Bridge, tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "bridge.safetensors"
    save_bridge(packaged, path)
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    metadata = {key: value for key, value in header["__metadata__"].items() if key != "sha256"}
    tensors = load_file(path)
    for name, value in change.items():
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        elif value is None:
            del metadata[name]
        else:
            metadata[name] = str(value)
    save_file(tensors, path, metadata)
    with pytest.raises(ZeroshiftError, match=message):
        load_bridge(path)


def test_a_bridge_of_another_encoder_is_refused(packaged: Bridge, miniature: Encoder, tiny_encoder: Path) -> None:
    packaged.require_encoder(miniature, "miniature")
    with pytest.raises(ZeroshiftError, match="fitted for another encoder than tiny"):
        packaged.require_encoder(load_encoder(str(tiny_encoder)), "tiny")
    turned = dataclasses.replace(packaged, probes=packaged.probes.flip(1))
    with pytest.raises(ZeroshiftError, match="fitted for another encoder"):
        turned.require_encoder(miniature, "miniature")


def test_encoders_ship_their_bridges_by_name() -> None:
    assert list(BRIDGES) == ["miniature"]
    assert packaged_bridge("ViT-B-32-quickgelu/openai") is None
