"""Images as tensors in [-1, 1] and uint8: grids, squares, labeled rows; PNG, WebP and JPEG files are written here."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import atomic_write
from zeroshift.io.outputs import MARK
from zeroshift.io.titles import INK, font

__all__ = [
    "data_uri", "eight_bit", "labeled_rows", "make_grid", "metadata", "require_picture_name", "save_picture",
    "save_png", "small", "square", "tile_grid", "to_uint8",
]  # fmt: skip

_FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}


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
    return tile_grid(to_uint8(images), columns, gap)


def tile_grid(tiles: Sequence[np.ndarray] | np.ndarray, columns: int, gap: int | None = None) -> np.ndarray:
    """As `make_grid`, of uint8 images [H, W, 3] of one size."""
    height, width, _ = tiles[0].shape
    gap = max(1, width // 32) if gap is None else gap
    rows = -(-len(tiles) // columns)
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
    letters = font(max(12, strips[0].shape[0] // 8))
    margin = max(12, strips[0].shape[0] // 10)
    left = margin + int(max(letters.getlength(label) for label in rows)) + margin
    height = sum(strip.shape[0] + margin for strip in strips) + margin
    sheet = Image.new("RGB", (left + strips[0].shape[1] + margin, height), "white")
    draw, y = ImageDraw.Draw(sheet), margin
    for label, strip in zip(rows, strips, strict=True):
        draw.text((margin, y + strip.shape[0] // 2), label, fill=INK, font=letters, anchor="lm")
        sheet.paste(Image.fromarray(strip), (left, y))
        y += strip.shape[0] + margin
    return np.asarray(sheet)


def require_picture_name(path: str | Path) -> None:
    """Raises ZeroshiftError unless `save_picture` can write an image of this name."""
    if Path(path).suffix.lower() not in _FORMATS:
        raise ZeroshiftError(f"Cannot write an image to {str(path)!r}: the name must end in .png, .webp or .jpg.")


def save_picture(path: str | Path, pixels: np.ndarray, note: str = "") -> Path:
    """Writes uint8 [H, W, 3] as PNG, WebP (both without loss) or JPEG, atomically; the suffix decides.

    Args:
        path: the file.
        pixels: the image.
        note: what was done to the image, for the metadata of the file.

    Raises:
        ZeroshiftError: for another suffix, or if the file cannot be written.
    """
    require_picture_name(path)
    kind = _FORMATS[Path(path).suffix.lower()]
    if kind == "PNG":
        return save_png(path, pixels, note)
    loss = {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0}
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, format=kind, exif=metadata([note] if note else []), **loss)
    return Path(path)


def save_png(path: str | Path, pixels: np.ndarray, note: str = "", texts: Mapping[str, str] | None = None) -> Path:
    """Writes uint8 [H, W, 3] as a PNG file, atomically.

    Args:
        path, pixels, note: see `save_picture`.
        texts: further texts to store in the file, by keyword.
    """
    text = PngInfo()
    text.add_text("Software", MARK)
    if note:
        text.add_text("Description", note)
    for keyword, value in (texts or {}).items():
        text.add_itxt(keyword, value)
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=text)
    return Path(path)


def metadata(notes: Sequence[str]) -> bytes:
    """Our mark and notes as EXIF data, for WebP and JPEG."""
    exif = Image.Exif()
    exif[0x0131] = MARK  # Software
    if notes:
        exif[0x010E] = "; ".join(notes)  # ImageDescription
    return exif.tobytes()


def data_uri(pixels: np.ndarray, *, lossy: bool = False) -> str:
    """uint8 [H, W, 3] as a `data:` URI of a PNG, to embed in a page; lossy: of a WebP a tenth as large."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"format": "WebP", "quality": 90} if lossy else {"format": "PNG", "optimize": True}
    Image.fromarray(pixels).save(buffer, **options)
    return f"data:image/{options['format'].lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
