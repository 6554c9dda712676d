"""Checks of output files before the work: they can be written, and replace nothing that zeroshift did not write.

Every file that a command writes says so: images and films in their metadata, tables by their form, Markdown in its last
line. So a repeated command replaces its own files, wherever they were moved, and no others.
"""

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import disk_errors
from zeroshift.io.leftovers import remove_leftovers, remove_temporary, temporary_path

__all__ = [
    "MARK", "MARKDOWN_MARK", "is_ours", "mark_archive", "require_outputs", "require_replaceable", "require_writable",
    "signed",
]  # fmt: skip

MARK = "Written by zeroshift"  # in the metadata of images and films, and in the comment of archives
MARKDOWN_MARK = f"\n<!-- {MARK}; the same command replaces this file. -->\n"
_WINDOW = 4096  # bytes at the beginning and at the end in which the marks are
_BEGINNINGS = re.compile(
    rb"\x89PNG.*tEXtSoftware\0%(mark)s|GIF8.*%(mark)s|\xff\xd8.*Exif.*%(mark)s"
    rb'|.{8}\{"__metadata__":\{.*"zeroshift":"'  # safetensors
    rb"|variant,target,seed,measure,"  # CSV of a benchmark
    rb'|\{\s*"command": "zeroshift |\[\s*\{\s*"runs": \['  # JSON of a benchmark, JSON of a comparison
    % {b"mark": MARK.encode()},
    re.DOTALL,
)
_ENDS = re.compile(  # MP4, WebP, archives of torch, Markdown
    rb"udta.*%(mark)s|EXIF.{4}(?:Exif\0\0)?(?:II|MM).*%(mark)s|%(mark)s\Z|%(line)s\Z"
    % {b"mark": MARK.encode(), b"line": re.escape(MARKDOWN_MARK.encode())},
    re.DOTALL,
)


def is_ours(path: Path) -> bool:
    """Whether zeroshift wrote a file. False if it cannot be read."""
    with contextlib.suppress(OSError):
        if path.is_file():
            with open(path, "rb") as file:
                beginning = file.read(_WINDOW)
                file.seek(max(0, file.seek(0, os.SEEK_END) - _WINDOW))
                return bool(_BEGINNINGS.match(beginning) or _ENDS.search(file.read()))
    return False


def signed(notes: Sequence[str]) -> str:
    """The mark and notes on a file as one comment, for formats without fields."""
    return "; ".join((MARK, *notes))


def mark_archive(path: Path) -> None:
    """Adds the mark as the comment of a zip archive without a comment, such as one of `torch.save`."""
    with open(path, "r+b") as file:
        file.seek(-2, os.SEEK_END)  # the length of the comment
        file.write(len(MARK).to_bytes(2, "little") + MARK.encode())


def require_outputs(*paths: Path) -> None:
    """Checks that files can be written, and removes what killed processes left in their folders. Makes nothing.

    Raises:
        ZeroshiftError: if a path is a folder or a file of somebody else, or cannot be written.
    """
    for path in paths:
        require_replaceable(path)
    for folder in dict.fromkeys(path.parent for path in paths):
        require_writable(folder)


def require_replaceable(path: Path) -> None:
    """Raises ZeroshiftError if a path is a folder or a file of somebody else."""
    with disk_errors(path):
        try:
            path.lstat()
        except FileNotFoundError:
            return
    if path.is_dir():
        raise ZeroshiftError(f"{path} is a folder; a file is to be written there. Choose another name.")
    if not is_ours(path):
        raise ZeroshiftError(
            f"{path} exists, and zeroshift cannot tell that it has written it. Move it, or choose another name."
        )


def require_writable(folder: Path) -> None:
    """Checks that files can be written into a folder, which may not exist yet. Makes nothing.

    Writes a file, and removes it again, in the folder or in the nearest one above that exists.

    Raises:
        ZeroshiftError: if this fails.
    """
    with disk_errors(folder):
        existing = next(one for one in (folder, *folder.absolute().parents) if one.exists())
        remove_leftovers(existing)
        probe = temporary_path(existing / "probe")
        try:
            probe.write_bytes(bytes(_WINDOW))
        except FileNotFoundError as error:  # a folder that makes no files, such as /proc
            raise ZeroshiftError(f"No file can be written into {folder}. Choose another folder.") from error
        finally:
            remove_temporary(probe)
