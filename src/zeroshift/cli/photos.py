"""Helpers of commands that invert photos: where results go, and what is shown meanwhile."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zeroshift.cli.progress import Display
from zeroshift.errors import ZeroshiftError
from zeroshift.io.leftovers import remove_temporary
from zeroshift.io.outputs import require_outputs

if TYPE_CHECKING:
    from torch import Tensor

    from zeroshift.inversion.inverted import Inverted
    from zeroshift.inversion.inverter import InversionProgress, Inverter
    from zeroshift.inversion.portraits import Portrait

__all__ = ["inverted_portraits", "require_results", "shown"]

_PREVIEW = "inversion-preview.png"
_SECONDS = 2.0  # between previews
_STAGES = {"optimize": "optimizing", "tune": "tuning"}


def require_results(
    out: Path, found: "Sequence[Portrait]", endings: Sequence[str] = (".png",), others: Sequence[Path] = ()
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


def inverted_portraits(
    found: "Sequence[Portrait]", inverter: "Inverter", folder: Path, first: int = 0, total: int | None = None
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
