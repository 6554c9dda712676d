"""Reads generator files of other programs. The content of a file decides which reader opens it, not its name."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.signatures import missing, wrong_content
from zeroshift.generators.registry import FAMILIES
from zeroshift.io.foreign import first_line

__all__ = ["FOLDER_FAMILY", "READERS", "Reader", "find_reader", "first_bytes", "read_foreign"]

FOLDER_FAMILY = "diffusion"  # of pipeline folders and models on the Hugging Face Hub
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # first pickle of a torch.save file before version 1.6


@dataclass(frozen=True)
class Reader:
    """Opens one kind of files."""

    can_read: Callable[[Path, bytes], bool]
    """Decides by the path and the first bytes, which are empty for folders."""
    read: str
    """"module:function" that loads the generator at a path."""
    family: str | None
    """The family of the generators in these files; None if it is unknown before loading."""


def _is_diffae(path: Path, head: bytes) -> bool:
    from zeroshift.generators.checkpoints.diffae import is_diffae

    return head.startswith(b"PK\x03\x04") and is_diffae(path)


_HERE = "zeroshift.generators.checkpoints"
READERS = (
    Reader(lambda path, head: path.is_dir(), f"{_HERE}.diffusers:read_pipeline", FOLDER_FAMILY),
    Reader(_is_diffae, f"{_HERE}.diffae:read_diffae", "diffusion_autoencoder"),
    Reader(
        lambda path, head: head.startswith((b"PK\x03\x04", _TORCH_LEGACY)),
        f"{_HERE}.stylegan_files:load_pt",
        "stylegan2",
    ),
    Reader(lambda path, head: head.startswith(b"\x80"), f"{_HERE}.stylegan_files:load_pkl", None),
)
"""In order of precedence. Families of other packages come first: `Generator.can_read` and `Generator.read`."""


def read_foreign(path: Path) -> Generator:
    """The generator in a file or folder of another program.

    Raises:
        ZeroshiftError: a file that is missing, empty, damaged or of an unknown kind.
        ImportError: if a package that its family needs is not installed.
    """
    reader = find_reader(path)
    if reader is None:
        raise ZeroshiftError(
            wrong_content(path)
            or f"{path} is not a generator file. Expected safetensors, a .pt in rosinality's layout, a .pkl of NVIDIA, "
            "a .ckpt of a diffusion autoencoder or a diffusers folder."
        )
    if not isinstance(reader, Reader):
        return reader.read(path)
    read: Callable[[Path], Generator] = resolve_name(reader.read)
    try:
        return read(path)
    except (ZeroshiftError, ImportError, Warning):
        raise
    except Exception as error:  # the last net: readers check what they read, and this one names what slipped through
        raise ZeroshiftError(
            f"{path} cannot be read as a generator: {first_line(error)} ({type(error).__name__}). It may be damaged."
        ) from error


def find_reader(path: Path) -> Reader | type[Generator] | None:
    """The reader of a file or folder: a family of another package or one of READERS; None if there is none.

    Raises:
        ZeroshiftError: a file that is missing, empty or unreadable.
    """
    head = first_bytes(path)
    for name in FAMILIES:
        with contextlib.suppress(ZeroshiftError):  # a broken package must not block the other readers
            if FAMILIES[name].can_read(path):
                return FAMILIES[name]
    return next((reader for reader in READERS if reader.can_read(path, head)), None)


def first_bytes(path: Path) -> bytes:
    """The first 16 bytes of a file; none of a folder.

    Raises:
        ZeroshiftError: a file that is missing, empty or unreadable.
    """
    if os.path.isdir(path):  # False, too, for names that no file system takes
        return b""
    try:
        if os.path.exists(path) and not path.is_file():  # opening a pipe would wait for a writer
            raise ZeroshiftError(f"{path} is neither a file nor a folder. Give a generator file.")
        with open(path, "rb") as file:
            head = file.read(len(_TORCH_LEGACY))
    except (FileNotFoundError, ValueError) as error:  # ValueError: a NUL in the name
        raise ZeroshiftError(missing(path)) from error
    except OSError as error:
        raise ZeroshiftError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not head:
        raise ZeroshiftError(f"{path} is empty. Copy it again from where it comes from.")
    return head
