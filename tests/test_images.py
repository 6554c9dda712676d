"""Image files as people have them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zeroshift.errors import ZeroshiftError
from zeroshift.images import read_image


def test_cameras_are_turned_upright(tmp_path: Path) -> None:
    upright = np.arange(6, dtype=np.uint8).reshape(3, 2, 1).repeat(3, axis=2) * 40
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(np.rot90(upright)).save(tmp_path / "held.png", exif=exif)
    Image.fromarray(upright).save(tmp_path / "upright.png")
    assert torch.equal(read_image(tmp_path / "held.png"), read_image(tmp_path / "upright.png"))


def test_sixteen_bits(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 12).astype(np.uint16).reshape(3, 4)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    expected = torch.from_numpy((grey >> 8).astype(np.float32)) / 127.5 - 1
    assert torch.equal(read_image(tmp_path / "deep.png"), expected.expand(3, -1, -1))


def test_what_is_no_image_is_told(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_text("<html>")
    with pytest.raises(ZeroshiftError, match=r"page.png cannot be read"):
        read_image(tmp_path / "page.png")
    with pytest.raises(ZeroshiftError, match=r"There is no image .*gone.png"):
        read_image(tmp_path / "gone.png")
