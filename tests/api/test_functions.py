"""The functions agree with the commands, take photos of all kinds, and refuse what they cannot do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zeroshift
from tests.helpers.evaluated_runs import make_run
from zeroshift.cli.main import main
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.io.images import to_uint8

FAST = {"invert_steps": 3, "tune_steps": 2, "distance": "pyramid"}


@pytest.fixture
def run(tiny_generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run whose target differs from its source."""
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path / "cache"))
    folder = make_run(tiny_generator, tmp_path / "run")
    target = load_generator(folder.generator_path)
    with torch.no_grad():
        for parameter in target.synthesis.parameters():
            parameter += 0.05
    zeroshift.save_generator(target, folder.generator_path)
    return folder.path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "me.png"
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((30, 20), Image.Resampling.BICUBIC).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_samples_are_those_of_the_command(run: Path, tmp_path: Path) -> None:
    assert main(["generate", str(run), "--num", "3", "--out", str(tmp_path / "out")]) == 0
    pairs = list(zeroshift.generate(run, 3, output="pil"))
    assert len(pairs) == 3
    for number, pair in enumerate(pairs):
        for side, image in zip(("source", "target"), pair, strict=True):
            assert (np.asarray(image) == pixels(tmp_path / "out" / side / f"{number:08d}.png")).all()
    (batch,) = zeroshift.generate(str(run), 3)
    assert [images.shape for images in batch] == [(3, 3, 16, 16)] * 2
    generators = [load_generator(run / "generator.safetensors")]
    ((alone,),) = zeroshift.generate(generators, 2, truncation_psi=0.7)
    torch.testing.assert_close(alone, batch[1][:2])
    with pytest.raises(ZeroshiftError, match="Give truncation_psi"):
        zeroshift.generate(generators, 2)


@pytest.mark.slow
def test_photos_of_all_kinds_give_the_same_picture(run: Path, photo: Path) -> None:
    opened = Image.open(photo)
    tensor = torch.from_numpy(pixels(photo).copy()).permute(2, 0, 1) / 127.5 - 1
    results = [zeroshift.translate(run, one, **FAST) for one in (photo, str(photo), opened, tensor, [photo])]
    assert all(len(result) == 1 for result in results)
    for (image,) in results:
        assert image.size == (16, 16)
        assert (np.asarray(image) == np.asarray(results[0][0])).all()


def test_photos_are_translated_as_by_the_command(run: Path, photo: Path, tmp_path: Path) -> None:
    fast = ["--invert-steps", "3", "--tune-steps", "2", "--distance", "pyramid"]
    assert main(["translate", str(run), str(photo), *fast, "--strength", "0.6", "--out", str(tmp_path / "out")]) == 0
    (image,) = zeroshift.translate(run, photo, strength=0.6, **FAST)
    assert (pixels(tmp_path / "out" / "me.png")[:, -16:] == np.asarray(image)).all()


def test_several_runs_are_mixed_or_shown_apart(run: Path, photo: Path) -> None:
    apart = zeroshift.translate([run, run], [photo, photo], separate=True, output="tensor", **FAST)
    assert apart.shape == (2, 2, 3, 16, 16)
    mixed = zeroshift.translate([run, run], photo, mix=[0.25, 0.75], output="tensor", **FAST)
    torch.testing.assert_close(mixed[0], apart[0, 0], atol=1e-4, rtol=0)
    with pytest.raises(ZeroshiftError, match="1 shares of a mix for 2 runs"):
        zeroshift.translate([run, run], photo, mix=[1.0], **FAST)


def test_inverted_photos_are_kept_in_files(run: Path, photo: Path, tiny_generator: Path, tmp_path: Path) -> None:
    options = {"steps": 3, "tune_steps": 2, "distance": "pyramid", "device": "cpu"}
    (inverted,) = zeroshift.invert(photo, tiny_generator, **options)  # type: ignore[arg-type]
    inverted.save(tmp_path / "me.safetensors")
    from_object, from_file = (zeroshift.translate(run, one)[0] for one in (inverted, tmp_path / "me.safetensors"))
    assert (np.asarray(from_object) == np.asarray(from_file)).all()
    film = list(zeroshift.interpolate(run, photos=inverted, strengths=(0, 1), frames=4))
    assert [frame.shape for frame in film] == [(16, 32, 3)] * 4


def test_films_are_those_of_the_command(run: Path, tmp_path: Path) -> None:
    command = ["interpolate", str(run), "--seeds", "1,2", "--seconds", "0.1", "--fps", "20", "--strength", "0,1"]
    assert main([*command, "--out", str(tmp_path / "command.gif")]) == 0
    film = zeroshift.interpolate(run, seeds=(1, (2, 0)), strengths=(0, 1), frames=2)
    zeroshift.save_film(tmp_path / "function.gif", film, fps=20)
    assert (tmp_path / "function.gif").read_bytes() == (tmp_path / "command.gif").read_bytes()


def test_pictures_are_scaled_and_titled(run: Path, photo: Path, tmp_path: Path) -> None:
    ((before, after),) = zeroshift.generate(run, 1, output="pil", scale=3)
    ((small, _),) = zeroshift.generate(run, 1, output="pil")
    assert (np.asarray(before) == np.asarray(small).repeat(3, axis=0).repeat(3, axis=1)).all()
    assert after.size == (48, 48)
    (smooth,) = zeroshift.translate(run, photo, scale="40px", resample="lanczos", **FAST)
    assert smooth.size == (40, 40)
    assert [frame.shape for frame in zeroshift.interpolate(run, seeds=(1,), frames=2, scale=2)] == [(32, 64, 3)] * 2
    film = zeroshift.interpolate(run, seeds=(1,), frames=2)
    with Image.open(zeroshift.save_film(tmp_path / "a.webp", film, 10, scale=4, title="zombie")) as opened:
        assert opened.size == (128, 64)
    path = zeroshift.save_image(tmp_path / "a.png", small, scale="64px", title="photo")
    with Image.open(path) as opened:
        assert opened.width == 64
        assert opened.height > 64
        assert "scaled from 16 x 16 to 64 x 64" in opened.text["Description"]
    with pytest.raises(ZeroshiftError, match="Only PIL images are scaled"):
        zeroshift.generate(run, 1, scale=2)


def test_results_are_shared(run: Path, tmp_path: Path) -> None:
    assert zeroshift.export(run, out=tmp_path / "g.safetensors") == tmp_path / "g.safetensors"
    assert load_generator(tmp_path / "g.safetensors").resolution == 16
    files = zeroshift.push(run, "me/zombie", dry_run=True)
    assert {"README.md", "generator.safetensors"} <= {Path(file).name for file in files}
    with pytest.raises(ZeroshiftError, match="is no name of a repository"):
        zeroshift.push(run, "zombie")


def test_images_are_saved_by_suffix(tmp_path: Path) -> None:
    images = torch.linspace(-1, 1, 2 * 3 * 4 * 4).view(2, 3, 4, 4)
    assert (pixels(zeroshift.save_image(tmp_path / "one.png", images[0])) == to_uint8(images)[0]).all()
    with Image.open(zeroshift.save_image(tmp_path / "grid.webp", images)) as grid:
        assert (grid.format, grid.size) == ("WEBP", (9, 4))
    with pytest.raises(ZeroshiftError, match=r"must end in \.png, \.webp or \.jpg"):
        zeroshift.save_image(tmp_path / "one", images[0])
    with pytest.raises(ZeroshiftError, match=r"must be a tensor \[3, H, W\]"):
        zeroshift.save_image(tmp_path / "one.png", images[:, :2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.webp", "one.png"]


def test_what_is_no_photo_or_run_is_refused(run: Path, tmp_path: Path) -> None:
    for photos, sentence in (
        ([], "Give at least one photo"),
        ([3], "3 is no photo"),
        (torch.zeros(4, 5), r"must be \[3, H, W\]"),
        (Image.new("I", (4, 4), 70000), "The image"),
        (tmp_path / "missing.png", "There is no image"),
    ):
        with pytest.raises(ZeroshiftError, match=sentence):
            zeroshift.translate(run, photos, **FAST)  # type: ignore[arg-type]
    with pytest.raises(ZeroshiftError, match="is not a run folder"):
        list(zeroshift.interpolate(tmp_path / "nothing"))
    with pytest.raises(ZeroshiftError, match="at least one run folder"):
        zeroshift.translate([], tmp_path / "me.png")
