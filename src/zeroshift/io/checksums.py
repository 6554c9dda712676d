"""Our own files with checksums: tensors (safetensors) and training states (torch.save), verified on reading.

Both formats stay readable for other programs: the digest of a safetensors file stands in its metadata, that of a
training state in the comment of its zip archive. Files that earlier versions wrote have no digest and are read as well.
"""

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from zeroshift.errors import DamagedFileError, ZeroshiftError
from zeroshift.io.atomic import atomic_write
from zeroshift.io.leftovers import remove_temporary, temporary_path
from zeroshift.io.pickles import read_pickle
from zeroshift.io.tensor_files import open_tensors

__all__ = [
    "digest", "load_state", "load_tensors", "save_state", "save_tensors", "verify_tensors",
    "write_tensors",
]  # fmt: skip

_KEY = "sha256"  # in the metadata of safetensors files
_METADATA = "__metadata__"  # the key of the metadata in the header
_COMMENT = b"zeroshift-sha256:"  # of zip archives, before 64 hexadecimal digits
_COMMENT_SIZE = len(_COMMENT) + 64
_CHUNK = 1 << 20
_PLAIN = re.compile(  # names in a training state
    r"collections\.OrderedDict|torch\._utils\._rebuild_\w+|torch\.(storage\.)?\w+Storage"
    r"|torch\.(Size|device|bool|u?int\d+|b?float\d+|complex\d+)"
)


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> str:
    """SHA-256 of names, types, shapes and values of tensors, in any order, and of metadata."""
    total = hashlib.sha256(json.dumps(sorted((metadata or {}).items())).encode())
    for name, value in sorted(tensors.items()):
        total.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file with a checksum, atomically.

    Args:
        tensors: on any device. Tensors that share memory are written separately.
        metadata: strings; "sha256" is reserved.

    Raises:
        ZeroshiftError: if the disk is full or the folder cannot be written.
    """
    copies: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, value in tensors.items():
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        copies[name] = tensor.clone() if storage in storages else tensor  # safetensors refuses tied weights
        storages.add(storage)
    described = {**(metadata or {}), _KEY: digest(copies, metadata)}
    with atomic_write(path) as temporary:
        write_tensors(temporary, copies, described)
        _sort_metadata(temporary)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """The library's `save_file`, which writes a file of its own beside `path` and renames it.

    Here that file lies in a folder with a temporary name, which the next writer removes if this process is killed.
    """
    folder = temporary_path(path)
    try:
        folder.mkdir()
        save_file(dict(tensors), folder / path.name, metadata=dict(metadata))
        os.replace(folder / path.name, path)
    finally:
        remove_temporary(folder)


def _sort_metadata(path: Path) -> None:
    """Sorts the metadata in the header of a safetensors file: the library's order changes from process to process."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header = {_METADATA: dict(sorted(header.pop(_METADATA).items())), **header}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, on the CPU.

    Raises:
        ZeroshiftError: if there is no such file, or it cannot be read.
        DamagedFileError: if it is incomplete, or does not match its checksum.
    """
    path = Path(path)
    with open_tensors(path) as file:
        metadata: dict[str, str] = file.metadata() or {}
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    verify_tensors(path, tensors, metadata)
    metadata.pop(_KEY, None)
    return tensors, metadata


def verify_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> None:
    """Compares the content of a safetensors file with the checksum in its metadata, if it has one.

    Raises:
        DamagedFileError: if they differ.
    """
    described = dict(metadata or {})
    stored = described.pop(_KEY, None)
    renamed = any(re.fullmatch("[0-9a-f]{64}", value) for value in described.values())  # the damage is in the key
    if renamed or (stored is not None and stored != digest(tensors, described)):
        raise DamagedFileError(
            f"{path} is damaged: its content does not match its checksum. Copy or make the file again."
        )


def save_state(path: Path, state: Mapping[str, Any], previous: Path | None = None) -> None:
    """Writes a training state with torch.save and a checksum, atomically.

    Args:
        state: tensors, numbers, strings, lists and dicts only.
        previous: where to keep the file that is replaced. If the process is killed while it replaces the file, at least
            one of the two exists.

    Raises:
        ZeroshiftError: if the disk is full or the folder cannot be written.
    """
    with atomic_write(path) as temporary:
        with open(temporary, "wb") as file:
            _write_archive(state, file)
        with open(temporary, "r+b") as file:
            file.seek(-2, os.SEEK_END)  # the last two bytes of an archive without a comment: the comment's length
            file.write(_COMMENT_SIZE.to_bytes(2, "little"))
            file.seek(0)
            comment = _COMMENT + _hash(file, None).encode()
            file.seek(0, os.SEEK_END)
            file.write(comment)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)


def _write_archive(state: Mapping[str, Any], file: Any) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:  # torch.save turns an interrupt within a write into an error about positions
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, KeyboardInterrupt):
                raise cause from None
            cause = cause.__context__
        raise


def load_state(path: Path) -> dict[str, Any]:
    """The training state in a file of `save_state`, on the CPU. Any flipped bit is noticed, and no code is executed.

    A file without our checksum, from an earlier version, is verified by the checksums of the zip archive itself.

    Raises:
        ZeroshiftError: if the file may not be read.
        DamagedFileError: if it is missing, incomplete or damaged, or holds more than plain data.
    """
    try:
        with open(path, "rb") as file:
            _verify_archive(file)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except PermissionError as error:
        raise ZeroshiftError(f"No permission to read {path}. Change its permissions.") from error
    except Exception as error:  # torch and zipfile raise many types
        raise DamagedFileError(f"{path} is damaged: it cannot be read as a checkpoint.") from error
    if not isinstance(state, dict):
        raise DamagedFileError(f"{path} is damaged: it holds a {type(state).__name__}, not a checkpoint.")
    return state


def _verify_archive(file: Any) -> None:
    """Raises ValueError or others unless the archive matches our checksum or else its own, and is plain data."""
    size = file.seek(0, os.SEEK_END)
    if not size:  # also of a device, which may have no end
        raise ValueError("the file is empty")
    file.seek(max(0, size - _COMMENT_SIZE))
    comment = file.read()
    file.seek(0)
    checked = comment.startswith(_COMMENT)
    if checked and comment[len(_COMMENT) :] != _hash(file, size - _COMMENT_SIZE).encode():
        raise ValueError("the checksum differs")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)  # torch.save never compresses
        if packed or sum(entry.file_size for entry in entries) > size:
            raise ValueError("an entry is larger than the file")
        if not checked and (archive.comment or archive.testzip()):
            raise ValueError("an entry is damaged")
        for entry in entries:
            if entry.filename.endswith("/data.pkl"):
                _require_plain(archive.read(entry), file.name)


def _require_plain(pickled: bytes, name: str) -> None:
    """Raises ValueError for what torch.load would read for hours: it builds sets and keys of nested tuples."""
    content = read_pickle(io.BytesIO(pickled), name)
    if not content.plain_keys or not all(map(_PLAIN.fullmatch, content.names)):
        raise ValueError("more than tensors, numbers, texts, lists and dictionaries")


def _hash(file: Any, size: int | None) -> str:
    """SHA-256 of the next `size` bytes of a file; None: of all."""
    total = hashlib.sha256()
    left = size
    while chunk := file.read(_CHUNK if left is None else min(_CHUNK, left)):
        total.update(chunk)
        left = None if left is None else left - len(chunk)
    return total.hexdigest()
