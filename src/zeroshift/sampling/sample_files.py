"""Writes pairs of images as single files and as a grid. Memory does not grow with their number."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from zeroshift.io.atomic import disk_errors
from zeroshift.io.images import save_png, tile_grid, to_uint8
from zeroshift.io.numbering import is_numbered, numbered
from zeroshift.io.outputs import is_ours
from zeroshift.io.scaling import Scale
from zeroshift.io.titles import with_heading
from zeroshift.sampling.pair_set import Draw

__all__ = ["FileKind", "PairFiles"]

FileKind = Literal["separate", "pair", "both"]
"""Which files are written: source and target apart, side by side, or both."""

_FOLDERS = {"separate": ("source", "target"), "pair": ("pair",), "both": ("source", "target", "pair")}
_MAX_GRID_PAIRS = 64
_MAX_GRID_PIXELS = 40_000_000  # 16 pairs of 1024 pixels; 120 MB


@dataclass(frozen=True)
class PairFiles:
    """The files of pairs of images in a folder.

    Attributes:
        out: the folder.
        num: number of pairs.
        name: name of a pair by its number, without a suffix.
        kind: which files are written.
        scale: size of the images.
        columns: pairs per row of the grid.
        title: heading of the grid.
    """

    out: Path
    num: int
    name: Callable[[int], str] = numbered
    kind: FileKind = "separate"
    scale: Scale = field(default_factory=Scale)
    columns: int = 4
    title: str = ""

    @property
    def grid(self) -> Path:
        """The file of the grid."""
        return self.out / "grid.png"

    @property
    def folders(self) -> list[Path]:
        """The folders of the single files."""
        return [self.out / folder for folder in _FOLDERS[self.kind]]

    def paths(self) -> Iterator[Path]:
        """All single files."""
        return (self._file(folder.name, number) for number in range(self.num) for folder in self.folders)

    def grid_pairs(self, resolution: int) -> int:
        """How many pairs the grid shows: at most 64, and fewer if they would take more than 40 million pixels.

        Args:
            resolution: height and width of an image before scaling.
        """
        height, width = self.scale.size(resolution, resolution)
        fitting = max(1, min(_MAX_GRID_PAIRS, _MAX_GRID_PIXELS // (2 * height * width)))
        if self.num <= fitting:
            return self.num
        return max(fitting - fitting % self.columns, min(fitting, self.columns))

    def write(self, draw: Draw, batches: Iterable[range]) -> int:
        """Writes all pairs, batch by batch, then the grid. Returns the number of pairs in the grid.

        Raises:
            ZeroshiftError: if a file cannot be written.
        """
        with disk_errors(self.out):
            self.grid.unlink(missing_ok=True)  # written last: it shows that all samples are there
        tiles: list[np.ndarray] = []
        note = ""
        for numbers in batches:
            source, target, _ = draw(numbers)
            note = self.scale.note(*source.shape[-2:])
            shown = self.grid_pairs(source.shape[-1])
            for number, *images in zip(numbers, to_uint8(source), to_uint8(target), strict=True):
                before, after = map(self.scale, images)
                pair = np.concatenate([before, after], axis=1)  # [H, 2W, 3]
                for side, pixels in (("source", before), ("target", after), ("pair", pair)):
                    if side in _FOLDERS[self.kind]:
                        save_png(self._file(side, number), pixels, note)
                if number < shown:
                    tiles.append(pair)
        grid = tile_grid(tiles, columns=min(self.columns, len(tiles)))
        save_png(self.grid, with_heading(grid, self.title), note)
        return len(tiles)

    def remove_others(self) -> None:
        """Removes numbered files of earlier calls that are not among these: others than zeroshift's stay."""
        for side in _FOLDERS["both"]:
            folder = self.out / side
            with disk_errors(folder):
                for file in folder.iterdir() if folder.is_dir() else ():
                    if self._is_old(file) and is_ours(file):
                        file.unlink()
                if side not in _FOLDERS[self.kind] and folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

    def _is_old(self, file: Path) -> bool:
        if file.suffix != ".png" or not is_numbered(file.stem):
            return False
        number = int(file.stem)
        written = file.parent in self.folders and file.stem == self.name(number) and number < self.num
        return not written

    def _file(self, side: str, number: int) -> Path:
        return self.out / side / f"{self.name(number)}.png"
