"""Reads folders of captioned images, in the two layouts that programs for data sets write."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from zeroshift.errors import ZeroshiftError
from zeroshift.io.foreign import parse_json
from zeroshift.io.image_files import ImageReader, find_images

__all__ = ["CAPTION_BATCH", "caption_batches", "find_captions"]

CAPTION_BATCH = 32  # images
_MAX_CAPTION = 4096  # characters; longer files are no captions
_TABLES = ("metadata.jsonl", "metadata.csv")  # of Hugging Face's "imagefolder"
_BESIDE = (".txt", ".json", ".jsonl", ".csv")  # captions, and what img2dataset writes with them
_IMAGE, _TEXT = "file_name", ("text", "caption")  # their columns


def find_captions(folder: Path) -> list[tuple[Path, str]]:
    """The images of a folder with their captions, in the order of their names.

    Captions are text files beside the images (cat.jpg and cat.txt, as img2dataset writes them), or one table
    metadata.jsonl or metadata.csv with the columns file_name and text (Hugging Face's "imagefolder"). Images without a
    caption are left out.

    Raises:
        ZeroshiftError: if the folder or its captions are missing, or the table cannot be read.
    """
    images = find_images(folder, beside=_BESIDE)
    table = next((folder / name for name in _TABLES if (folder / name).is_file()), None)
    if table is not None:
        captions = _table(table)
        found = [(path, captions.get(path.relative_to(folder).as_posix(), "")) for path in images]
    else:
        found = [(path, _beside(path)) for path in images]
    captioned = [(path, caption) for path, caption in found if caption]
    if not captioned:
        raise ZeroshiftError(
            f"No image in {folder} has a caption. Put a text file with the same name beside each image (cat.jpg, "
            f"cat.txt), or a table {_TABLES[0]} with the columns {_IMAGE} and {_TEXT[0]} into the folder."
        )
    return captioned


def caption_batches(pairs: Sequence[tuple[Path, str]], size: int) -> Iterator[tuple[Tensor, list[str]]]:
    """Batches of images [N, 3, size, size] in [-1, 1] and their captions. Images are scaled and cropped at the center.

    Raises:
        ZeroshiftError: if an image cannot be read.
    """
    fit = v2.Compose([v2.Resize(size, antialias=True), v2.CenterCrop(size)])
    with ImageReader() as reader:
        for first in range(0, len(pairs), CAPTION_BATCH):
            part = pairs[first : first + CAPTION_BATCH]
            yield torch.stack([fit(reader.read(path)) for path, _ in part]), [caption for _, caption in part]


def _beside(image: Path) -> str:
    """The caption in the text file beside an image; empty if there is none."""
    path = image.with_suffix(".txt")
    try:
        with open(path, encoding="utf-8") as file:
            return " ".join(file.read(_MAX_CAPTION).split())
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ZeroshiftError(f"The caption {path} cannot be read as text in UTF-8.") from error


def _table(path: Path) -> dict[str, str]:
    """Captions by image name."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows: Iterator[Any]
            if path.suffix == ".csv":
                rows = iter(csv.DictReader(file))
            else:
                rows = (parse_json(line, f"A line of {path}") for line in file if line.strip())
            return dict(_row(row, path) for row in rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ZeroshiftError(f"{path} cannot be read as a table in UTF-8.") from error


def _row(row: Any, path: Path) -> tuple[str, str]:
    values: Mapping[str, Any] = row if isinstance(row, dict) else {}
    name = values.get(_IMAGE)
    text = next((values[column] for column in _TEXT if column in values), None)
    if not isinstance(name, str) or not isinstance(text, str):
        shown = json.dumps(row, default=str)[:80]
        raise ZeroshiftError(f"{path}: the row {shown} needs the columns {_IMAGE} and {_TEXT[0]}.")
    return name, " ".join(text[:_MAX_CAPTION].split())
