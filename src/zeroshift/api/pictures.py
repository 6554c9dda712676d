"""Images in and out: photos of several kinds, and results as PIL images or tensors."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.inversion.faces import Faces, photo_crops
from zeroshift.inversion.inverted import Inverted
from zeroshift.inversion.portraits import alignment, portraits
from zeroshift.io.image_files import ImageReader, to_tensor
from zeroshift.io.images import require_picture_name, save_picture, square, tile_grid, to_uint8
from zeroshift.io.scaling import Resample, Scale
from zeroshift.io.titles import with_heading

__all__ = ["Output", "Photo", "Photos", "as_pil", "output_scale", "pictures", "save_image"]

_AS_IT_IS = Scale()

Photo = str | Path | Image.Image | Tensor | Inverted
"""An image file, a folder of images, a file of `zeroshift invert`, a PIL image, a tensor [3, H, W] in [-1, 1], or an
inverted photo."""
Photos = Photo | Sequence[Photo]
Output = Literal["pil", "tensor"]


def as_pil(images: Tensor, scale: Scale = _AS_IT_IS) -> list[Image.Image]:
    """Images [N, 3, H, W] in [-1, 1] as PIL images."""
    return [Image.fromarray(scale(pixels)) for pixels in to_uint8(images)]


def output_scale(scale: int | str, resample: Resample, output: Output) -> Scale:
    """The size of images that a function returns.

    Raises:
        ZeroshiftError: if it is invalid, or the images are tensors.
    """
    chosen = Scale.parse(scale, resample)
    if output == "tensor" and chosen != Scale(resample=resample):
        raise ZeroshiftError('Only PIL images are scaled: leave `scale` out, or use output="pil".')
    return chosen


def save_image(
    path: str | Path,
    image: Tensor | Image.Image,
    columns: int = 8,
    *,
    scale: int | str = 1,
    resample: Resample = "auto",
    title: str = "",
) -> Path:
    """Writes an image file, atomically; the suffix decides the format: .png, .webp (without loss) or .jpg.

    Args:
        path: file to write; an existing one is replaced.
        image: a PIL image, or a tensor in [-1, 1]: [3, H, W], or [N, 3, H, W] for a grid.
        columns: images per row of a grid.
        scale: enlarges each image: a whole factor, such as 4, or a height, such as "1024px". The file says so in its
            metadata.
        resample: "nearest" repeats pixels, "lanczos" is smooth; "auto": nearest for whole factors, otherwise lanczos.
        title: a heading above the image or the grid.

    Raises:
        ZeroshiftError: another suffix, a tensor of another shape, an invalid scale, a title with characters that cannot
            be drawn, or a file that cannot be written.

    Examples:
        >>> save_image("black.webp", torch.full((3, 64, 64), -1.0), scale=4, title="black").name
        'black.webp'
    """
    require_picture_name(path)
    chosen = Scale.parse(scale, resample)
    if isinstance(image, Tensor):
        if image.ndim not in (3, 4) or image.shape[-3] != 3:
            raise ZeroshiftError(f"An image must be a tensor [3, H, W] or [N, 3, H, W], not {list(image.shape)}.")
        tiles = to_uint8(image[None] if image.ndim == 3 else image)
    else:
        tiles = np.asarray(image.convert("RGB"))[None]
    sheet = tile_grid(chosen(tiles), min(columns, len(tiles)))
    return save_picture(path, with_heading(sheet, title), chosen.note(*tiles.shape[1:3]))


def pictures(
    photos: Photos, resolution: int, *, align: str | None, faces: Faces, generator: str
) -> list[Tensor | Inverted]:
    """The squares [3, resolution, resolution] to invert, in order, and photos that are inverted already.

    Args:
        photos: one or more photos.
        align, faces: see `photo_crops`; align None: the default of the generator.
        generator: name or file of the source generator.

    Raises:
        ZeroshiftError: photos of other types, that cannot be read, or without a face.
    """
    several = [photos] if isinstance(photos, str | Path | Image.Image | Tensor | Inverted) else list(photos)
    if not several:
        raise ZeroshiftError("Give at least one photo.")
    with ImageReader() as reader:
        return [one for photo in several for one in _squares(photo, reader, resolution, align, faces, generator)]


def _squares(
    photo: Photo, reader: ImageReader, resolution: int, align: str | None, faces: Faces, generator: str
) -> Iterator[Tensor | Inverted]:
    """The squares of one photo, or of the files in a folder."""
    if isinstance(photo, Inverted):
        yield photo
    elif isinstance(photo, str | Path):
        for one in portraits([Path(photo)], align, faces, generator):
            yield one.inverted() if one.is_inverted else one.picture(reader, resolution)
    elif isinstance(photo, Image.Image | Tensor):
        pixels = to_tensor(photo) if isinstance(photo, Image.Image) else photo.detach().float().cpu()
        if pixels.ndim != 3 or pixels.shape[0] != 3:
            raise ZeroshiftError(f"A photo as a tensor must be [3, H, W] in [-1, 1], not {list(pixels.shape)}.")
        chosen = alignment(align, generator)
        crops = [] if chosen == "none" else photo_crops(pixels, chosen, faces)
        yield from [crop.cut(pixels, resolution) for crop in crops] or [square(pixels, resolution)]
    else:
        raise ZeroshiftError(f"{photo!r:.60} is no photo. Give a file, a PIL image or a tensor [3, H, W].")
