"""Images as tensors in [-1, 1] and uint8: grids, squares; PNG, MP4 and GIF files are written here."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import atomic_write
from zeroshift.io.ffmpeg import require_ffmpeg, write_mp4
from zeroshift.io.outputs import MARK

__all__ = [
    "data_uri", "eight_bit", "labeled_rows", "make_grid", "require_film_name", "save_film", "save_png", "small",
    "square", "to_uint8",
]  # fmt: skip

FILM_SUFFIXES = (".mp4", ".gif")


def square(image: torch.Tensor, resolution: int) -> torch.Tensor:
    """The center square of an image [3, H, W], resized to [3, resolution, resolution] (bicubic, antialiased)."""
    from torchvision.transforms.v2 import InterpolationMode  # takes seconds to import
    from torchvision.transforms.v2.functional import center_crop, resize

    side = min(image.shape[-2:])
    image = resize(center_crop(image, [side, side]), [resolution] * 2, InterpolationMode.BICUBIC, antialias=True)
    return image.clamp(-1, 1)


def small(images: torch.Tensor, side: int = 64) -> torch.Tensor:
    """Images [N, C, H, W], reduced so that neither side is longer than `side`; smaller ones as they are."""
    factor = side / max(images.shape[-2:])
    if factor >= 1:
        return images
    sizes = [max(1, round(factor * length)) for length in images.shape[-2:]]
    return F.interpolate(images.float(), sizes, mode="bilinear", antialias=True).clamp(-1, 1)


def eight_bit(images: torch.Tensor) -> torch.Tensor:
    """Images in [-1, 1] (clamped), rounded to the 256 levels of an 8-bit file."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Images [N, C, H, W] in [-1, 1] (clamped) as uint8 [N, H, W, 3]; a single channel is repeated."""
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"expected images [N, 1 or 3, H, W], got {tuple(images.shape)}")
    levels = (images.detach().float().clamp(-1, 1) + 1) * 127.5
    return levels.round().to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()


def make_grid(images: torch.Tensor, columns: int, gap: int | None = None) -> np.ndarray:
    """A grid of images [N, C, H, W] in [-1, 1] on white, row by row: uint8 [rows * H + gaps, columns * W + gaps, 3]."""
    tiles = to_uint8(images)
    n, height, width, _ = tiles.shape
    gap = max(1, width // 32) if gap is None else gap
    rows = -(-n // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[y : y + height, x : x + width] = tile
    return sheet


def labeled_rows(rows: dict[str, torch.Tensor], scale: int = 1) -> np.ndarray:
    """One row of images [N, C, H, W] per label, with the label on the left; `scale` enlarges small images."""
    sizes = {label: [scale * side for side in images.shape[-2:]] for label, images in rows.items()}
    larger = {label: F.interpolate(images, sizes[label], mode="bicubic") for label, images in rows.items()}
    strips = [make_grid(images, columns=len(images)) for images in larger.values()]
    font = ImageFont.load_default(size=max(12, strips[0].shape[0] // 8))
    margin = max(12, strips[0].shape[0] // 10)
    left = margin + int(max(font.getlength(label) for label in rows)) + margin
    height = sum(strip.shape[0] + margin for strip in strips) + margin
    sheet = Image.new("RGB", (left + strips[0].shape[1] + margin, height), "white")
    draw, y = ImageDraw.Draw(sheet), margin
    for label, strip in zip(rows, strips, strict=True):
        draw.text((margin, y + strip.shape[0] // 2), label, fill=(60, 60, 70), font=font, anchor="lm")
        sheet.paste(Image.fromarray(strip), (left, y))
        y += strip.shape[0] + margin
    return np.asarray(sheet)


def save_png(path: str | Path, pixels: np.ndarray) -> Path:
    """Writes uint8 [H, W, 3] as a PNG file, atomically."""
    metadata = PngInfo()
    metadata.add_text("Software", MARK)
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=metadata)
    return Path(path)


def data_uri(pixels: np.ndarray) -> str:
    """uint8 [H, W, 3] as a `data:` URI of a PNG, to embed in a page."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def require_film_name(path: str | Path) -> None:
    """Raises ZeroshiftError unless `save_film` can write a film of this name."""
    suffix = Path(path).suffix.lower()
    if suffix not in FILM_SUFFIXES:
        raise ZeroshiftError(
            f"Cannot write a film to {str(path)!r}: the name must end in {' or '.join(FILM_SUFFIXES)}."
        )
    if suffix == ".mp4":
        require_ffmpeg()


def save_film(path: str | Path, frames: Iterable[np.ndarray], fps: int) -> Path:
    """Writes uint8 frames [H, W, 3] of one size as .mp4 (H.264) or .gif (endless loop), atomically.

    Raises:
        ZeroshiftError: if the name ends neither in .mp4 nor in .gif, there are no frames, or the film could not be
            written completely. A film of this name from before then stays as it was.
    """
    path = Path(path)
    require_film_name(path)
    write = _write_gif if path.suffix.lower() == ".gif" else write_mp4
    with atomic_write(path) as temporary:
        if not write(temporary, frames, fps):
            raise ZeroshiftError(f"There are no frames for the film {path}. It needs at least one.")
    return path


def _write_gif(path: Path, frames: Iterable[np.ndarray], fps: int) -> int:
    images = [Image.fromarray(frame) for frame in frames]
    if images:
        film = io.BytesIO()  # Pillow reports no cause if it cannot write a file
        images[0].save(
            film, "GIF", save_all=True, append_images=images[1:], duration=1000 // fps, loop=0, comment=MARK.encode()
        )
        path.write_bytes(film.getvalue())
    return len(images)
