"""Gradient checkpointing and compilation of the StyleGANs: the same images and gradients."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.generators.stylegan.stylegan3 import StyleGAN3


def make(family: str) -> Generator:
    torch.manual_seed(0)
    if family == "stylegan3":
        return StyleGAN3(16, 8, 8, channel_base=256, channel_max=16, num_layers=4, margin_size=4)
    generator = StyleGAN2(32, 8, 8, mapping_layers=2, channels={4: 16, 8: 16, 16: 8, 32: 8})
    for conv in generator.synthesis.convs():
        conv.noise_strength.data.fill_(0.3)
    return generator


def run(generator: Generator, codes: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Images, and gradients of the codes and of all weights."""
    generator.zero_grad()
    codes = codes.detach().clone().requires_grad_()
    images = generator.synthesize(codes, noise_mode="random", noise_seed=3, samples=[5, 2])
    images.square().sum().backward()
    gradients = {name: value.grad.clone() for name, value in generator.named_parameters() if value.grad is not None}
    assert codes.grad is not None
    return images.detach(), {**gradients, "codes": codes.grad}


def same(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(one[0], other[0])
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], atol=2e-6 * float(gradient.abs().max()), rtol=2e-5)


@contextmanager
def kept_for_backward() -> Iterator[list[int]]:
    """A list that receives the bytes of activations that the graph keeps, each storage once."""
    storages: dict[int, int] = {}
    total: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total
    total.append(sum(storages.values()))


@pytest.mark.parametrize("family", ["stylegan2", "stylegan3"])
def test_checkpointing_changes_nothing_but_memory(family: str) -> None:
    generator = make(family)
    codes = generator.codes(generator.sample_latents(0, range(2)))
    plain = run(generator, codes)
    with kept_for_backward() as before:
        kept = generator.synthesize(codes)
    generator.checkpoint_gradients()
    same(run(generator, codes), plain)
    with kept_for_backward() as after:
        generator.synthesize(codes)
    assert after[0] < 0.6 * before[0]
    with torch.no_grad():
        torch.testing.assert_close(generator.synthesize(codes), kept.detach())


def test_checkpointing_gives_gradients_of_codes_before_those_of_weights() -> None:
    """As in the choice of layers by the training batch: two backward passes through one graph, for parts of it."""
    generator = make("stylegan2")
    codes = generator.codes(generator.sample_latents(0, range(2))).detach().clone().requires_grad_()
    weight = generator.get_submodule("synthesis.b16.conv0").get_parameter("weight")
    results = []
    for _ in range(2):
        generator.zero_grad()
        images = generator.synthesize(codes)
        (gradient,) = torch.autograd.grad(images.mean(), codes, retain_graph=True)
        images.square().mean().backward(inputs=[weight])
        assert weight.grad is not None
        results.append((gradient, weight.grad.clone()))
        assert sum(parameter.grad is not None for parameter in generator.parameters()) == 1
        generator.checkpoint_gradients()
    torch.testing.assert_close(results[0], results[1])


def test_families_without_checkpointing_say_so() -> None:
    with pytest.raises(ZeroshiftError, match=r"has no gradient checkpointing\. Leave adapt\.gradient_checkpointing"):
        Generator.checkpoint_gradients(object.__new__(Diffusion))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["stylegan2", "stylegan3"])
def test_synthesis_is_one_graph(family: str) -> None:
    """Compiled with `fullgraph`, which raises at a graph break; noise inputs are drawn outside."""
    generator = make(family)
    codes = generator.codes(generator.sample_latents(0, range(2)))
    plain = run(generator, codes)
    torch.compiler.reset()
    backend = {"stylegan2": "aot_eager", "stylegan3": "eager"}[family]  # the former traces the backward pass as well
    generator.get_submodule("synthesis").compile(backend=backend, fullgraph=True)
    same(run(generator, codes), plain)
    torch.compiler.reset()
