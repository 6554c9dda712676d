"""Makes the pictures of docs/gallery.md from the commands that the page shows beneath them.

    python benchmarks/gallery.py                     # about 15 minutes on two cores; resumes in runs/gallery
    python benchmarks/gallery.py --only robot film   # some pictures

Every picture of the page is followed by a block of commands, and every command names its result with --out. A picture
of adaptations shows the same samples of the source, of each run and, where it is known, of the truth. Another picture
is what the last command wrote.
"""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from PIL import Image

from zeroshift.cli.main import main as zeroshift
from zeroshift.io.image_files import to_tensor
from zeroshift.io.images import labeled_rows, make_grid
from zeroshift.report.page import draw_figures
from zeroshift.training.run_folder import RunFolder

PAGE = Path(__file__).absolute().parents[1] / "docs" / "gallery.md"
ENTRY = re.compile(r"!\[[^\]]*\]\((gallery/[^)]+)\)[^\n]*\n\n```bash\n(.*?)```", re.DOTALL)
NUM, SCALE, QUALITY = 6, 2, 90  # samples of a row, enlargement of 64 pixels, WebP quality


@dataclass(frozen=True)
class Entry:
    """A picture of the page, and the arguments of the commands that make it."""

    path: Path
    commands: list[list[str]]

    @property
    def outputs(self) -> list[Path]:
        """What each command writes, relative to the folder in which it runs."""
        return [Path(words[words.index("--out") + 1]) for words in self.commands]


def read_entries(page: Path = PAGE) -> list[Entry]:
    """The pictures of the page in order, each with the commands beneath it."""
    entries = []
    for name, block in ENTRY.findall(page.read_text(encoding="utf-8")):
        lines = block.replace("\\\n", " ").strip().splitlines()
        commands = [shlex.split(line, comments=True) for line in lines]
        entries.append(Entry(page.parent / name, [words[1:] for words in commands if words]))
    return entries


def make(entry: Entry, folder: Path) -> None:
    """Runs the commands in a folder, and writes the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    for words in entry.commands:
        print(shlex.join(["zeroshift", *words]), flush=True)
        if zeroshift(words) != 0:
            raise SystemExit(f"This command failed: {shlex.join(words)}")
    entry.path.parent.mkdir(exist_ok=True)
    if all(words[0] == "adapt" for words in entry.commands):
        compare(entry.outputs, entry.path)
    elif entry.path.suffix == ".gif":
        entry.path.write_bytes(entry.outputs[-1].read_bytes())
    else:
        enlarge(entry.outputs[-1], entry.path)


def compare(runs: Sequence[Path], path: Path) -> None:
    """Rows of the same samples: source, each run with the name of its method, and truth."""
    rows = {}
    for folder in runs:
        run = RunFolder.read(folder)
        source, adapted, *truth = draw_figures(run, NUM)
        rows.setdefault(source.label, source.images)
        rows[run.config.method] = adapted.images
    rows |= {figure.label: figure.images for figure in truth}
    Image.fromarray(labeled_rows(rows, SCALE)).save(path, quality=QUALITY, method=6)


def enlarge(result: Path, path: Path) -> None:
    """The pictures of a file or a folder below each other, enlarged."""
    files = sorted(result.glob("*.png")) if result.is_dir() else [result]
    rows = []
    for file in files:
        with Image.open(file) as picture:
            rows.append(to_tensor(picture))
    larger = F.interpolate(torch.stack(rows), scale_factor=SCALE, mode="bicubic")
    Image.fromarray(make_grid(larger, columns=1)).save(path, quality=QUALITY, method=6)


def main(only: tuple[str, ...] = (), folder: Path = Path("runs/gallery")) -> None:
    """Make the pictures of docs/gallery.md.

    Args:
        only: Names of pictures, such as robot. Default: all.
        folder: Where the commands run.
    """
    folder = folder.absolute()  # `make` changes the current folder
    for entry in read_entries():
        if not only or entry.path.stem in only:
            make(entry, folder)
            print(f"{entry.path}: {entry.path.stat().st_size / 1000:.0f} KB", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
