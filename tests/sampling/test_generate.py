import copy
import inspect
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.io.images import labelled_rows, make_grid, save_film, to_uint8
from zeroshift.sampling.film import latent_loop, strength_loop, walk
from zeroshift.sampling.generate import blend_weights, class_labels, generate, render_batches


@pytest.fixture
def source(tiny_generator: Path) -> Generator:
    return load_generator(tiny_generator)


@pytest.fixture
def target(source: Generator) -> Generator:
    moved = copy.deepcopy(source)
    with torch.no_grad():
        for parameter in moved.synthesis.parameters():  # the mapping of the source stays
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    return moved


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
    """These functions see no run, whose setting is the default everywhere else."""
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
    with pytest.raises(ZeroshiftError, match="one architecture and size"):
        blend_weights(source, [other], [1.0])


def test_latent_loop_is_smooth_closed_and_hits_its_points() -> None:
    points = torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(0))
    path = latent_loop(points, 50)
    assert path.shape == (200, 2, 8)
    assert torch.allclose(path[::50], points, atol=1e-5)
    closed = torch.cat([path, path[:2]]).flatten(1)
    speed = closed.diff(dim=0).norm(dim=1)
    bends = closed.diff(n=2, dim=0).norm(dim=1)
    assert speed.max() < 3 * speed.mean(), "no jump, the end to the beginning included"
    assert bends.max() < 0.2 * speed.mean(), "no corner"
    lengths, ends = path.flatten(1).norm(dim=1), points.flatten(1).norm(dim=1)
    assert ends.min() - 1e-4 <= lengths.min() <= lengths.max() <= ends.max() + 1e-4
    assert torch.allclose(latent_loop(points[:1], 3), points[:1].expand(3, 2, 8))


def test_strength_loop() -> None:
    path = strength_loop([0.0, 1.0], 8)
    assert path[0] == 0
    assert path[4] == 1
    assert path[2] == pytest.approx(0.5)
    assert path[1:4] == pytest.approx(path[:4:-1])  # back the way it came
    assert strength_loop([0.7], 3) == [0.7] * 3


def test_walk_shows_source_and_targets(source: Generator, target: Generator) -> None:
    frames = list(walk(source, [target, source], [(1, 0), (2, 4)], frames=3, truncation_psi=1.0, batch_size=4))
    assert len(frames) == 6
    assert frames[0].shape == (16, 48, 3)
    with torch.no_grad():
        person = source.sample_latents(2, [4])
        expected = [make_grid(generator(person), 1) for generator in (source, target, source)]
    assert np.abs(frames[3].astype(int) - np.concatenate(expected, axis=1)).max() <= 1


def test_walk_over_strengths_and_mixes(source: Generator, target: Generator) -> None:
    film = list(walk(source, [target], [(1, 0)], strengths=(0, 1), frames=4, truncation_psi=1.0))
    left, right = film[0][:, :16], film[0][:, 16:]
    assert np.abs(left.astype(int) - right).max() <= 1  # strength 0 is the source
    with torch.no_grad():
        expected = make_grid(target(source.sample_latents(1, [0])), 1)
    assert np.abs(film[2][:, 16:].astype(int) - expected).max() <= 1
    (mixed,) = walk(source, [target, source], [(1, 0)], mix=(1, 0), frames=1, truncation_psi=1.0)
    assert mixed.shape == (16, 32, 3)
    assert np.abs(mixed[:, 16:].astype(int) - expected).max() <= 1
    for wrong in ({"samples": []}, {"samples": [(0, 0)], "mix": (1, 2, 3)}, {"samples": [(0, 0)], "strengths": ()}):
        with pytest.raises(ZeroshiftError):
            next(walk(source, [target], truncation_psi=1.0, **wrong))


def test_classes() -> None:
    generator = StyleGAN2(resolution=8, z_dim=8, w_dim=8, num_classes=3, mapping_layers=2, channels={4: 8, 8: 8})
    first, second = (all_of(generate([generator], 2, truncation_psi=0.7, class_index=index))[0] for index in (0, 1))
    assert (first - second).abs().max() > 1e-3
    for index, sentence in ((None, "has 3 classes. Choose"), (3, "no class 3"), (-1, "no class -1")):
        with pytest.raises(ZeroshiftError, match=sentence):
            class_labels(generator, index, 1)


def test_class_for_an_unconditional_generator(source: Generator) -> None:
    assert class_labels(source, None, 2) is None
    with pytest.raises(ZeroshiftError, match="no classes, so"):
        class_labels(source, 0, 2)


def test_pixels() -> None:
    images = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])[:, None, None, None].expand(5, 1, 2, 2)
    assert to_uint8(images)[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(images).shape == (5, 2, 2, 3)
    sheet = make_grid(images, columns=3, gap=1)
    assert sheet.shape == (5, 8, 3)
    assert sheet[0, 2].tolist() == [255] * 3  # the gap is white
    assert sheet[3, 3].tolist() == [255] * 3
    rows = labelled_rows({"photo": images, "zombie": images}, scale=4)
    assert rows.shape[0] > 16
    assert rows.shape[1] > 40
    with pytest.raises(ValueError, match="expected images"):
        to_uint8(torch.zeros(3, 4, 4))


@pytest.mark.parametrize("size", [(16, 32), (15, 31)])
def test_films(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = [np.full((*size, 3), level, np.uint8) for level in (0, 120, 240)]
    film = save_film(tmp_path / "a.mp4", frames, fps=10)
    raw = subprocess.run(
        [get_ffmpeg_exe(), "-i", film, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], check=True, capture_output=True
    )
    decoded = np.frombuffer(raw.stdout, np.uint8).reshape(3, 16, 32, 3)  # odd sides are padded
    assert decoded.mean(axis=(1, 2, 3)) == pytest.approx([0, 120, 240], abs=6)
    with Image.open(save_film(tmp_path / "a.gif", frames, fps=10)) as film:
        assert film.n_frames == 3
        assert film.info["loop"] == 0
    with pytest.raises(ZeroshiftError, match=r"\.mp4 or \.gif"):
        save_film(tmp_path / "a.avi", frames, fps=10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "a.mp4"]
