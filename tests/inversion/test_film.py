"""Films of inverted photos."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator, blend_weights
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.inversion.film import photo_walk
from zeroshift.inversion.inverted import Inverted, render
from zeroshift.io.images import to_uint8


@pytest.fixture
def generators(tiny_generator: Path) -> tuple[Generator, Generator]:
    source = load_generator(tiny_generator).eval().requires_grad_(False)
    target = copy.deepcopy(source)
    for parameter in target.synthesis.parameters():
        parameter.add_(0.1)
    return source, target


def photos(source: Generator) -> list[Inverted]:
    codes = source.codes(source.sample_latents(0, range(2)))
    change = {"synthesis.b16.torgb.bias": torch.tensor([0.3, 0.0, -0.3])}
    return [Inverted(codes[0], change), Inverted(codes[1])]


def expected(generator: Generator, codes: torch.Tensor, share: float) -> np.ndarray:
    image = render(generator, codes[None], {"synthesis.b16.torgb.bias": share * torch.tensor([0.3, 0.0, -0.3])})
    return to_uint8(image)[0]


def test_frames_pass_the_photos_and_the_middle(generators: tuple[Generator, Generator]) -> None:
    source, target = generators
    one, other = photos(source)
    film = list(photo_walk(source, [target], [one, other], frames=4))
    assert len(film) == 8
    middle = (one.codes + other.codes) / 2
    for frame, codes, share in ((0, one.codes, 1.0), (2, middle, 0.5), (4, other.codes, 0.0), (6, middle, 0.5)):
        for column, generator in enumerate((source, target)):
            shown = film[frame][:, column * 16 : column * 16 + 16].astype(int)
            assert np.abs(shown - expected(generator, codes, share)).max() <= 1


def test_strengths_and_mixes(generators: tuple[Generator, Generator]) -> None:
    source, target = generators
    one = photos(source)[0]
    film = list(photo_walk(source, [target], [one], strengths=(0.0, 1.0), frames=4))
    shown = [frame[:, 16:].astype(int) for frame in film]
    half = blend_weights(source, [target], [0.5])
    for frame, generator in ((0, source), (1, half), (2, target), (3, half)):
        assert np.abs(shown[frame] - expected(generator, one.codes, 1.0)).max() <= 1
    (mixed,) = photo_walk(source, [target, source], [one], mix=(0.5, 0.5), frames=1)
    assert mixed.shape == (16, 32, 3)
    assert np.abs(mixed[:, 16:].astype(int) - expected(half, one.codes, 1.0)).max() <= 1


def test_wrong_arguments_are_explained(generators: tuple[Generator, Generator]) -> None:
    source, target = generators
    one, other = photos(source)
    for arguments, options, message in (
        ([], {}, "at least one photo"),
        ([one], {"strengths": ()}, "one strength"),
        ([one], {"mix": (1.0, 0.0)}, "2 shares"),
        ([one, Inverted(other.codes[:2])], {}, "different generators"),
    ):
        with pytest.raises(ZeroshiftError, match=message):
            next(iter(photo_walk(source, [target], arguments, **options)))  # type: ignore[arg-type]
