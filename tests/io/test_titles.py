"""Titles are drawn at every size, with the font that comes with Pillow."""

import numpy as np
import pytest

from zeroshift.errors import ZeroshiftError
from zeroshift.io.titles import require_title, with_card, with_heading


def ink(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left and right end of what is not white."""
    rows, columns = np.where((pixels != 255).any(axis=2))
    return rows.min(), rows.max(), columns.min(), columns.max()


@pytest.mark.parametrize("width", [8, 64, 300, 2000])
@pytest.mark.parametrize("title", ["zombie", "photo → zombie", "a long title of many words " * 4])
def test_headings_stand_above_the_picture_and_inside_the_sheet(width: int, title: str) -> None:
    picture = np.zeros((5, width, 3), np.uint8)
    sheet = with_heading(picture, title)
    height, wide, _ = sheet.shape
    left = (wide - width) // 2
    assert (sheet[-5:, left : left + width] == picture).all()
    top, bottom, start, end = ink(sheet[:-5])
    assert 0 < top < bottom < height - 6
    assert 0 < start < end < wide - 1
    assert bottom - top >= 7, "readable"


@pytest.mark.parametrize("size", [(64, 128), (64, 64), (256, 512), (1024, 2048)])
def test_films_begin_with_a_card_that_fits(size: tuple[int, int]) -> None:
    frames = [np.full((*size, 3), level, np.uint8) for level in (1, 2)]
    film = list(with_card(iter(frames), "photo -> zombie", fps=20))
    assert len(film) == 30 + 2
    assert all((one == film[0]).all() for one in film[:30])
    assert [one[0, 0, 0] for one in film[30:]] == [1, 2]
    top, bottom, start, end = ink(film[0])
    assert film[0].shape == frames[0].shape
    assert 0 < top < bottom < size[0] - 1
    assert 0 < start < end < size[1] - 1
    assert list(with_card(frames, "", 20)) == frames
    assert list(with_card([], "title", 20)) == []


def test_titles_that_cannot_be_drawn_are_refused() -> None:
    assert require_title("  photo →\n zombie — “x” ") == "photo -> zombie - “x”"
    with pytest.raises(ZeroshiftError, match="characters that cannot be drawn: 僵é"):
        require_title("僵 é 僵")
    with pytest.raises(ZeroshiftError, match=r"does not fit into frames of 16 x 16 pixels\. Shorten it, or enlarge"):
        list(with_card([np.zeros((16, 16, 3), np.uint8)], "photo -> zombie", 10))
