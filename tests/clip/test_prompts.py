import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder
from zeroshift.clip.prompts import LatentMapper, PromptPair, base_texts


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path) -> Encoder:
    return load_encoder(str(tiny_encoder))


def test_mapper_is_the_published_network() -> None:
    mapper = LatentMapper(mapper_input_dim=20, num_context=3, width=8, seed=4)
    with torch.no_grad():
        for layer in mapper.layers:
            layer.bias.normal_()
    x = torch.randn(5, 20)
    out = mapper(x)
    assert out.shape == (5, 3, 8)
    x = x / (x.pow(2).mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for layer in mapper.layers:
        linear = F.linear(x, layer.weight * 0.01 / math.sqrt(layer.weight.shape[1]), layer.bias * 0.01)
        x = F.leaky_relu(linear, 0.2) * math.sqrt(2)
    torch.testing.assert_close(out, x.view(5, 3, 8))
    assert [tuple(layer.weight.shape) for layer in mapper.layers] == [(512, 20), (512, 512), (512, 512), (24, 512)]


def test_mapper_weights_follow_from_the_seed() -> None:
    first, again, other = (LatentMapper(8, 1, 4, seed).layers[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.detach().std()) == pytest.approx(100, rel=0.1)


def test_base_texts_follow_the_setting() -> None:
    assert base_texts("published", "a photo of a", "dog") == ("a photo of a dog.", "a photo of a")
    assert base_texts("label", "an image of a", "dog") == ("an image of a dog.",) * 2
    assert base_texts("none", "a photo of a", "dog") == (None, None)


def test_surplus_tokens_belong_to_both_prompts(encoder: Encoder) -> None:
    ctx = torch.randn(3, 2, encoder.width)
    features = PromptPair(encoder, "photo", "zombie", None, None, "a photo of a").learned(ctx)
    for feature, label in zip(features, ("photo", "zombie"), strict=True):
        torch.testing.assert_close(feature, encoder.encode_prompts(ctx, f"of a {label}"))


def test_one_batched_call_equals_two_separate_ones(encoder: Encoder) -> None:
    pair = PromptPair(encoder, "photo", "very old zombie", "a photo", None)
    ctx = torch.randn(3, 2, encoder.width)
    calls: list[int] = []
    handle = encoder.model.transformer.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    source, target = pair.learned(ctx)
    handle.remove()
    assert calls == [6]
    torch.testing.assert_close(source, encoder.encode_prompts(ctx, "photo"))
    torch.testing.assert_close(target, encoder.encode_prompts(ctx, "very old zombie"))
    with_source, with_target = pair.with_base(source, target)
    torch.testing.assert_close(with_source, source + encoder.encode_text(["a photo"]))
    assert torch.equal(with_target, target)
