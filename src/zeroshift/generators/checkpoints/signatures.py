"""Names what a file is that is no generator: a web page, a pointer of Git LFS, an archive, a picture."""

import difflib
import os
import re
from pathlib import Path

__all__ = ["missing", "part_of_model", "wrong_content"]

_TEXT = (b"{", b"[")
# First bytes, what the file is, and what to do.
_KINDS = (
    ((b"version https://git-lfs",), "a pointer of Git LFS",
     "Run `git lfs pull` in its repository, or download the file from its page"),
    ((b"<!doctype", b"<html", b"<?xml", b"<head"), "a web page",
     "The download needed a login or a confirmation; open the address in a browser"),
    ((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"\x28\xb5\x2f\xfd"), "a compressed archive",
     "Unpack it first"),
    ((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF"), "a picture or film", "Give a generator file"),
    ((b"\x89HDF",), "an HDF5 file, as Keras and TensorFlow write", "Convert it to PyTorch first"),
    ((b"\x93NUMPY",), "a NumPy array", "Give a generator file"),
    ((b"GGUF",), "a GGUF file", "Give a generator file"),
    ((b"%PDF", b"\x7fELF", b"MZ"), "a document or program", "Give a generator file"),
    (_TEXT, "a text file", "Give the file with the weights, or the folder that holds it"),
)  # fmt: skip
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)")


def wrong_content(path: Path) -> str | None:
    """What a file is, and what to do, in one sentence each; None if it is none of the known kinds."""
    with open(path, "rb") as file:
        start = file.read(512)
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    for marks, kind, advice in _KINDS:
        if marks == _TEXT and not start.isascii():
            continue
        if start.startswith(marks) or start.lower().startswith(marks):
            return f"{path} is {kind}, not a generator file. {advice}."
    if start[257:262] == b"ustar":
        return f"{path} is a tar archive, not a generator file. Unpack it first."
    return part_of_model(path)


def part_of_model(path: str | Path) -> str | None:
    """That a file is one part of a model, by its name; None if it is not."""
    shard = _SHARD.fullmatch(Path(path).name)
    if shard is None:
        return None
    return f"{path} is one of {int(shard[2])} parts of a model. Give the folder that holds all parts and its config."


def missing(path: Path) -> str:
    """That there is no such file, with similar names in its folder."""
    folder = path.parent
    if not os.path.isdir(folder):
        return f"There is no generator file {path}: its folder does not exist."
    try:
        near = difflib.get_close_matches(path.name, [each.name for each in folder.iterdir()], n=2, cutoff=0.7)
    except (OSError, ValueError):
        near = []
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"There is no generator file {path}.{hint}"
