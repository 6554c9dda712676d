"""Titles of pictures: a heading above a sheet, a card at the beginning of a film. Uses the font inside Pillow only."""

import functools
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zeroshift.errors import ZeroshiftError

__all__ = ["INK", "font", "require_title", "with_card", "with_heading"]

INK = (60, 60, 70)
_SMALLEST, _LARGEST = 12, 96  # font sizes, in pixels
_CARD_SECONDS = 1.5
_LINE = 1.3  # distance of lines, in font sizes
_SPELLED = str.maketrans({"→": "->", "–": "-", "—": "-", "’": "'", "×": "x"})
_MISSING = "\uffff"  # drawn as the box of a missing glyph

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@functools.lru_cache(maxsize=128)
def font(size: int) -> Font:
    """The font of all text in pictures."""
    return ImageFont.load_default(size=size)


def require_title(title: str) -> str:
    """The title with characters that the font has.

    Raises:
        ZeroshiftError: if it has others, for which the font has no substitute.
    """
    title = " ".join(title.translate(_SPELLED).split())
    missing = "".join(dict.fromkeys(character for character in title if not _has(character)))
    if missing:
        raise ZeroshiftError(
            f"The title has characters that cannot be drawn: {missing}. Use English letters, digits and punctuation."
        )
    return title


@functools.cache
def _has(character: str) -> bool:
    box = font(_SMALLEST)
    return character == " " or bytes(box.getmask(character)) != bytes(box.getmask(_MISSING))


def with_heading(pixels: np.ndarray, title: str) -> np.ndarray:
    """uint8 [H, W, 3] with a title above it on white. It may become wider, so that the longest word fits.

    Raises:
        ZeroshiftError: see `require_title`.
    """
    title = require_title(title)
    if not title:
        return pixels
    height, width, _ = pixels.shape
    size = min(_LARGEST, max(_SMALLEST, width // 24))
    margin = size // 2
    wide = max(width, 2 * margin + _longest_word(title, size))
    lines = _wrapped(title, size, wide - 2 * margin)
    top = 2 * margin + _height(lines, size)
    sheet = Image.new("RGB", (wide, top + height), "white")
    _draw(sheet, lines, size, (wide / 2, top / 2))
    sheet.paste(Image.fromarray(pixels), ((wide - width) // 2, top))
    return np.asarray(sheet)


def with_card(frames: Iterable[np.ndarray], title: str, fps: int) -> Iterator[np.ndarray]:
    """Frames of a film, after a card with its title that is shown for 1.5 seconds.

    Raises:
        ZeroshiftError: see `require_title`; or if the title does not fit into a frame.
    """
    frames, title = iter(frames), require_title(title)
    first = next(frames, None)
    if first is None:
        return
    if title:
        yield from itertools.repeat(_card(first.shape[0], first.shape[1], title), max(1, round(_CARD_SECONDS * fps)))
    yield first
    yield from frames


def _card(height: int, width: int, title: str) -> np.ndarray:
    """The title in the middle of a white image, as large as fits."""
    for size in range(min(_LARGEST, height // 4), _SMALLEST - 1, -1):
        room = width - size
        if _longest_word(title, size) > room:
            continue
        lines = _wrapped(title, size, room)
        if _height(lines, size) <= height - size:
            card = Image.new("RGB", (width, height), "white")
            _draw(card, lines, size, (width / 2, height / 2))
            return np.asarray(card)
    raise ZeroshiftError(
        f"The title {title!r} does not fit into frames of {width} x {height} pixels. Shorten it, or enlarge the film "
        "with --scale."
    )


def _wrapped(text: str, size: int, width: float) -> list[str]:
    """The words in lines of at most this width; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and font(size).getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _longest_word(text: str, size: int) -> int:
    return 1 + int(max(font(size).getlength(word) for word in text.split()))


def _height(lines: list[str], size: int) -> int:
    return round(len(lines) * size * _LINE)


def _draw(image: Image.Image, lines: list[str], size: int, center: tuple[float, float]) -> None:
    """Draws lines around a point."""
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        y = center[1] + (number - (len(lines) - 1) / 2) * size * _LINE
        draw.text((center[0], y), line, fill=INK, font=font(size), anchor="mm")
