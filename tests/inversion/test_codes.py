from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.helpers.diffusion_models import ddpm
from zeroshift.errors import NotFiniteError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.inversion.codes import invert, read_folder

OPTIONS = DDIMOptions(t0=0.2, noise_steps=1, steps=1, invert_steps=2)


@pytest.fixture
def generator(tmp_path: Path) -> Generator:
    generator = load_generator(ddpm(tmp_path / "ddpm"))
    generator.configure(OPTIONS)
    return generator


def fail(done: int, total: int) -> None:
    raise AssertionError("an image was inverted again")


def count(cache: Path) -> int:
    return len(list(cache.glob("*.safetensors")))


def test_codes_equal_those_of_the_generator_and_are_cached(generator: Generator, tmp_path: Path) -> None:
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    reports: list[tuple[int, int]] = []
    codes = invert(generator, images, tmp_path / "cache", lambda done, total: reports.append((done, total)))
    torch.testing.assert_close(codes, generator.invert(images), atol=1e-5, rtol=1e-4)
    assert reports == [(4, 5), (5, 5)]
    assert torch.equal(invert(generator, images.flip(0), tmp_path / "cache", fail), codes.flip(0))


def test_the_cache_key_covers_everything_that_codes_depend_on(generator: Generator, tmp_path: Path) -> None:
    image, cache = torch.zeros(1, 3, 16, 16), tmp_path / "cache"
    invert(generator, image, cache)
    generator.configure(replace(OPTIONS, steps=7, noise_steps=9, gradient_checkpointing=True))
    invert(generator, image, cache, fail)
    assert count(cache) == 1, "settings of sampling do not matter"
    for change in ({"t0": 0.3}, {"invert_steps": 3}, {"clip_sample": False}, {"solver": "dpm-solver++"}):
        generator.configure(replace(OPTIONS, **change))
        before = count(cache)
        invert(generator, image, cache)
        assert count(cache) == before + 1, change
    generator.configure(OPTIONS)
    invert(generator, image + 0.1, cache)
    with torch.no_grad():
        next(generator.parameters()).add_(0.1)
    invert(generator, image, cache)
    assert count(cache) == 7, "other pixels and other weights have separate files"


def test_damaged_codes_are_computed_again(generator: Generator, tmp_path: Path) -> None:
    image, cache = torch.zeros(1, 3, 16, 16), tmp_path / "cache"
    codes = invert(generator, image, cache)
    (file,) = cache.iterdir()
    content = file.read_bytes()
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), content[:-1], b"", content.replace(b"codes", b"kodes")):
        file.write_bytes(damaged)
        assert torch.equal(invert(generator, image, cache), codes)
        assert file.read_bytes() == content
    save_file({"codes": torch.full_like(codes[0], float("nan"))}, file)  # as of an earlier version
    assert torch.equal(invert(generator, image, cache), codes)


def test_codes_that_are_not_finite_are_not_kept(generator: Generator, tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError, match="inversion of images gave values"):
        invert(generator, torch.full((1, 3, 16, 16), 1e38) * 10, tmp_path / "cache")
    assert count(tmp_path / "cache") == 0


def test_folders_are_read_as_center_squares(tmp_path: Path) -> None:
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 255
    Image.fromarray(wide).save(tmp_path / "b.png")
    Image.fromarray(wide[:, :4]).save(tmp_path / "a.png")
    images = read_folder(tmp_path, 4)
    assert images.shape == (2, 3, 4, 4)
    assert torch.equal(images[1], torch.ones(3, 4, 4))
    assert images[0].min() == -1
