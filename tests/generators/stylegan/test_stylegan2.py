"""StyleGAN2: the recorded published programs, the naive twin, noise, truncation, mixing, gradients."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.conformance import fill
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import style_mix
from zeroshift.generators.checkpoints.stylegan2_layouts import stylegan2_from_nvidia, stylegan2_from_rosinality
from zeroshift.generators.stylegan.blocks import blur, pixel_product, resampling_filter, upsample
from zeroshift.generators.stylegan.stylegan2 import StyledConv, StyleGAN2, StyleGAN2ToRGB

CASES = Path(fill.__file__).parent
CHANNELS = {4: 24, 8: 20, 16: 12}


def case(name):
    meta, arrays = fill.load(CASES / f"stylegan2_{name}.npz")
    weights = fill.fill(meta["shapes"]["generator"], meta["seed"])
    return meta, weights, {key: torch.from_numpy(value) for key, value in arrays.items()}


def assert_agrees(actual, recorded):
    scale = recorded.abs().max().item()
    torch.testing.assert_close(actual, recorded, rtol=0, atol=1e-4 * scale)


@pytest.fixture
def small():
    """A small generator whose noise strengths, biases and average w are not zero."""
    torch.manual_seed(0)
    generator = StyleGAN2(16, z_dim=10, w_dim=14, mapping_layers=3, channels=CHANNELS)
    for name, value in generator.state_dict().items():
        if name.endswith((".bias", "noise_strength", "w_avg")):
            value.add_(torch.randn_like(value) * 0.3)
    return generator


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rosinality_16", "rosinality_64"])
@torch.no_grad()
def test_recorded_rosinality(name):
    meta, weights, recorded = case(name)
    generator = stylegan2_from_rosinality(weights, recorded["mean_latent"])
    assert (generator.resolution, generator.mapper_input_dim) == (meta["size"], meta["style_dim"])
    assert_agrees(generator.mapper_input(recorded["z"]), recorded["w"])
    assert_agrees(generator(recorded["z"]), recorded["image"])
    assert_agrees(generator(recorded["z"], truncation_psi=0.7), recorded["image_truncated_0p7"])
    assert_agrees(generator.synthesize(recorded["w_plus"]), recorded["image_w_plus"])


@pytest.mark.parametrize("name", ["nvidia_32", "nvidia_32_conditional"])
@torch.no_grad()
def test_recorded_nvidia(name):
    meta, weights, recorded = case(name)
    generator = stylegan2_from_nvidia(weights | {"mapping.w_avg": recorded["w_avg"]}, meta["init_kwargs"])
    assert generator.num_classes == meta["init_kwargs"]["c_dim"]
    z, labels = recorded["z"], recorded.get("label")
    assert_agrees(generator.codes(z, labels), recorded["ws"])
    assert_agrees(generator(z, labels), recorded["image"])
    assert_agrees(generator.codes(z, labels, truncation_psi=0.7), recorded["ws_truncated_0p7"])
    assert_agrees(generator(z, labels, truncation_psi=0.7), recorded["image_truncated_0p7"])
    if labels is not None:
        assert torch.equal(generator.codes(z, labels.argmax(dim=1)), generator.codes(z, labels))


def naive_modulated_conv(x, weight, style, *, demodulate, up):
    """Karras et al. (2020), equations 1 to 3, literally: one kernel per sample, one sample at a time."""
    images = []
    for image, scales in zip(x, style, strict=True):
        kernel = weight * scales[None, :, None, None]
        if demodulate:
            kernel = kernel / (kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            wide = F.conv_transpose2d(image[None], kernel.transpose(0, 1), stride=2)
            taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
            filters = (torch.outer(taps, taps) / 16).repeat(len(weight), 1, 1, 1)
            images.append(F.conv2d(F.pad(wide, (1, 1, 1, 1)), filters, groups=len(weight)))
        else:
            images.append(F.conv2d(image[None], kernel, padding=weight.shape[2] // 2))
    return torch.cat(images)


def naive_synthesis(generator, ws, noise):
    """The synthesis network as published, layer by layer."""
    synthesis = generator.synthesis

    def styled(layer, x, w):
        x = naive_modulated_conv(x, layer.weight, layer.affine(w), demodulate=True, up=layer.filter is not None)
        if noise == "const":
            x = x + layer.noise_const * layer.noise_strength
        return F.leaky_relu(x + layer.bias[None, :, None, None], 0.2) * math.sqrt(2)

    def colors(layer, x, w):
        style = layer.affine(w) / math.sqrt(x.shape[1])
        return (
            naive_modulated_conv(x, layer.weight, style, demodulate=False, up=False) + layer.bias[None, :, None, None]
        )

    x = styled(synthesis.b4.conv1, synthesis.input.const.repeat(len(ws), 1, 1, 1), ws[:, 0])
    image = colors(synthesis.b4.torgb, x, ws[:, 1])
    for index, size in enumerate(synthesis.sizes[1:]):
        block = synthesis.get_submodule(f"b{size}")
        x = styled(block.conv0, x, ws[:, 2 * index + 1])
        x = styled(block.conv1, x, ws[:, 2 * index + 2])
        doubled = F.pad(
            F.interpolate(image, scale_factor=2, mode="nearest"), (1, 1, 1, 1)
        )  # [1,1] then [1,2,1]: [1,3,3,1]
        taps = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype)
        filters = torch.outer(taps, taps).repeat(3, 1, 1, 1)
        image = F.conv2d(doubled, filters, groups=3) + colors(block.torgb, x, ws[:, 2 * index + 3])
    return image


@pytest.mark.parametrize("noise", ["const", "none"])
def test_equals_naive_twin_in_value_and_gradient(small, noise):
    generator = small.double()
    ws = torch.randn(3, generator.num_ws, 14, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    inputs = {"ws": ws} | {
        name: value
        for name, value in generator.synthesis.named_parameters()
        if noise == "const" or not name.endswith("noise_strength")
    }
    results = []
    for image in (generator.synthesize(ws, noise_mode=noise), naive_synthesis(generator, ws, noise)):
        gradients = torch.autograd.grad((image * probe).sum(), list(inputs.values()))
        results.append((image.detach(), dict(zip(inputs, gradients, strict=True))))
    torch.testing.assert_close(*(image for image, _ in results), rtol=1e-9, atol=1e-9)
    for name in inputs:
        torch.testing.assert_close(*(gradients[name] for _, gradients in results), rtol=1e-8, atol=1e-8)


def test_pixel_product_equals_torch_in_value_and_gradient():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    kernels = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(pixel_product(x, kernels), x @ kernels)
    assert torch.autograd.gradcheck(pixel_product, (x, kernels))


def test_filters_keep_a_constant_inside():
    assert torch.allclose(upsample(torch.ones(1, 2, 8, 8), resampling_filter())[:, :, 2:-2, 2:-2], torch.ones(()))
    assert torch.allclose(blur(torch.ones(1, 2, 9, 9), resampling_filter())[:, :, 2:-2, 2:-2], torch.tensor(4.0))


@torch.no_grad()
def test_random_noise_depends_on_seed_and_sample_alone(small):
    ws = small.codes(small.sample_latents(0, range(4)))
    images = small.synthesize(ws, noise_mode="random", noise_seed=3)
    picked = small.synthesize(ws[[2, 0]], noise_mode="random", noise_seed=3, samples=[2, 0])
    torch.testing.assert_close(picked, images[[2, 0]], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(small.synthesize(ws, noise_mode="random", noise_seed=4), images, atol=1e-2)
    same_codes = small.synthesize(ws[:1].expand(2, -1, -1), noise_mode="random")
    assert not torch.allclose(same_codes[0], same_codes[1], atol=1e-2)


@torch.no_grad()
def test_noise_modes_differ_only_by_noise(small):
    ws = small.codes(small.sample_latents(0, [5]))
    const, none = small.synthesize(ws), small.synthesize(ws, noise_mode="none")
    assert not torch.allclose(const, none, atol=1e-2)
    for conv in small.synthesis.convs():
        conv.noise_strength.zero_()
    torch.testing.assert_close(small.synthesize(ws), none)
    torch.testing.assert_close(small.synthesize(ws, noise_mode="random"), none)


@torch.no_grad()
def test_truncation_pulls_the_first_rows_toward_the_average(small):
    z = small.sample_latents(1, range(2))
    ws, average = small.codes(z), small.mapping.w_avg
    cut = small.codes(z, truncation_psi=0.5, truncation_cutoff=2)
    torch.testing.assert_close(cut[:, :2], (ws[:, :2] + average) / 2)
    assert torch.equal(cut[:, 2:], ws[:, 2:])
    torch.testing.assert_close(small.codes(z, truncation_psi=0.0), average.expand_as(ws))
    assert torch.equal(small.mapper_input(z), ws[:, 0])


def test_style_mixing(small):
    first, second = (small.codes(small.sample_latents(seed, range(2))) for seed in (1, 2))
    mixed = style_mix(first, second, 4)
    assert torch.equal(mixed[:, :4], first[:, :4])
    assert torch.equal(mixed[:, 4:], second[:, 4:])
    assert torch.equal(style_mix(first, second, 0), second)
    with pytest.raises(ZeroshiftError, match="between 0 and 6"):
        style_mix(first, second, 7)


def test_layers_are_modules_by_path_and_candidates_follow_the_published_order(small):
    layers = small.layers()
    assert all(small.get_submodule(name) is module for name, module in layers.items())
    assert list(layers)[:3] == ["synthesis.input", "synthesis.b4.conv1", "synthesis.b4.torgb"]
    covered = {id(parameter) for module in layers.values() for parameter in module.parameters()}
    assert covered == {id(parameter) for parameter in small.synthesis.parameters()}
    candidates = small.layer_candidates()
    assert len(candidates) == small.num_ws
    # The published program lists conv1, to_rgb1, convs.0, convs.1, ...
    assert candidates == ["synthesis.b4.conv1", "synthesis.b4.torgb"] + [
        f"synthesis.b{size}.conv{index}" for size in (8, 16) for index in (0, 1)
    ]


def test_gradients_for_codes_alone_and_for_chosen_layers(small):
    small.requires_grad_(False)
    ws = small.codes(small.sample_latents(0, range(2))).clone().requires_grad_(True)
    small.synthesize(ws).square().mean().backward()
    assert all(ws.grad[:, row].abs().sum() > 0 for row in range(small.num_ws))
    assert all(parameter.grad is None for parameter in small.parameters())

    chosen = small.layers()["synthesis.b8.conv0"].requires_grad_(True)
    small.synthesize(ws.detach()).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in chosen.parameters())
    trained = {name for name, parameter in small.named_parameters() if parameter.grad is not None}
    assert trained == {f"synthesis.b8.conv0.{name}" for name, _ in chosen.named_parameters()}


def test_bf16_autocast_stays_close_and_gives_float32_images(small):
    ws = small.codes(small.sample_latents(0, range(3)))
    exact = small.synthesize(ws)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = small.synthesize(ws)
        assert small.mapper_input(small.sample_latents(0, range(3))).dtype == torch.float32
    assert rough.dtype == torch.float32
    assert (rough - exact).square().mean().sqrt() < 0.02 * exact.std()
    rough.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in small.synthesis.parameters())


@torch.no_grad()
def test_weights_in_bf16_work_too(small):
    ws = small.codes(small.sample_latents(0, range(2)))
    exact = small.synthesize(ws)
    rough = small.bfloat16().synthesize(ws)
    assert rough.dtype == torch.float32
    assert (rough - exact).square().mean().sqrt() < 0.05 * exact.std()


@torch.no_grad()
def test_conv_clamp_bounds_every_layer(small):
    clamped = StyleGAN2(**small.config | {"conv_clamp": 0.4})
    clamped.load_state_dict(small.state_dict())
    largest = []
    for module in clamped.modules():
        if isinstance(module, (StyledConv, StyleGAN2ToRGB)):
            module.register_forward_hook(lambda module, inputs, output: largest.append(output.abs().max().item()))
    clamped(small.sample_latents(0, range(2)))
    assert len(largest) == 8
    assert max(largest) == pytest.approx(0.4)


def test_config_rebuilds_the_module(small):
    again = StyleGAN2(**small.config)
    assert again.config == small.config
    again.load_state_dict(small.state_dict())
    z = small.sample_latents(0, range(2))
    assert torch.equal(again(z), small(z))


def test_latents_depend_on_seed_and_sample_alone(small):
    assert small.sample_latents(3, range(5)).shape == (5, 10)
    assert torch.equal(small.sample_latents(3, [4, 1]), small.sample_latents(3, range(5))[[4, 1]])
    assert not torch.equal(small.sample_latents(3, [0]), small.sample_latents(4, [0]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resolution": 24}, "power of two"),
        ({"resolution": 32}, "channel numbers"),
        ({"channels": {4: 8, 8: 8, 16: 0}}, "positive channel numbers"),
    ],
)
def test_invalid_sizes_of_a_stylegan2_are_refused(small, change, words):
    with pytest.raises(ZeroshiftError, match=words):
        StyleGAN2(**small.config | change)


def test_unsuitable_inputs_are_refused(small):
    ws = small.codes(small.sample_latents(0, [0]))
    with pytest.raises(ZeroshiftError, match="Latents must be"):
        small.mapper_input(torch.randn(2, 9))
    with pytest.raises(ZeroshiftError, match="Codes must be"):
        small.synthesize(ws[:, :5])
    with pytest.raises(ZeroshiftError, match="noise mode 'loud'"):
        small.synthesize(ws, noise_mode="loud")
    with pytest.raises(ZeroshiftError, match="2 sample numbers"):
        small.synthesize(ws, samples=[0, 1])
    with pytest.raises(ZeroshiftError, match="no classes"):
        small.mapper_input(torch.randn(1, 10), torch.tensor([0]))


def test_labels_of_a_conditional_generator():
    generator = StyleGAN2(8, z_dim=4, w_dim=4, num_classes=3, mapping_layers=1, channels={4: 4, 8: 4})
    z = torch.randn(2, 4)
    assert not torch.allclose(
        generator.mapper_input(z, torch.tensor([0, 1])), generator.mapper_input(z, torch.tensor([2, 1]))
    )
    with pytest.raises(ZeroshiftError, match="class-conditional"):
        generator.mapper_input(z)
    with pytest.raises(ZeroshiftError, match="between 0 and 2"):
        generator.mapper_input(z, torch.tensor([0, 3]))
    with pytest.raises(ZeroshiftError, match="do not fit"):
        generator.mapper_input(z, torch.ones(2, 4))
