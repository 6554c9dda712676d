"""Image and video files."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from zeroshift.errors import ZeroshiftError
from zeroshift.io.films import save_film
from zeroshift.io.images import labeled_rows, make_grid, to_uint8


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
    with pytest.raises(ZeroshiftError, match=r"\.mp4, \.gif or \.webp"):
        save_film(tmp_path / "a.avi", frames, fps=10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "a.mp4"]
