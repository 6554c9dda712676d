"""Helpers of commands that invert photos: which parts of which files, into which results, and how."""

import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zeroshift.cli.progress import Display
from zeroshift.errors import ZeroshiftError
from zeroshift.io.leftovers import remove_temporary
from zeroshift.io.outputs import require_outputs

if TYPE_CHECKING:
    from torch import Tensor

    from zeroshift.generators.base import Generator
    from zeroshift.inversion.crops import Crop
    from zeroshift.inversion.faces import Faces
    from zeroshift.inversion.inverted import Inverted
    from zeroshift.inversion.inverter import InversionProgress, Inverter
    from zeroshift.io.image_files import ImageReader

__all__ = [
    "Portrait", "Space", "default_inverter", "inverted_portraits", "make_inverter", "portraits", "require_results",
    "shown",
]  # fmt: skip

Space = Literal["w", "w+"]
_PREVIEW = "inversion-preview.png"
_SECONDS = 2.0  # between previews
_STAGES = {"optimize": "optimizing", "tune": "tuning"}


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
    crop: "Crop | None" = None
    is_inverted: bool = False

    def result(self, out: Path, ending: str = ".png") -> Path:
        """The file of its result."""
        return out / f"{self.name}{ending}"

    def inverted(self) -> "Inverted":
        """The content of a file of `zeroshift invert`."""
        from zeroshift.inversion.inverted import Inverted

        return Inverted.load(self.file)

    def picture(self, reader: "ImageReader", resolution: int) -> "Tensor":
        """The square [3, resolution, resolution] to invert."""
        from zeroshift.io.images import square

        photo = reader.read(self.file)
        return square(photo, resolution) if self.crop is None else self.crop.cut(photo, resolution)


def portraits(paths: Sequence[Path], align: str | None, faces: "Faces", generator: str) -> list[Portrait]:
    """What is to be inverted at some paths: files or folders. Reads every file once, so that none of them fails later.

    Args:
        align: see `photo_crops`; None: "auto" for a generator of aligned faces in the catalogue, otherwise "none".
        faces: which faces of a photo.
        generator: name or file of the source generator.

    Raises:
        ZeroshiftError: files that cannot be read, folders without images, and as `photo_crops`. Of several photos,
            those without a face are left out with a warning.
    """
    from zeroshift.generators.checkpoints.catalogue import find_entry
    from zeroshift.inversion.faces import can_find_faces, photo_crops, require_alignment
    from zeroshift.inversion.inverted import Inverted
    from zeroshift.io.image_files import ImageReader

    files = _named(paths)
    if align is None:
        entry = find_entry(generator)
        align = "auto" if entry is not None and entry.alignment == "faces" else "none"
        photos = [file for file in files if file.suffix != ".safetensors"]
        if align == "auto" and photos and not can_find_faces():
            align = "none"
            warnings.warn(
                f"{generator} draws aligned faces, and the packages that find faces are not installed: the middle of "
                "each photo is used. pip install 'zeroshift[faces]', or choose the part: --align LEFT,TOP,SIDE.",
                stacklevel=2,
            )
    require_alignment(align)
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


def _named(paths: Sequence[Path]) -> dict[Path, Path]:
    """The files at some paths, each with the relative path of its result, without a suffix.

    If two results would get the same name, they keep the suffix of the file.
    """
    from zeroshift.io.image_files import find_images

    files: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            files.update((file, file.relative_to(path)) for file in find_images(path))
        else:
            files[path] = Path(path.name)
    counts = Counter(name.with_suffix("") for name in files.values())
    return {file: name if counts[name.with_suffix("")] > 1 else name.with_suffix("") for file, name in files.items()}


def require_results(
    out: Path, found: Sequence[Portrait], endings: Sequence[str] = (".png",), others: Sequence[Path] = ()
) -> None:
    """Checks that the results can be written, and that none of them replaces a photo that is still to be read.

    Args:
        endings: of the results of each portrait.
        others: further results.

    Raises:
        ZeroshiftError: if not.
    """
    inputs = {os.path.realpath(one.file) for one in found}
    results = [*(one.result(out, ending) for one in found for ending in endings), *others]
    if len(set(results)) < len(results):
        double = next(result for result in results if results.count(result) > 1)
        raise ZeroshiftError(f"Two results would be {double}. Use two commands, with different --out.")
    for result in results:
        if result == out / _PREVIEW:
            raise ZeroshiftError(f"The name {_PREVIEW} is used for the current state. Rename that photo.")
        if os.path.realpath(result) in inputs:
            raise ZeroshiftError(f"The result {result} would replace an input image. Give another --out.")
    require_outputs(*results, out / _PREVIEW)


def make_inverter(
    generator: "Generator",
    name: str,
    *,
    space: Space | None = None,
    steps: int | None = None,
    tune_steps: int | None = None,
    distance: str | None = None,
    encoder: str = "auto",
    seed: int = 0,
) -> "Inverter":
    """The inverter for a source generator.

    Args:
        name: name or file of the generator, which may have an encoder in the catalogue.
        space, steps, tune_steps, distance: settings of `InversionOptions`; None: its defaults.
        encoder: see `load_inversion_encoder`.

    Raises:
        ZeroshiftError: invalid settings, or an encoder that does not fit the generator.
    """
    from dataclasses import replace

    from zeroshift.inversion.inverter import Inverter
    from zeroshift.inversion.loading import load_inversion_encoder
    from zeroshift.inversion.options import InversionOptions

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
        return Inverter(generator, encoder=load_inversion_encoder(name, encoder) if encoder != "auto" else None)
    loaded = load_inversion_encoder(name, encoder)
    start = InversionOptions() if loaded is None else InversionOptions(steps=100)  # an encoder starts close
    options = replace(start, **chosen, seed=seed)  # type: ignore[arg-type]
    return Inverter(generator, options, loaded)


def default_inverter(found: Sequence[Portrait], generator: "Generator", name: str) -> "Inverter":
    """The inverter with default settings; without an encoder if everything is inverted already."""
    return make_inverter(generator, name, encoder="none" if all(one.is_inverted for one in found) else "auto")


def inverted_portraits(
    found: Sequence[Portrait], inverter: "Inverter", folder: Path, first: int = 0, total: int | None = None
) -> "Iterator[tuple[Portrait, Tensor | None, Inverted]]":
    """Inverts portraits, a batch at a time; yields each with its picture and its result, in order, on the CPU.

    Args:
        folder: where the current pictures are shown, see `shown`.
        first, total: number of the first portrait among all, and how many there are; default: these alone.

    Yields:
        A portrait, its picture [3, R, R], which is None for an inverted photo, and the inverted photo.
    """
    import torch

    from zeroshift.io.image_files import ImageReader

    with ImageReader() as reader:
        for start in range(0, len(found), inverter.batch_size):
            part = found[start : start + inverter.batch_size]
            waiting = [one for one in part if not one.is_inverted]
            pictures = [one.picture(reader, inverter.generator.resolution) for one in waiting]
            results: dict[Path, tuple[Tensor, Inverted]] = {}
            if waiting:
                batch = torch.stack(pictures)
                with shown(batch, folder, first + start, len(found) if total is None else total) as progress:
                    inverted = inverter(batch, progress)
                results = {one.name: (x, y) for one, x, y in zip(waiting, pictures, inverted, strict=True)}
            for one in part:
                picture, result = results[one.name] if one.name in results else (None, one.inverted())
                yield one, picture, result.to("cpu")


class _Shown:
    """Shows the progress of an inversion on stderr, and the current pictures in a file of the output folder."""

    def __init__(self, display: Display, photos: "Tensor", path: Path, first: int, total: int):
        self._display, self._photos, self._path, self._first, self._total = display, photos, path, first, total
        self._last = time.monotonic()

    def __call__(self, progress: "InversionProgress") -> None:
        if progress.images is None:
            done = self._first + progress.step
            if self._total > 1:
                self._display.update("photos", done, self._total, {})
            return
        first, last = self._first + progress.photos[0] + 1, self._first + progress.photos[-1] + 1
        numbers = f"photo {first}" if first == last else f"photos {first}-{last}"
        self._display.update(f"{_STAGES[progress.stage]} {numbers}", progress.step, progress.steps, {})
        if time.monotonic() - self._last > _SECONDS:
            self._last = time.monotonic()
            self._write(progress)

    def _write(self, progress: "InversionProgress") -> None:
        """The photos above their current reconstructions."""
        import torch

        from zeroshift.io.images import make_grid, save_png

        assert progress.images is not None
        photos = self._photos[list(progress.photos)]
        save_png(self._path, make_grid(torch.cat([photos, progress.images.cpu()]), columns=len(photos)))


@contextmanager
def shown(photos: "Tensor", out: Path, first: int = 0, total: int | None = None) -> Iterator[_Shown]:
    """A function for `Inverter` that shows its progress, and the current pictures in OUT/inversion-preview.png.

    Args:
        photos: [N, 3, R, R] in [-1, 1].
        out: the output folder.
        first, total: number of the first of these photos among all, and how many there are; default: these alone.

    Raises:
        ZeroshiftError: if the file of the current pictures cannot be written, or is of somebody else.
    """
    path = out / _PREVIEW
    require_outputs(path)
    with Display() as display:
        shows = _Shown(display, photos, path, first, len(photos) if total is None else total)
        try:
            yield shows
        finally:
            remove_temporary(path)  # also that of a killed process
