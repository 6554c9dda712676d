"""Image and video files."""

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image, PngImagePlugin

from zeroshift.errors import ZeroshiftError
from zeroshift.io.images import find_images, labeled_rows, make_grid, read_image, save_film, to_uint8


def test_photos_are_rotated_upright(tmp_path: Path) -> None:
    upright = np.arange(6, dtype=np.uint8).reshape(3, 2, 1).repeat(3, axis=2) * 40
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate clockwise by 90 degrees
    Image.fromarray(np.rot90(upright)).save(tmp_path / "held.png", exif=exif)
    Image.fromarray(upright).save(tmp_path / "upright.png")
    assert torch.equal(read_image(tmp_path / "held.png"), read_image(tmp_path / "upright.png"))


def test_sixteen_bit_images_keep_their_high_bytes(tmp_path: Path) -> None:
    gray = np.linspace(0, 65535, 12).astype(np.uint16).reshape(3, 4)
    Image.fromarray(gray).save(tmp_path / "deep.png")
    expected = torch.from_numpy((gray >> 8).astype(np.float32)) / 127.5 - 1
    assert torch.equal(read_image(tmp_path / "deep.png"), expected.expand(3, -1, -1))


def test_files_that_are_not_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_text("<html>")
    with pytest.raises(ZeroshiftError, match=r"page.png cannot be read"):
        read_image(tmp_path / "page.png")
    with pytest.raises(ZeroshiftError, match=r"There is no image .*gone.png"):
        read_image(tmp_path / "gone.png")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    """Pillow raises more than OSError: a broken chunk is a SyntaxError, an endless text chunk a ValueError."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * 2_000_000, zip=True)
    picture.save(tmp_path / "text.png", pnginfo=text)
    picture.save(tmp_path / "camera.png", exif=b"Exif\0\0nonsense")
    picture.save(tmp_path / "chunk.png")
    whole = (tmp_path / "chunk.png").read_bytes()
    start = whole.index(b"IDAT") - 4
    (length,) = struct.unpack(">I", whole[start : start + 4])
    half = struct.pack(">I", length // 2)  # half of the pixels in one chunk; the next one has no name
    rest = half + bytes(4) + whole[start + 8 + length // 2 :]
    (tmp_path / "chunk.png").write_bytes(
        whole[:start] + half + whole[start + 4 : start + 8 + length // 2] + bytes(4) + rest
    )
    for name in ("text", "camera", "chunk"):
        with pytest.raises(ZeroshiftError, match=rf"{name}\.png cannot be read"):
            read_image(tmp_path / f"{name}.png")


def paint(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(file)


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "real"  # a hidden parent folder does not matter
    visible = [folder / "a.png", folder / "b" / "c.JPG"]
    paint(*visible, folder / "._a.png", folder / ".thumbnails" / "a.png", folder / "b" / ".zeroshift-12-c.png")
    assert find_images(folder) == visible


def test_folders_with_images_of_several_kinds_are_refused(tmp_path: Path) -> None:
    run, samples = tmp_path / "run", tmp_path / "run" / "samples"
    paint(run / "pairs.png", samples / "grid.png", samples / "source" / "0000.png", samples / "target" / "0000.png")
    (run / "config.json").write_text("{}")
    with pytest.raises(ZeroshiftError, match=r"run is a run folder, .*\. Name a folder of images"):
        find_images(run)
    with pytest.raises(ZeroshiftError, match=rf"of two generators\. Name {samples}/target or {samples}/source\."):
        find_images(samples)
    assert find_images(samples / "target") == [samples / "target" / "0000.png"]
    paint(tmp_path / "mine" / "grid.png", tmp_path / "mine" / "source" / "a.png")
    assert len(find_images(tmp_path / "mine")) == 2, "not a folder that `generate` wrote"


def test_images_become_pixels_sheets_and_labeled_rows() -> None:
    images = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])[:, None, None, None].expand(5, 1, 2, 2)
    assert to_uint8(images)[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(images).shape == (5, 2, 2, 3)
    sheet = make_grid(images, columns=3, gap=1)
    assert sheet.shape == (5, 8, 3)
    assert sheet[0, 2].tolist() == [255] * 3  # the gap is white
    assert sheet[3, 3].tolist() == [255] * 3
    rows = labeled_rows({"photo": images, "zombie": images}, scale=4)
    assert rows.shape[0] > 16
    assert rows.shape[1] > 40
    with pytest.raises(ValueError, match="expected images"):
        to_uint8(torch.zeros(3, 4, 4))


@pytest.mark.parametrize("size", [(16, 32), (15, 31)])
def test_films_of_any_size_can_be_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
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
