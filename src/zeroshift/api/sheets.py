"""Images put together as one picture, which a notebook shows: `zeroshift.picture`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.io.image_files import read_image, to_tensor
from zeroshift.io.images import labeled_rows, make_grid

__all__ = ["picture"]

Picture = str | Path | Image.Image | Tensor
Images = Picture | Sequence[Picture]


def picture(images: Images | Mapping[str, Images], columns: int = 8, scale: int = 1) -> Image.Image:
    """Images as one PIL image, which a notebook shows.

    Args:
        images: an image file, a PIL image, a tensor in [-1, 1], [3, H, W] or [N, 3, H, W], or a sequence of such images
            of one size. A mapping gives a row with its label for each entry.
        columns: images per row of a grid; a mapping has one row per entry.
        scale: enlargement of the images by a whole number.

    Raises:
        ZeroshiftError: no images, a file that cannot be read, a tensor of another shape, or images of different sizes.

    Examples:
        >>> pairs = zeroshift.generate("runs/zombie", 3, output="pil")
        >>> sheet = zeroshift.picture([adapted for _, adapted in pairs])
        >>> sheet.size
        (196, 64)
    """
    if isinstance(images, Mapping):
        rows = {label: _batch(each) for label, each in images.items()}
        if len({each.shape for each in rows.values()}) != 1:
            raise ZeroshiftError("Rows of a picture must have the same number of images of one size.")
        return Image.fromarray(labeled_rows(rows, scale))
    batch = _batch(images)
    if scale != 1:
        batch = F.interpolate(batch, scale_factor=scale, mode="bicubic")
    return Image.fromarray(make_grid(batch, min(columns, len(batch)), gap=None if len(batch) > 1 else 0))


def _batch(images: Images) -> Tensor:
    """Images [N, 3, H, W] in [-1, 1]."""
    if isinstance(images, Tensor):
        if images.ndim not in (3, 4) or images.shape[-3] != 3 or not images.numel():
            raise ZeroshiftError(f"An image must be a tensor [3, H, W] or [N, 3, H, W], not {list(images.shape)}.")
        return (images[None] if images.ndim == 3 else images).detach().float().cpu()
    if isinstance(images, str | Path):
        return read_image(images)[None]
    if isinstance(images, Image.Image):
        return to_tensor(images)[None]
    parts = [_batch(each) for each in images]
    if len({part.shape[1:] for part in parts}) != 1:
        raise ZeroshiftError("A picture needs at least one image, and all of one size.")
    return torch.cat(parts)
