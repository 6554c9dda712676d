"""What is to be inverted at some paths, and the inverter for it."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.catalogue import find_entry
from zeroshift.inversion.crops import Crop
from zeroshift.inversion.faces import Faces, can_find_faces, photo_crops, require_alignment
from zeroshift.inversion.inverted import Inverted
from zeroshift.inversion.inverter import Inverter
from zeroshift.inversion.loading import load_inversion_encoder
from zeroshift.inversion.options import InversionOptions, Space
from zeroshift.io.image_files import ImageReader, find_images
from zeroshift.io.images import square

__all__ = ["Portrait", "alignment", "default_inverter", "make_inverter", "portraits"]


@dataclass(frozen=True)
class Portrait:
    """One picture to invert: a photo, a face in it, or an inverted photo.

    Attributes:
        file: the file.
        name: relative path of its result in the output folder, without a suffix.
        crop: the part of the photo; None: the middle, or an inverted photo.
        is_inverted: whether it is a file of `zeroshift invert`.
    """

    file: Path
    name: Path
    crop: Crop | None = None
    is_inverted: bool = False

    def result(self, out: Path, ending: str = ".png") -> Path:
        """The file of its result."""
        return out / f"{self.name}{ending}"

    def inverted(self) -> Inverted:
        """The content of a file of `zeroshift invert`."""
        return Inverted.load(self.file)

    def picture(self, reader: ImageReader, resolution: int) -> Tensor:
        """The square [3, resolution, resolution] to invert."""
        photo = reader.read(self.file)
        return square(photo, resolution) if self.crop is None else self.crop.cut(photo, resolution)


def portraits(paths: Sequence[Path], align: str | None, faces: Faces, generator: str) -> list[Portrait]:
    """What is to be inverted at some paths: files or folders. Reads every file once, so that none of them fails later.

    Args:
        align: see `photo_crops`; None: "auto" for a generator of aligned faces in the catalogue, otherwise "none".
        faces: which faces of a photo.
        generator: name or file of the source generator.

    Raises:
        ZeroshiftError: files that cannot be read, folders without images, and as `photo_crops`. Of several photos,
            those without a face are left out with a warning.
    """

    files = _named(paths)
    photos = [file for file in files if file.suffix != ".safetensors"]
    align = alignment(align, generator, photos=bool(photos))
    found: list[Portrait] = []
    missed: list[ZeroshiftError] = []  # photos without a face
    with ImageReader() as reader:
        for file, name in files.items():
            if file.suffix == ".safetensors":
                Inverted.load(file)
                found.append(Portrait(file, name, is_inverted=True))
                continue
            photo = reader.read(file)
            if align == "none":
                found.append(Portrait(file, name))
                continue
            try:
                crops = photo_crops(photo, align, faces, f"The photo {file}")
            except ZeroshiftError as error:
                if len(files) == 1 or align != "auto":
                    raise
                missed.append(error)
                continue
            numbers = [f"-{number}" for number in range(1, len(crops) + 1)] if len(crops) > 1 else [""]
            found += [
                Portrait(file, name.with_name(name.name + number), crop)
                for number, crop in zip(numbers, crops, strict=True)
            ]
    if missed and not found:
        raise missed[0]
    for one in missed:
        warnings.warn(f"{one} It is left out.", stacklevel=2)
    return found


def alignment(align: str | None, generator: str, *, photos: bool = True) -> str:
    """How photos are aligned: `align`, or for None "auto" for a generator of aligned faces, otherwise "none".

    Args:
        generator: name or file of the source generator.
        photos: whether there are any.

    Raises:
        ZeroshiftError: if `align` has another form.
    """
    if align is None:
        entry = find_entry(generator)
        align = "auto" if entry is not None and entry.alignment == "faces" else "none"
        if align == "auto" and photos and not can_find_faces():
            align = "none"
            warnings.warn(
                f"{generator} draws aligned faces, and the packages that find faces are not installed: the middle of "
                "each photo is used. pip install 'zeroshift[faces]', or choose the part: --align LEFT,TOP,SIDE.",
                stacklevel=3,
            )
    require_alignment(align)
    return align


def _named(paths: Sequence[Path]) -> dict[Path, Path]:
    """The files at some paths, each with the relative path of its result, without a suffix.

    If two results would get the same name, they keep the suffix of the file.
    """

    files: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            files.update((file, file.relative_to(path)) for file in find_images(path))
        else:
            files[path] = Path(path.name)
    counts = Counter(name.with_suffix("") for name in files.values())
    return {file: name if counts[name.with_suffix("")] > 1 else name.with_suffix("") for file, name in files.items()}


def make_inverter(
    generator: Generator,
    name: str,
    *,
    space: Space | None = None,
    steps: int | None = None,
    tune_steps: int | None = None,
    distance: str | None = None,
    encoder: str = "auto",
    seed: int = 0,
    cache: Path | None = None,
) -> Inverter:
    """The inverter for a source generator.

    Args:
        name: name or file of the generator, which may have an encoder in the catalogue.
        space, steps, tune_steps, distance: settings of `InversionOptions`; None: its defaults.
        encoder: see `load_inversion_encoder`.
        cache: folder of finished inversions, see `Inverter`.

    Raises:
        ZeroshiftError: invalid settings, or an encoder that does not fit the generator.
    """

    given = {"space": space, "steps": steps, "tuning_steps": tune_steps, "distance": distance}
    chosen = {key: value for key, value in given.items() if value is not None}
    if generator.style_space() is None:
        options_of = {"space": "--space", "tuning_steps": "--tune-steps", "distance": "--distance"}
        ignored = [option for setting, option in options_of.items() if setting in chosen]
        if ignored:
            warnings.warn(
                f"A {generator.architecture} generator has an inversion of its own. Ignored: {', '.join(ignored)}.",
                stacklevel=2,
            )
        own = load_inversion_encoder(name, encoder) if encoder != "auto" else None
        return Inverter(generator, encoder=own, cache=cache)
    loaded = load_inversion_encoder(name, encoder)
    start = InversionOptions() if loaded is None else InversionOptions(steps=100)  # an encoder starts close
    options = replace(start, **chosen, seed=seed)  # type: ignore[arg-type]
    return Inverter(generator, options, loaded, cache)


def default_inverter(found: Sequence[Portrait], generator: Generator, name: str) -> Inverter:
    """The inverter with default settings; without an encoder if everything is inverted already."""
    return make_inverter(generator, name, encoder="none" if all(one.is_inverted for one in found) else "auto")
