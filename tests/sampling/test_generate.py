import copy
import inspect
from collections.abc import Callable, Iterable

import pytest
import torch

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator, blend_weights
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.sampling.film import walk
from zeroshift.sampling.generate import class_labels, generate, render_batches


def all_of(batches: Iterable[list[torch.Tensor]]) -> list[torch.Tensor]:
    return [torch.cat(images) for images in zip(*batches, strict=True)]


def test_source_and_target_share_their_latents(source: Generator, target: Generator) -> None:
    before, after = all_of(generate([source, target], 3, seed=5, truncation_psi=0.5))
    latents = source.sample_latents(5, range(3))
    with torch.no_grad():
        assert torch.allclose(before, source(latents, truncation_psi=0.5), atol=1e-5)
        assert torch.allclose(after, target(latents, truncation_psi=0.5), atol=1e-5)
    assert (before - after).abs().mean() > 0.05


def test_samples_depend_on_seed_and_number_alone(source: Generator) -> None:
    (whole,) = all_of(generate([source], 5, seed=1, truncation_psi=1.0, batch_size=5))
    (split,) = all_of(generate([source], 3, seed=1, truncation_psi=1.0, batch_size=2))
    (other,) = all_of(generate([source], 3, seed=2, truncation_psi=1.0))
    assert torch.allclose(whole[:3], split, atol=1e-5)
    assert (whole[:3] - other).abs().mean() > 0.05


@pytest.mark.parametrize("function", [generate, render_batches, walk])
def test_truncation_is_always_explicit(function: Callable[..., object]) -> None:
    """These functions have no run, whose setting is the default elsewhere."""
    assert inspect.signature(function).parameters["truncation_psi"].default is inspect.Parameter.empty


def test_blend_passes_through_source_and_targets(source: Generator, target: Generator) -> None:
    third = copy.deepcopy(source)
    with torch.no_grad():
        for parameter in third.parameters():
            parameter.mul_(0.9)
    kept = copy.deepcopy(source.state_dict())
    for amounts, expected in (((0, 0), source), ((1, 0), target), ((0, 1), third)):
        blended = blend_weights(source, [target, third], amounts).state_dict()
        for name, weight in expected.state_dict().items():
            assert torch.allclose(blended[name], weight, atol=1e-5), name
    half = blend_weights(source, [target, third], (0.25, 0.5)).state_dict()
    for name, weight in source.state_dict().items():
        naive = 0.25 * weight + 0.25 * target.state_dict()[name] + 0.5 * third.state_dict()[name]
        assert torch.allclose(half[name], naive, atol=1e-5), name
        assert torch.equal(weight, kept[name]), "the source itself must not change"


def test_blend_refuses_other_architectures(source: Generator) -> None:
    other = StyleGAN2(resolution=8, z_dim=16, w_dim=16, mapping_layers=2, channels={4: 16, 8: 16})
    with pytest.raises(ZeroshiftError, match="same architecture and size"):
        blend_weights(source, [other], [1.0])


def test_classes() -> None:
    generator = StyleGAN2(resolution=8, z_dim=8, w_dim=8, num_classes=3, mapping_layers=2, channels={4: 8, 8: 8})
    first, second = (all_of(generate([generator], 2, truncation_psi=0.7, class_index=index))[0] for index in (0, 1))
    assert (first - second).abs().max() > 1e-3
    for index, sentence in ((None, "has 3 classes. Choose"), (3, "no class 3"), (-1, "no class -1")):
        with pytest.raises(ZeroshiftError, match=sentence):
            class_labels(generator, index, 1)


def test_class_for_an_unconditional_generator(source: Generator) -> None:
    assert class_labels(source, None, 2) is None
    with pytest.raises(ZeroshiftError, match=r"no classes\. Leave out"):
        class_labels(source, 0, 2)
