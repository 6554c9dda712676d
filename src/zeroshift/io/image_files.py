"""Reads image files of every kind that Pillow opens, and finds them in folders. All commands read images here."""

import importlib
import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from zeroshift.errors import ZeroshiftError
from zeroshift.io.foreign import first_line
from zeroshift.io.outputs import is_ours
from zeroshift.io.pixels import Unsuitable, to_rgb

__all__ = ["MAX_PIXELS", "ImageReader", "find_images", "read_image", "to_tensor"]

MAX_PIXELS = 120_000_000
"""Largest image that is read: about 1.4 GB as float32."""

_SHOWN = 3  # names in a message
# Formats without pixels, or that Pillow would hand to another program. They count as other files.
_NOT_PIXELS = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"})
_SAFE_PROBES = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000")  # recognized by their first bytes
_RAW_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef",
    ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srf", ".srw", ".x3f",
})  # fmt: skip
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class _PlugIn:
    """A package that teaches Pillow a format."""

    package: str
    module: str
    opener: str | None  # function to call after the import
    suffixes: tuple[str, ...]
    marks: tuple[bytes, ...]  # how files of the format begin, after the length of the first box


_PLUG_INS = (
    _PlugIn(
        "pillow-heif",
        "pillow_heif",
        "register_heif_opener",
        (".heic", ".heics", ".heif", ".heifs", ".hif"),
        tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")),
    ),
    _PlugIn("pillow-avif-plugin", "pillow_avif", None, (".avif", ".avifs"), (b"ftypavif", b"ftypavis")),
    _PlugIn("pillow-jxl-plugin", "pillow_jxl", None, (".jxl",), (b"JXL ",)),
)


class ImageReader:
    """Reads image files, and says once at the end what was left out: alpha, further frames, damaged color profiles.

    Use it as a context manager, or call `say` after reading. A file is mentioned once, however often it is read.
    """

    def __init__(self) -> None:
        self._notes: dict[str, dict[Path, bool]] = {}  # note -> file -> whether it was said

    def read(self, path: str | Path) -> torch.Tensor:
        """An image file as [3, H, W], float32 in [-1, 1], upright, in sRGB, without transparency.

        See `zeroshift.io.pixels.to_rgb` for the meaning of each kind of pixels.

        Raises:
            ZeroshiftError: if the file does not exist or is no readable image, has more than `MAX_PIXELS` pixels, or
                pixels whose scale is unknown.
        """
        path = Path(path)
        try:
            with warnings.catch_warnings(record=True) as caught:
                image, notes = _load(path)
        except ZeroshiftError:
            raise
        except Unsuitable as error:
            raise ZeroshiftError(f"The image {path} {error}.") from error
        except FileNotFoundError as error:
            raise ZeroshiftError(f"There is no image {path}. Check the path.") from error
        except (IsADirectoryError, PermissionError) as error:
            raise ZeroshiftError(f"The image {path} cannot be read: {error.strerror}.") from error
        except Exception as error:  # Pillow's readers raise almost anything for damaged files
            raise ZeroshiftError(f"The image {path} cannot be read ({first_line(error)}). Save it again.") from error
        # What Pillow warns users of, such as damaged EXIF data; its other warnings are for developers.
        notes += [str(each.message) for each in caught if each.category is UserWarning]
        for note in notes:
            self._notes.setdefault(note, {}).setdefault(path, False)
        return _pixels(image)

    def say(self) -> None:
        """Warns of what was left out in files that were not mentioned before; one warning per kind."""
        for note, files in self._notes.items():
            new = [path for path, said in files.items() if not said]
            if new:
                warnings.warn(f"{_names(new, len(new) > 1)}: {note}.", stacklevel=3)
            files.update(dict.fromkeys(new, True))

    def __enter__(self) -> "ImageReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.say()


def read_image(path: str | Path) -> torch.Tensor:
    """One image file, see `ImageReader.read`. Warns of what was left out."""
    with ImageReader() as reader:
        return reader.read(path)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """A PIL image as [3, H, W], float32 in [-1, 1], in the same way as `ImageReader.read`.

    Raises:
        ZeroshiftError: if it has pixels whose scale is unknown.
    """
    try:
        return _pixels(to_rgb(image)[0])
    except Unsuitable as error:
        raise ZeroshiftError(f"The image {error}.") from error


def _pixels(image: Image.Image) -> torch.Tensor:
    """An RGB image as [3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(127.5).sub_(1)


def _load(path: Path) -> tuple[Image.Image, list[str]]:
    if path.suffix.lower() in _RAW_SUFFIXES:
        raise Unsuitable("is a camera's raw file. Export it as PNG or JPEG")
    with _open(path) as opened:
        if opened.format in _NOT_PIXELS:
            raise Unsuitable(f"cannot be read: {opened.format} is no format of pixels. Save it as PNG or JPEG")
        if opened.width * opened.height > MAX_PIXELS:
            raise Unsuitable(_too_large(f"{opened.width} x {opened.height} pixels"))
        return to_rgb(opened)


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unsuitable(_too_large("too many pixels")) from error
    except UnidentifiedImageError as error:
        plug_in = _plug_in(path)
        if plug_in is None:
            raise Unsuitable("cannot be read: it is empty, damaged or no image. Use PNG or JPEG files") from error
        if not _enabled(plug_in):
            raise Unsuitable(f"needs a package: pip install {plug_in.package}. Or save it as PNG or JPEG") from error
    return Image.open(path)


def _too_large(size: str) -> str:
    return f"has {size}; at most {MAX_PIXELS / 1e6:.0f} million are read. Reduce it first"


def _plug_in(path: Path) -> _PlugIn | None:
    """The plug-in for a file that Pillow does not know, by its first bytes or its suffix."""
    with open(path, "rb") as file:
        head = file.read(12)
    for each in _PLUG_INS:
        if head[4:].startswith(each.marks) or path.suffix.lower() in each.suffixes:
            return each
    return _PLUG_INS[-1] if head.startswith(b"\xff\x0a") else None


@cache
def _enabled(plug_in: _PlugIn) -> bool:
    """Whether the plug-in is installed. It then is registered with Pillow."""
    try:
        module = importlib.import_module(plug_in.module)
    except ImportError:
        return False
    if plug_in.opener is not None:
        getattr(module, plug_in.opener)()
    return True


def find_images(folder: str | Path, beside: Collection[str] = ()) -> list[Path]:
    """The image files in a folder and its subfolders, sorted by path.

    Recognized are all suffixes of formats that Pillow reads, and files with other names that begin like images. Hidden
    files are ignored. A warning counts and names all other files that are left out, with the reason.

    Args:
        beside: suffixes of files that belong to images, such as ".txt" of captions; no warning mentions them.

    Raises:
        ZeroshiftError: if the folder does not exist or holds no images; or if it is a run folder or an output folder of
            `zeroshift generate`, which also hold other images (grids, previews, source samples).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ZeroshiftError(f"There is no folder {folder}. Name a folder with image files.")
    if (folder / "config.json").is_file():
        raise ZeroshiftError(
            f"{folder} is a run folder, which also holds previews and grids. Name a folder of images, such as the "
            "target or source folder that `zeroshift generate` wrote."
        )
    if (folder / "grid.png").is_file() and all((folder / side).is_dir() for side in ("source", "target")):
        raise ZeroshiftError(
            f"{folder} holds samples of two generators. Name {folder / 'target'} or {folder / 'source'}."
        )
    if (folder / "pair").is_dir() and is_ours(folder / "grid.png"):
        raise ZeroshiftError(f"{folder} holds pairs of images. Write them again with --files separate, or both.")
    images: list[Path] = []
    left_out: dict[str, list[Path]] = {}
    for path, reason in _visible_files(folder):
        if reason is None:
            images.append(path)
        elif path.suffix.lower() not in beside:
            left_out.setdefault(reason, []).append(path.relative_to(folder))
    if not images:
        listed = f" ({_reasons(left_out)})" if left_out else ""
        raise ZeroshiftError(f"There are no images in {folder}{listed}. Name a folder with PNG or JPEG files.")
    if left_out:
        count = sum(map(len, left_out.values()))
        files = "file is" if count == 1 else "files are"
        warnings.warn(f"In {folder}, {count} {files} not read: {_reasons(left_out)}.", stacklevel=2)
    return sorted(images)


def _visible_files(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Everything in a folder that is not hidden, each with the reason why it is not read, or None."""
    closed: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if (Path(place) / name).is_symlink():
                yield Path(place) / name, "links to a folder"
        for name in files:
            if not name.startswith(".") and name.lower() not in _SYSTEM_FILES:
                yield Path(place) / name, _why_not(Path(place) / name)
    for path in closed:
        yield path, "cannot be opened"


def _why_not(path: Path) -> str | None:
    """Why a file in a folder is not read, in words that follow its name; None: it is read."""
    suffix = path.suffix.lower()
    if not path.is_file():
        return "no regular file"
    if suffix in _suffixes():
        return None
    if suffix in _RAW_SUFFIXES:
        return "raw file of a camera"
    try:
        plug_in = _plug_in(path)
        if plug_in is not None:
            return None if _enabled(plug_in) else f"needs the package {plug_in.package}"
        with Image.open(path, formats=_SAFE_PROBES):
            return None
    except PermissionError:
        return "cannot be opened"
    except Exception:  # Pillow's readers raise almost anything
        return "no image"


@cache
def _suffixes() -> frozenset[str]:
    """Suffixes of all formats that Pillow reads."""
    suffixes = Image.registered_extensions()  # imports all of Pillow's readers
    readable = {*Image.OPEN, "MPO"} - _NOT_PIXELS  # the JPEG reader opens MPO
    return frozenset(suffix for suffix, name in suffixes.items() if name in readable)


def _reasons(left_out: Mapping[str, Sequence[Path]]) -> str:
    """For example: 2 times "no image" (list.csv, notes.txt), 1 time ..."""
    return "; ".join(f"{_names(paths)} ({reason})" for reason, paths in left_out.items())


def _names(paths: Sequence[Path], counted: bool = False) -> str:
    listed = ", ".join(map(str, sorted(paths)[:_SHOWN]))
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return f"{len(paths)} images ({listed}{more})" if counted else listed + more
