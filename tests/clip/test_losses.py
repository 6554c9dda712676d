import math

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.clip.losses import (
    clamp_images,
    contrastive,
    directional,
    domain_regularization,
    global_similarity,
    normalize,
    offset,
    out_of_range,
)


def features(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.norm() * b.norm())


def same_gradients(ours: Tensor, twin: Tensor, inputs: list[Tensor]) -> None:
    assert ours.item() == pytest.approx(twin.item(), abs=1e-6)
    for a, b in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(twin, inputs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_directional_is_the_mean_over_pairs() -> None:
    source, target, text = features(5), features(5, 1), normalize(features(5, 2)).detach()
    terms = [
        1 - cosine(t / t.norm() - s / s.norm(), direction) for s, t, direction in zip(source, target, text, strict=True)
    ]
    same_gradients(directional(source, target, text), sum(terms) / 5, [source, target])
    shared = torch.stack(
        [1 - cosine(t / t.norm() - s / s.norm(), text[0]) for s, t in zip(source, target, strict=True)]
    )
    same_gradients(directional(source, target, text[:1]), shared.mean(), [source, target])


def test_directional_has_a_finite_gradient_for_equal_images() -> None:
    source = normalize(features(3)).detach()
    target = source.clone().requires_grad_()
    text = normalize(features(3, 1)).detach()
    loss = directional(source, target, text)
    assert loss.item() == 1
    (gradient,) = torch.autograd.grad(loss, target)
    # toward the text, along the sphere, as steep as from a pair at distance 0.1; 3: the mean over pairs
    tangent = text - (text * source).sum(dim=1, keepdim=True) * source
    torch.testing.assert_close(gradient, -tangent / 0.1 / 3)


def test_offset_is_a_unit_vector_for_close_images() -> None:
    source = features(4).detach()
    near = source + 1e-2 * features(4, 1).detach()
    torch.testing.assert_close(offset(source, near).norm(dim=1), torch.ones(4))


def test_contrastive_is_clips_loss() -> None:
    images, texts = features(6), features(6, 1)
    twin = open_clip.ClipLoss()(F.normalize(images, dim=-1), F.normalize(texts, dim=-1), torch.tensor(20.0))
    same_gradients(contrastive(images, texts, 20.0), twin, [images, texts])
    assert contrastive(images, texts, 0.0).item() == pytest.approx(math.log(6))


def test_domain_regularization_is_the_mean_cosine_distance() -> None:
    prompts, label = features(4), features(1, 1)[0].detach()
    same_gradients(domain_regularization(prompts, label), sum(1 - cosine(p, label) for p in prompts) / 4, [prompts])


def test_global_similarity_is_the_mean_over_images() -> None:
    images, label = features(4), features(1, 1)[0].detach()
    twin = sum(1 - 20 * cosine(image, label) / 100 for image in images) / 4
    same_gradients(global_similarity(images, label, 20.0), twin, [images])


def test_clamped_images_have_a_gradient_back_into_the_range_only() -> None:
    images = torch.tensor([-1.5, -1.5, -0.5, 0.5, 1.0, 1.5, 1.5], requires_grad=True)
    clamped = clamp_images(images)
    assert clamped.tolist() == [-1, -1, -0.5, 0.5, 1, 1, 1]
    slopes = torch.tensor([-1.0, 1.0, -1.0, 1.0, 1.0, 1.0, -1.0])  # a descent step has the opposite sign
    (gradient,) = torch.autograd.grad(clamped, images, slopes)
    assert gradient.tolist() == [-1, 0, -1, 1, 1, 1, 0]


def test_the_range_loss_is_the_mean_squared_excess() -> None:
    images = torch.tensor([[-2.0, -1.0, 0.0, 1.5]], requires_grad=True)
    loss = out_of_range(images)
    assert loss.item() == pytest.approx((1 + 0.25) / 4)
    assert torch.autograd.grad(loss, images)[0].tolist() == [[-0.5, 0, 0, 0.25]]
