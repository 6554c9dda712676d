"""Helpers for commands that invert photos: which files, into which results, by which means, with which progress."""

import os
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zeroshift.cli.progress import Display
from zeroshift.errors import ZeroshiftError
from zeroshift.io.leftovers import remove_temporary
from zeroshift.io.outputs import require_outputs

if TYPE_CHECKING:
    from torch import Tensor

    from zeroshift.generators.base import Generator
    from zeroshift.inversion.inverter import InversionProgress, Inverter

__all__ = ["Space", "make_inverter", "named_results", "require_results", "shown"]

Space = Literal["w", "w+"]
_PREVIEW = "preview.png"
_SECONDS = 2.0  # between previews
_STAGES = {"optimize": "optimizing", "tune": "tuning"}


def named_results(paths: Sequence[Path]) -> dict[Path, Path]:
    """The photos at some paths, files or folders, each with the relative path of its result in the output folder.

    The suffix is replaced by .png. If two photos would get the same name, .png is appended instead.

    Raises:
        ZeroshiftError: if a folder holds no images.
    """
    from zeroshift.io.image_files import find_images

    files: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            files.update((file, file.relative_to(path)) for file in find_images(path))
        else:
            files[path] = Path(path.name)
    counts = Counter(name.with_suffix("") for name in files.values())
    return {
        file: Path(f"{name}.png") if counts[name.with_suffix("")] > 1 else name.with_suffix(".png")
        for file, name in files.items()
    }


def require_results(out: Path, files: Mapping[Path, Path], suffixes: Sequence[str] = (".png",)) -> None:
    """Checks that the results can be written, and that none of them replaces a photo that is still to be read."""
    inputs = {os.path.realpath(file) for file in files}
    results = [(out / name).with_suffix(suffix) for name in files.values() for suffix in suffixes]
    if len(set(results)) < len(results):
        raise ZeroshiftError("Two photos of different folders have the same name. Translate them into different --out.")
    for result in results:
        if os.path.realpath(result) in inputs:
            raise ZeroshiftError(f"The result {result} would replace an image to translate. Give another --out.")
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
        ignored = [f"--{name.replace('_', '-')}" for name in chosen if name != "steps"]
        if ignored:
            warnings.warn(
                f"A {generator.architecture} generator has an inversion of its own. {', '.join(ignored)} is ignored.",
                stacklevel=2,
            )
        return Inverter(generator, encoder=load_inversion_encoder(name, encoder) if encoder != "auto" else None)
    loaded = load_inversion_encoder(name, encoder)
    start = InversionOptions() if loaded is None else InversionOptions(steps=100)  # an encoder starts close
    options = replace(start, **chosen, seed=seed)  # type: ignore[arg-type]
    return Inverter(generator, options, loaded)


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
    """A function for `Inverter` that shows its progress. OUT/preview.png has the current pictures until the end.

    Args:
        photos: [N, 3, R, R] in [-1, 1].
        out: the output folder.
        first, total: number of the first of these photos among all, and how many there are; default: these alone.
    """
    path = out / _PREVIEW
    with Display() as display:
        try:
            yield _Shown(display, photos, path, first, len(photos) if total is None else total)
        finally:
            remove_temporary(path)
