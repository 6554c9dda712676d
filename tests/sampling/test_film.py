import numpy as np
import pytest
import torch

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.io.images import make_grid
from zeroshift.sampling.film import latent_loop, strength_loop, walk


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
