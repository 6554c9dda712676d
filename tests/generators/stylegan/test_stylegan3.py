"""StyleGAN3: the recorded published programs, filters against scipy, the naive twin, equivariance, bad input."""

import math
from pathlib import Path

import pytest
import scipy.signal
import scipy.special
import torch
import torch.nn.functional as F

from tests.conformance import fill
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator, save_generator
from zeroshift.generators.checkpoints.stylegan3_layouts import stylegan3_from_nvidia
from zeroshift.generators.stylegan.stylegan3 import StyleGAN3
from zeroshift.generators.stylegan.stylegan3_filters import design_lowpass, downsample, upsample
from zeroshift.generators.stylegan.stylegan3_synthesis import Band, FilteredConv

CASES = Path(fill.__file__).parent
SMALL = {"z_dim": 16, "w_dim": 12, "channel_base": 256, "channel_max": 12}


def recorded(config):
    meta, arrays = fill.load(CASES / f"stylegan3_{config}_32.npz")
    weights = fill.fill(meta["shapes"]["generator"], meta["seed"]) | {"mapping.w_avg": arrays["w_avg"]}
    return weights, meta["init_kwargs"], {key: torch.from_numpy(value) for key, value in arrays.items()}


def small(resolution=32, **settings):
    torch.manual_seed(0)
    generator = StyleGAN3(resolution, **(SMALL | settings)).eval()
    for name, value in generator.state_dict().items():
        if name.endswith((".bias", "w_avg", "input.affine.weight")):
            value.add_(torch.randn_like(value) * 0.1)
        if name.endswith("magnitude_ema"):
            value.mul_(0.6)  # keeps the random layers' signals from fading
    return generator


@pytest.mark.slow
@pytest.mark.parametrize("config", ["t", "r"])
@torch.no_grad()
def test_recorded(config):
    weights, init_kwargs, arrays = recorded(config)
    generator = stylegan3_from_nvidia(weights, init_kwargs)
    assert (generator.resolution, generator.num_ws, generator.mapper_input_dim) == (32, 16, 64)
    ws, ws_truncated = generator.codes(arrays["z"]), generator.codes(arrays["z"], truncation_psi=0.7)
    for actual, name in (
        (ws, "ws"),
        (generator.synthesize(ws), "image"),
        (ws_truncated, "ws_truncated_0p7"),
        (generator.synthesize(ws_truncated), "image_truncated_0p7"),
    ):
        torch.testing.assert_close(actual, arrays[name], rtol=0, atol=1e-4 * arrays[name].abs().max().item())


@pytest.mark.parametrize(
    ("taps", "cutoff", "width", "rate"), [(12, 2, 12, 32), (24, 5.1, 7, 64), (9, 7, 1.5, 32), (6, 1, 0.1, 8)]
)
def test_filters_against_scipy(taps, cutoff, width, rate):
    sinc = scipy.signal.firwin(taps, cutoff, width=width, fs=rate)
    torch.testing.assert_close(design_lowpass(taps, cutoff, width, rate), torch.from_numpy(sinc).float())
    offsets = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / rate
    radius = torch.hypot(offsets[:, None], offsets[None, :]).clamp(min=1e-12).numpy()
    beta = scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(taps, width / (rate / 2)))
    window = scipy.signal.windows.kaiser(taps, beta)
    jinc = scipy.special.j1(2 * cutoff * math.pi * radius) / (math.pi * radius) * window[:, None] * window[None, :]
    expected = torch.from_numpy(jinc / jinc.sum()).float()
    torch.testing.assert_close(design_lowpass(taps, cutoff, width, rate, radial=True), expected, rtol=1e-4, atol=1e-7)


def naive_upfirdn(x, filter, up, down, padding):
    """Zeros between the pixels, (before, after) zeros around them, a plain convolution, every down-th pixel."""
    wide = x.new_zeros(*x.shape[:2], x.shape[2] * up, x.shape[3] * up)
    wide[:, :, ::up, ::up] = x
    wide = F.pad(wide, [*padding, *padding])
    square = torch.outer(filter, filter) if filter.ndim == 1 else filter
    planes = F.conv2d(wide.flatten(0, 1)[:, None], square.flip(0, 1)[None, None])
    return planes[:, 0, ::down, ::down].unflatten(0, x.shape[:2])


def naive_layer(layer, x, w, source, target, settings):
    """The published layer, operation by operation: one kernel per sample, styles normalized over the batch."""
    style = layer.affine(w)
    style = style * style.square().mean().rsqrt()
    weight = layer.weight * layer.weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
    images = []
    for image, scales in zip(x, style, strict=True):
        kernel = weight * scales[None, :, None, None]
        kernel = kernel * (kernel.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        kernel = kernel * layer.magnitude_ema.rsqrt()
        images.append(F.conv2d(image[None], kernel, padding=kernel.shape[-1] - 1))
    x = torch.cat(images) + layer.bias[:, None, None]
    rate = max(source.rate, target.rate) * settings["lrelu_upsampling"]
    up, down = rate // source.rate, rate // target.rate
    up_taps, down_taps = settings["filter_size"] * up, settings["filter_size"] * down
    total = (target.size - 1) * down + 1 - (source.size + settings["kernel"] - 1) * up + up_taps + down_taps - 2
    before = (total + up) // 2
    x = naive_upfirdn(x, layer.up_filter, up, 1, (before, total - before)) * up**2
    x = (F.leaky_relu(x, 0.2) * math.sqrt(2)).clamp(-settings["clamp"], settings["clamp"])
    return naive_upfirdn(x, layer.down_filter, 1, down, (0, 0))


@pytest.mark.parametrize("radial", [False, True])
@pytest.mark.parametrize(
    ("kernel", "filter_size", "lrelu_upsampling", "sizes"),
    [(3, 6, 2, (20, 20)), (3, 6, 2, (20, 28)), (1, 6, 2, (20, 28)), (3, 5, 2, (20, 28)), (3, 6, 3, (20, 28))],
)
def test_layer_against_naive_twin(radial, kernel, filter_size, lrelu_upsampling, sizes):
    torch.manual_seed(1)
    source, target = Band(sizes[0], 8, 2.0, 2.5, 5), Band(sizes[1], sizes[1] - 12 if sizes[1] > 20 else 8, 3.0, 3.5, 4)
    settings = {"kernel": kernel, "filter_size": filter_size, "lrelu_upsampling": lrelu_upsampling, "clamp": 1.0}
    layer = FilteredConv(6, source, target, radial=radial, **settings)
    layer.bias.data.normal_()
    layer.magnitude_ema.fill_(1.3)
    x = torch.randn(3, 5, sizes[0], sizes[0], requires_grad=True)
    w = torch.randn(3, 6, requires_grad=True)
    inputs = [x, w, *layer.parameters()]
    fast, naive = layer(x, w), naive_layer(layer, x, w, source, target, settings)
    assert fast.shape == (3, 4, target.size, target.size)
    torch.testing.assert_close(fast, naive, rtol=1e-4, atol=1e-5)
    probe = torch.randn_like(naive)
    for ours, theirs in zip(
        torch.autograd.grad(fast, inputs, probe), torch.autograd.grad(naive, inputs, probe), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item())


def test_resampling_keeps_constants():
    taps = design_lowpass(12, 2, 12, 32)
    raised = upsample(torch.ones(1, 2, 20, 20), taps, 2, 11, 28)
    torch.testing.assert_close(raised, torch.ones(1, 2, 28, 28), rtol=0, atol=0.05)
    torch.testing.assert_close(downsample(torch.ones(1, 2, 28, 28), taps, 2), torch.ones(1, 2, 9, 9))


@torch.no_grad()
def test_rotation_by_a_quarter_turn_is_exact_in_configuration_r():
    generator = small(conv_kernel=1, radial=True)
    ws = generator.codes(generator.sample_latents(0, range(2)))
    straight = generator.synthesize(ws)
    generator.synthesis.input.transform.copy_(torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]))
    turned = generator.synthesize(ws)
    difference = (turned - straight).abs().max().item()
    assert difference > 0.01
    torch.testing.assert_close(turned, torch.rot90(straight, -1, (2, 3)), rtol=0, atol=1e-4 * difference)


@torch.no_grad()
def test_translation_moves_the_image():
    """Four pixels of 32 are two pixels of the coarsest grid (rate 16), so only the borders differ."""
    generator = small()
    ws = generator.codes(generator.sample_latents(0, range(2)))
    still = generator.synthesize(ws)
    generator.synthesis.input.transform[0, 2] = -4 / 32
    moved = generator.synthesize(ws)
    inner = slice(8, -8)
    error = (moved[:, :, inner, 12:-4] - still[:, :, inner, inner]).square().mean()
    difference = (moved - still).square().mean()
    assert difference > 1e-4
    assert error < 1e-3 * difference


@torch.no_grad()
def test_conditional_truncation_and_broadcast():
    generator = small(num_classes=3)
    z, labels = generator.sample_latents(0, range(3)), torch.tensor([0, 2, 2])
    ws = generator.codes(z, labels)
    assert torch.equal(ws, generator.codes(z, F.one_hot(labels, 3)))
    assert not torch.equal(ws, generator.codes(z, torch.zeros(3, dtype=torch.long)))
    cut = generator.codes(z, labels, truncation_psi=0.5, truncation_cutoff=4)
    torch.testing.assert_close(cut[:, :4], (ws[:, :4] + generator.mapping.w_avg) / 2)
    assert torch.equal(cut[:, 4:], ws[:, 4:])
    with pytest.raises(ZeroshiftError, match="class-conditional"):
        generator.codes(z)


@torch.no_grad()
def test_samples_of_a_batch_are_independent():
    generator = small()
    ws = generator.codes(generator.sample_latents(0, range(4)))
    ws = ws * torch.tensor([1.0, 0.01, 1.0, 30.0])[:, None, None]
    for noise in ("const", "random", "none"):  # StyleGAN3 has no noise inputs
        torch.testing.assert_close(generator.synthesize(ws[1:2], noise_mode=noise), generator.synthesize(ws)[1:2])


@torch.no_grad()
def test_bfloat16_stays_close():
    generator = small()
    ws = generator.codes(generator.sample_latents(0, range(2)))
    exact = generator.synthesize(ws)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = generator(generator.sample_latents(0, range(2)))
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() / exact.norm() < 0.1


def test_every_row_and_layer_has_a_gradient():
    generator = small()
    ws = generator.codes(generator.sample_latents(0, range(2))).detach().requires_grad_()
    generator.synthesize(ws).square().mean().backward()
    assert (ws.grad.abs().amax(dim=(0, 2)) > 0).all()
    for name, parameter in generator.synthesis.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_layer_names():
    generator = small()
    names = generator.layer_candidates()
    assert len(names) == generator.num_ws == 16
    assert names[:2] == ["synthesis.input", "synthesis.L0_36_12"]
    assert names[-2:] == ["synthesis.L13_32_8", "synthesis.L14_32_3"]
    assert list(generator.layers()) == names
    assert all(generator.get_submodule(name) is module for name, module in generator.layers().items())
    rest = set(dict(generator.synthesis.named_parameters(prefix="synthesis")))
    for name, module in generator.layers().items():
        rest -= set(dict(module.named_parameters(prefix=name)))
    assert not rest


@pytest.mark.parametrize("settings", [{}, {"conv_kernel": 1, "radial": True, "num_classes": 2}])
@torch.no_grad()
def test_round_trip_through_a_file(tmp_path, settings):
    generator = small(**settings)
    save_generator(generator, tmp_path / "generator.safetensors")
    again = load_generator(tmp_path / "generator.safetensors")
    assert isinstance(again, StyleGAN3)
    assert again.config == generator.config
    ws = torch.randn(1, 16, 12)
    assert torch.equal(again.synthesize(ws), generator.synthesize(ws))


@pytest.mark.parametrize(
    ("resolution", "settings"),
    [
        (16, {}),
        (64, {}),
        (48, {}),
        (32, {"num_layers": 9, "num_critical": 1, "margin_size": 6}),
        (64, {"num_critical": 3}),
    ],
)
@torch.no_grad()
def test_other_sizes(resolution, settings):
    generator = small(resolution, **settings)
    image = generator(generator.sample_latents(0, range(1)))
    assert image.shape == (1, 3, resolution, resolution)
    assert image.isfinite().all()
    assert len(generator.layer_candidates()) == generator.num_ws


@pytest.mark.parametrize(
    ("resolution", "settings"),
    [(4, {}), (32, {"num_critical": 0}), (32, {"num_layers": 2}), (32, {"margin_size": -9}), (32, {"filter_size": 1})],
)
def test_impossible_sizes(resolution, settings):
    with pytest.raises(ZeroshiftError, match="do not fit a StyleGAN3"):
        StyleGAN3(resolution, **(SMALL | settings))


def test_bad_input():
    generator = small()
    with pytest.raises(ZeroshiftError, match="Unknown noise mode 'loud'"):
        generator.synthesize(torch.zeros(1, 16, 12), noise_mode="loud")
    with pytest.raises(ZeroshiftError, match=r"Codes must be \[N, 16, 12\]"):
        generator.synthesize(torch.zeros(1, 15, 12))
    with pytest.raises(ZeroshiftError, match=r"Latents must be \[N, 16\]"):
        generator.mapper_input(torch.zeros(1, 12))


def test_weights_that_do_not_fit():
    weights, init_kwargs, _ = recorded("t")
    buffers = dict(stylegan3_from_nvidia(weights, init_kwargs).named_buffers())
    stylegan3_from_nvidia(weights | buffers, init_kwargs)
    for change, message in (
        ({"synthesis.L0_36_64.bias": torch.zeros(3)}, "do not fit"),
        ({"synthesis.head.weight": torch.zeros(3)}, "do not fit"),
        ({"synthesis.L0_36_64.up_filter": buffers["synthesis.L0_36_64.up_filter"] * 1.1}, "other filters"),
    ):
        with pytest.raises(ZeroshiftError, match=message):
            stylegan3_from_nvidia(weights | change, init_kwargs)
    with pytest.raises(ZeroshiftError, match="do not fit"):
        stylegan3_from_nvidia({name: weights[name] for name in list(weights)[1:]}, init_kwargs)
    with pytest.raises(ZeroshiftError, match="4 color channels"):
        stylegan3_from_nvidia(weights, init_kwargs | {"img_channels": 4})
    with pytest.raises(ZeroshiftError, match="settings of this generator"):
        stylegan3_from_nvidia(weights, init_kwargs | {"head_layers": 4})
