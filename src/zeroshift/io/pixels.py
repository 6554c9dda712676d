"""The pixels of a Pillow image of any mode, as 8-bit sRGB: transparency, bit depths, color spaces, color profiles."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps

__all__ = ["BACKGROUND", "Unsuitable", "to_rgb"]

BACKGROUND = (255, 255, 255)
"""The color behind transparent parts: white."""

TRANSPARENT = "transparent parts were laid over white"
BAD_PROFILE = "the embedded color profile is damaged or of another color space, and was ignored"
FRAMES = "only the first frame or page was read"
GAMMA = "the gamma value in the file was ignored"

_SRGB_GAMMA = 1 / 2.2
_SAME = 2  # levels of difference up to which a profile counts as sRGB, and pixels stay as they are
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK", "LAB": "Lab"}  # color space of a profile for a mode
_LEVELS = {"L;2": 85, "L;4": 17}  # steps between the gray levels of PNG files with few bits
_WHITE_IS_ZERO, _BITS, _PHOTOMETRIC, _SUBFILE = 0, 258, 262, 254  # TIFF: a value, three tags
_ONE_PICTURE = ("MPO", "PSD")  # further frames are gain maps, depth maps or layers of the same picture


class Unsuitable(Exception):
    """Pixels whose meaning is unknown. The message continues "The image NAME ..."."""


@dataclass(frozen=True)
class _Origin:
    """What is lost when Pillow loads or copies an image."""

    format: str
    raw_mode: str
    tags: dict[int, tuple[int, ...]]

    @classmethod
    def of(cls, image: Image.Image) -> "_Origin":
        tile = getattr(image, "tile", None)  # what Pillow's decoders get: format, place, offset, arguments
        arguments = tile[0][3] if tile else ""
        raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
        tiff = getattr(image, "tag_v2", None) or {}
        tags = {tag: value if isinstance(value, tuple) else (value,) for tag, value in dict(tiff).items()}
        return cls(image.format or "", raw if isinstance(raw, str) else "", tags)


def to_rgb(opened: Image.Image) -> tuple[Image.Image, list[str]]:
    """The first frame of an opened file as an upright sRGB image of mode RGB, and notes about what was left out.

    Transparent parts are laid over `BACKGROUND`. Colors are converted from the embedded profile to sRGB, unless it is
    sRGB within rounding: 8-bit RGB pixels then stay as they are. Of 16 bits the upper 8 are used.

    Raises:
        Unsuitable: whole numbers or floating-point numbers on an unknown scale, or a file that holds only a preview.
    """
    notes = []
    origin, profile = _Origin.of(opened), opened.info.get("icc_profile")
    if origin.format not in _ONE_PICTURE and getattr(opened, "is_animated", False):
        notes.append(FRAMES)
    gamma = opened.info.get("gamma", _SRGB_GAMMA)
    if not profile and "srgb" not in opened.info and abs(gamma - _SRGB_GAMMA) > 0.02:
        notes.append(GAMMA)
    if origin.tags.get(_SUBFILE, (0,))[0] & 1:
        raise Unsuitable("is a camera's raw file, of which only a preview can be read. Export it as PNG or JPEG")
    color, alpha = _split(ImageOps.exif_transpose(opened), origin)
    rgb = _to_srgb(color, profile, notes)
    if alpha is not None and alpha.getextrema()[0] != 255:
        notes.append(TRANSPARENT)
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, BACKGROUND), alpha)
    return rgb, notes


def _split(image: Image.Image, origin: _Origin) -> tuple[Image.Image, Image.Image | None]:
    """Color (mode L, RGB, CMYK or LAB) and alpha (mode L, or None if all is opaque), 8 bits each."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_numbers(image, origin)
    key = image.info.get("transparency")
    if key is not None and image.mode in ("1", "L", "RGB"):
        if origin.raw_mode.startswith("RGB;16"):
            raise Unsuitable("has 16 bits per color and one transparent color. Save it with an alpha channel")
        key = np.multiply(key, _LEVELS.get(origin.raw_mode, 1))
        color = image.convert("RGB" if image.mode == "RGB" else "L")
        same = np.atleast_3d(np.asarray(color)) == key
        return color, _mask(~same.all(axis=-1))
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.mode == "PA" or (image.mode == "P" and image.has_transparency_data):
        image = image.convert("RGBA")
    if image.mode in ("LA", "RGBA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    if image.mode == "1":
        return image.convert("L"), None
    return image if image.mode in _SPACES else image.convert("RGB"), None


def _from_numbers(image: Image.Image, origin: _Origin) -> tuple[Image.Image, Image.Image | None]:
    """Gray and alpha of an image of 16-bit, 32-bit or floating-point numbers."""
    values = np.asarray(image)
    if image.mode == "F":
        return Image.fromarray(_from_floats(values)), None
    sixteen_bits = ("PNG", "PPM") if image.mode == "I" else ("PNG", "PPM", "TIFF", "JPEG2000")
    if origin.format not in sixteen_bits:
        raise Unsuitable(
            f"is a {origin.format} file of whole numbers from {values.min()} to {values.max()}, whose scale is "
            "unknown. Save it with 8 bits per color"
        )
    bits = max(origin.tags.get(_BITS, (16,)))
    gray = (values >> (bits - 8)).clip(0, 255).astype(np.uint8)
    if origin.tags.get(_PHOTOMETRIC, (1,))[0] == _WHITE_IS_ZERO:
        gray = 255 - gray
    key = image.info.get("transparency")
    return Image.fromarray(gray), None if key is None else _mask(values != key)


def _from_floats(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    if not np.isfinite(values).all():
        raise Unsuitable("has values that are not finite numbers. Save it with 8 bits per color")
    if values.min() < 0 or values.max() > 1:
        raise Unsuitable(
            f"has floating-point values from {values.min():.4g} to {values.max():.4g}, whose scale is unknown: only 0 "
            "(black) to 1 (white) is. Save it with 8 bits per color"
        )
    levels: npt.NDArray[np.uint8] = (values * 255).round().astype(np.uint8)
    return levels


def _mask(opaque: npt.NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(opaque.astype(np.uint8) * 255)


def _to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """An image of mode L, RGB, CMYK or LAB in sRGB, mode RGB."""
    if profile:
        try:
            return _convert_profile(image, profile)
        except (ImageCms.PyCMSError, Unsuitable, OSError, ValueError, TypeError):
            notes.append(BAD_PROFILE)
    if image.mode == "LAB":
        return _transform(image, ImageCms.createProfile("LAB"))
    return image.convert("RGB")


def _convert_profile(image: Image.Image, content: bytes) -> Image.Image:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
    space = profile.profile.xcolor_space.strip()
    if image.mode == "L" and space == "RGB":
        image = image.convert("RGB")
    if _SPACES[image.mode] != space:
        raise Unsuitable(f"has a color profile for {space}")
    if image.mode in ("L", "RGB"):
        cube = _sample_colors(image.mode)
        change = np.asarray(_transform(cube, profile)).astype(int) - np.asarray(cube.convert("RGB"))
        if abs(change).max() <= _SAME:
            return image.convert("RGB")
    return _transform(image, profile)


def _sample_colors(mode: str) -> Image.Image:
    """An image of all grays, or of 9 levels per color."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3))


def _transform(image: Image.Image, profile: object) -> Image.Image:
    transform = ImageCms.buildTransform(
        profile,  # type: ignore[arg-type]
        ImageCms.createProfile("sRGB"),
        image.mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # only None if it works in place
    return converted
