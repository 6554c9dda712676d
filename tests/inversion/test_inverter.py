"""Inversion into StyleGANs: projection, pivotal tuning, their schedules, and rendering with changed weights."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Codes, Generator
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.stylegan.stylegan3 import StyleGAN3
from zeroshift.inversion.distance import LPIPSDistance, PyramidDistance, load_distance
from zeroshift.inversion.encoders import InversionEncoder
from zeroshift.inversion.inverted import render
from zeroshift.inversion.inverter import InversionProgress, Inverter
from zeroshift.inversion.options import InversionOptions
from zeroshift.inversion.pivotal import tune
from zeroshift.inversion.projection import autocorrelation, learning_rate, project

OPTIONS = InversionOptions(steps=12, tuning_steps=4, distance="pyramid")


@pytest.fixture
def generator(tiny_generator: Path) -> Generator:
    generator = load_generator(tiny_generator).eval().requires_grad_(False)
    with torch.no_grad():
        for conv in generator.synthesis.convs():
            conv.noise_strength.fill_(0.3)
    return generator


@pytest.fixture
def photos(generator: Generator) -> Tensor:
    """Three images that the generator can nearly draw."""
    with torch.no_grad():
        return generator(generator.sample_latents(5, range(3))).clamp(-1, 1)


def style_gan_3() -> Generator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = StyleGAN3(resolution=32, z_dim=8, w_dim=8, mapping_layers=2, channel_base=256, channel_max=16)
    generator.mapping.w_avg.copy_(generator.average_w())
    return generator.eval().requires_grad_(False)


def test_the_space_is_that_of_the_published_projector(generator: Generator) -> None:
    space = generator.style_space()
    assert space is not None
    ws = generator.mapper_input(generator.sample_latents(9, range(4000)))
    torch.testing.assert_close(space.mean, ws.mean(dim=0), atol=0.05, rtol=0)
    assert space.deviation == pytest.approx(((ws - ws.mean(0)) ** 2).sum(1).mean().sqrt().item(), rel=0.05)
    assert set(space.noise_maps) == {name for name, _ in generator.named_buffers() if "noise_const" in name}


@pytest.mark.parametrize("space", ["w", "w+"])
def test_projection_comes_closer_and_photos_do_not_influence_each_other(
    generator: Generator, photos: Tensor, space: str
) -> None:
    options, distance = InversionOptions(space=space, steps=12, distance="pyramid"), PyramidDistance()  # type: ignore[arg-type]
    seen: list[Tensor] = []
    style = generator.style_space()
    assert style is not None
    codes, changes = project(generator, style, photos, distance, options, step_done=lambda step, x: seen.append(x))
    assert len(seen) == 12
    goal = distance.features(photos)
    first, last = (distance.between(distance.features(images), goal) for images in (seen[0], seen[-1]))
    assert (last < first).all()
    assert (codes == codes[:, :1]).all() == (space == "w")
    alone, lonely = project(generator, style, photos[1:2], distance, options)
    torch.testing.assert_close(alone, codes[1:2], atol=1e-3, rtol=1e-3)
    for name, change in lonely.items():
        torch.testing.assert_close(change, changes[name][1:2], atol=2e-2, rtol=1e-2)
        stored = dict(generator.named_buffers())[name]
        assert (stored + change).mean().abs() < 1e-4
        assert (stored + change).square().mean().item() == pytest.approx(1, rel=1e-3)


def test_projection_and_tuning_leave_a_trainable_generator_alone(generator: Generator, photos: Tensor) -> None:
    style = generator.style_space()
    assert style is not None
    frozen, _ = project(generator, style, photos[:1], PyramidDistance(), OPTIONS)
    generator.requires_grad_(True)
    codes, changes = project(generator, style, photos[:1], PyramidDistance(), OPTIONS)
    torch.testing.assert_close(codes, frozen)
    tune(
        generator, photos[:1], codes, {name: value[0, 0] for name, value in changes.items()}, PyramidDistance(), OPTIONS
    )
    assert all(parameter.grad is None and parameter.requires_grad for parameter in generator.parameters())


def test_the_schedule_is_published() -> None:
    rates = [learning_rate(step / 1000) for step in range(1000)]
    assert rates[0] == 0
    assert rates[25] == pytest.approx(0.5)
    assert all(rate == 1 for rate in rates[50:750])
    assert rates[875] == pytest.approx(0.5)
    assert rates[999] < 1e-4


def test_autocorrelation_equals_a_loop() -> None:
    noise = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for row in range(2):
        total, level = 0.0, noise[row, 0]
        while True:
            size = level.shape[0]
            right = sum(float(level[y, x] * level[y, x - 1]) for y in range(size) for x in range(size)) / size**2
            down = sum(float(level[y, x] * level[y - 1, x]) for y in range(size) for x in range(size)) / size**2
            total += right**2 + down**2
            if size <= 8:
                break
            level = F.avg_pool2d(level[None, None], 2)[0, 0]
        assert autocorrelation(noise)[row].item() == pytest.approx(total, rel=1e-4)


def test_render_equals_a_copy_with_changed_weights(generator: Generator) -> None:
    codes = generator.codes(generator.sample_latents(0, range(2)))
    rng = torch.Generator().manual_seed(1)
    changes = {
        name: 0.1 * torch.randn(value.shape, generator=rng)
        for name, value in [*generator.named_parameters(), *generator.named_buffers()]
        if name.startswith("synthesis") and "filter" not in name
    }
    copied = copy.deepcopy(generator)
    with torch.no_grad():
        for name, value in [*copied.named_parameters(), *copied.named_buffers()]:
            if name in changes:
                value += changes[name]
    before = generator.synthesize(codes)
    torch.testing.assert_close(render(generator, codes, changes), copied.synthesize(codes))
    assert torch.equal(generator.synthesize(codes), before)
    (noise,) = (name for name in changes if name.endswith("b4.conv1.noise_const"))
    maps = torch.stack([changes[noise][None], -changes[noise][None]])
    both = render(generator, codes, {noise: maps})
    for row in range(2):
        torch.testing.assert_close(both[row], render(generator, codes[row : row + 1], {noise: maps[row, 0]})[0])
    for name, change in (("nowhere", maps), ("synthesis.b4.conv1.bias", torch.zeros(16, 4)), (noise, maps[..., 0])):
        with pytest.raises(ZeroshiftError, match="another generator"):
            render(generator, codes, {name: change})


def test_pivotal_tuning_draws_the_photo_and_its_difference_moves_to_other_generators(
    generator: Generator, photos: Tensor
) -> None:
    codes = generator.codes(generator.sample_latents(7, range(1)))
    weights = {name: value.clone() for name, value in generator.state_dict().items()}
    options = InversionOptions(tuning_steps=40, tuning_lr=0.01, distance="pyramid")
    changes = tune(generator, photos[:1], codes, {}, PyramidDistance(), options)
    before, after = (
        F.mse_loss(image, photos[:1]).item() for image in (render(generator, codes, c) for c in ({}, changes))
    )
    assert after < before / 2
    assert all(torch.equal(value, weights[name]) for name, value in generator.state_dict().items())
    assert not any(name.startswith("mapping") for name in changes)
    adapted = copy.deepcopy(generator)
    with torch.no_grad():
        for parameter in adapted.synthesis.parameters():
            parameter += 0.01
        moved = render(adapted, codes, changes)
    assert F.mse_loss(moved, photos[:1]) < F.mse_loss(adapted.synthesize(codes), photos[:1])


def test_pivotal_tuning_stops_at_a_perceptual_distance(generator: Generator, photos: Tensor) -> None:
    class Constant(PyramidDistance):
        perceptual = True

        def between(self, features: list[Tensor], others: list[Tensor]) -> Tensor:
            return super().between(features, others) * 0 + 0.05

    steps: list[int] = []
    codes = generator.codes(generator.sample_latents(7, range(1)))
    tune(generator, photos[:1], codes, {}, Constant(), OPTIONS, step_done=lambda step, _: steps.append(step))
    assert steps == [1]


class Fixed(InversionEncoder):
    """An encoder that returns the codes of a latent, or of another generator's size."""

    name = "fixed"

    def __init__(self, codes: Codes):
        super().__init__()
        self.register_buffer("codes", codes)

    def require_fit(self, generator: Generator) -> None:
        space = generator.style_space()
        if space is None or self.codes.shape[1:] != (space.num_ws, space.w_dim):
            raise ZeroshiftError("does not fit")

    def forward(self, images: Tensor, generator: Generator) -> Codes:
        return self.codes.expand(len(images), -1, -1)


def test_the_encoder_gives_the_start_or_the_result(generator: Generator, photos: Tensor, tmp_path: Path) -> None:
    codes = generator.codes(generator.sample_latents(3, range(1)))
    alone = InversionOptions(steps=0, tuning_steps=0, distance="pyramid")
    (one,) = Inverter(generator, alone, Fixed(codes), tmp_path)(photos[:1])
    assert torch.equal(one.codes, codes[0])
    assert not one.changes
    assert one.record["encoder"] == "fixed"
    (near,) = Inverter(generator, InversionOptions(steps=1, lr=1e-6, tuning_steps=0), Fixed(codes), tmp_path)(
        photos[:1]
    )
    torch.testing.assert_close(near.codes, codes[0], atol=1e-4, rtol=0)
    with pytest.raises(ZeroshiftError, match="does not fit"):
        Inverter(generator, alone, Fixed(codes[:, :2]), tmp_path)


@pytest.mark.slow
def test_results_are_cached_by_everything_they_depend_on(generator: Generator, photos: Tensor, tmp_path: Path) -> None:
    def count() -> int:
        return len(list(tmp_path.glob("*.safetensors")))

    calls: list[InversionProgress] = []
    first = Inverter(generator, OPTIONS, cache=tmp_path)(photos[:2], calls.append)
    assert count() == 4  # a pivot and a tuned result of each photo
    assert [call.stage for call in calls].count("optimize") == 12
    calls.clear()
    again = Inverter(generator, OPTIONS, cache=tmp_path)(photos[:2].flip(0), calls.append)
    assert {call.stage for call in calls} == {"done"}
    for one, other in zip(first, reversed(again), strict=True):
        assert torch.equal(one.codes, other.codes)
        assert all(torch.equal(value, other.changes[name]) for name, value in one.changes.items())
        assert one.record == other.record
    Inverter(generator, InversionOptions(steps=12, tuning_steps=5, distance="pyramid"), cache=tmp_path)(photos[:1])
    assert count() == 5, "the pivot is used again"
    Inverter(generator, InversionOptions(steps=11, tuning_steps=0, distance="pyramid"), cache=tmp_path)(photos[:1])
    assert count() == 6
    with torch.no_grad():
        next(generator.synthesis.parameters()).add_(0.1)
    Inverter(generator, OPTIONS, cache=tmp_path)(photos[:1])
    assert count() == 8
    with pytest.raises(ZeroshiftError, match=r"Photos must be \[N, 3, 16, 16\]"):
        Inverter(generator, OPTIONS, cache=tmp_path)(torch.zeros(1, 3, 8, 8))


@pytest.mark.slow
def test_a_stylegan3_is_inverted_without_noise_maps(tmp_path: Path) -> None:
    generator = style_gan_3()
    photos = generator(generator.sample_latents(1, range(1))).clamp(-1, 1)
    (one,) = Inverter(generator, OPTIONS, cache=tmp_path)(photos)
    assert one.codes.shape == (generator.num_ws, 8)
    assert one.changes
    assert not any("noise" in name for name in one.changes)
    assert math.isfinite(one.record["psnr"])


def test_lpips_has_a_gradient_and_the_values_of_the_measure() -> None:
    class Network:
        def embed(self, features: Tensor) -> Tensor:
            return (features / 255).flatten(1)

    distance = LPIPSDistance(Network())  # type: ignore[arg-type]
    images = (torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1).requires_grad_(True)
    goal = distance.features(torch.zeros(2, 3, 8, 8))
    value = distance.between(distance.features(images), goal)
    torch.testing.assert_close(value, (images / 2).square().sum(dim=(1, 2, 3)))
    torch.testing.assert_close(torch.autograd.grad(value.sum(), images)[0], images / 2)


def test_auto_needs_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zeroshift.inversion.distance import _lpips_is_here

    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path))
    _lpips_is_here.cache_clear()
    assert load_distance("auto").name == "pyramid"
    _lpips_is_here.cache_clear()
    with pytest.raises(ZeroshiftError, match="no distance 'ssim'"):
        load_distance("ssim")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": "z"}, "space is 'z'"),
        ({"distance": "l2"}, "distance is 'l2'"),
        ({"steps": -1}, "steps is -1"),
        ({"lr": 0.0}, r"lr is 0\.0"),
        ({"tuning_lr": math.inf}, "tuning_lr is inf"),
        ({"tuning_stop": -0.1}, r"tuning_stop is -0\.1"),
    ],
)
def test_options_are_checked(change: dict[str, object], message: str) -> None:
    with pytest.raises(ZeroshiftError, match=message):
        InversionOptions(**change).validate()  # type: ignore[arg-type]
