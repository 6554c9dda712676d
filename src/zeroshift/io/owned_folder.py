"""Folders of several files that are replaced together, such as pipelines, without touching anybody else's files."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import atomic_write, disk_errors, made_folder, set_default_mode
from zeroshift.io.foreign import read_json
from zeroshift.io.leftovers import remove_leftovers, remove_temporary, temporary_path

__all__ = ["file_digest", "replaced_folder", "require_owned_folder"]

_KEY = "_zeroshift_files"  # in the index: name -> SHA-256; two of them while a file is being replaced
_CHUNK = 1 << 20

Digests = dict[str, list[str]]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()


def require_owned_folder(folder: Path, index: str) -> None:
    """Raises ZeroshiftError unless `replaced_folder` may write there: a new or empty folder, or one that it wrote."""
    _owned(folder, index)


@contextlib.contextmanager
def replaced_folder(folder: Path, index: str) -> Iterator[Path]:
    """Yields an empty folder. On success, its files replace those in `folder` that an earlier call wrote.

    Other files in `folder` stay. The names and digests of our files are kept in the index, a JSON object in the folder
    that the body writes as well.

    Raises:
        ZeroshiftError: before the body, if `folder` is neither new nor empty nor written by an earlier call, or if
            somebody has changed one of its files; or if it cannot be written.
    """
    old, folder = _owned(folder, index), Path(os.path.realpath(folder))
    temporary = temporary_path(folder)
    with disk_errors(folder), made_folder(folder.parent):
        try:
            remove_leftovers(folder.parent)
            temporary.mkdir()
            yield temporary
            described = json.loads((temporary / index).read_text(encoding="utf-8"))
            new = {name: [file_digest(temporary / name)] for name in _names(temporary) if name != index}
            for name in new:
                _finish(temporary / name)
            _write_index(temporary / index, described, new)
            if old:
                _move(temporary, folder, index, old, new)
            else:
                os.replace(temporary, folder)
        finally:
            remove_temporary(temporary)


def _move(temporary: Path, folder: Path, index: str, old: Digests, new: Digests) -> None:
    """Replaces the files one by one. Whenever the process is killed, the index knows those that are there."""
    foreign = [name for name in new if name not in old and os.path.lexists(folder / name)]
    if foreign:
        raise ZeroshiftError(f"{folder / foreign[0]} exists, and zeroshift has not written it. Move it.")
    described = json.loads((temporary / index).read_text(encoding="utf-8"))
    _write_index(folder / index, described, {name: [*old.get(name, []), *new.get(name, [])] for name in {**old, **new}})
    for name in new:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary / name, folder / name)
    for name in old.keys() - new.keys():
        (folder / name).unlink(missing_ok=True)
    os.replace(temporary / index, folder / index)


def _owned(folder: Path, index: str) -> Digests:
    """The digests of the files in `folder` that an earlier call wrote, by name; none for a new or empty folder."""
    with disk_errors(folder):
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            return {}
    with contextlib.suppress(ZeroshiftError, OSError):
        described = read_json(folder / index)
        digests = described.get(_KEY) if isinstance(described, Mapping) else None
        if isinstance(digests, Mapping) and all(_is_same(folder, name, known) for name, known in digests.items()):
            return dict(digests)
    raise ZeroshiftError(
        f"{folder} is not empty, and its files are not as zeroshift has written them. Move them, or choose another "
        "name."
    )


def _is_same(folder: Path, name: str, digests: Any) -> bool:
    """Whether a file in the folder is missing or has one of these digests."""
    path = folder / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)) or not isinstance(digests, list):
        return False
    return not os.path.lexists(path) or file_digest(path) in digests


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _finish(path: Path) -> None:
    set_default_mode(path)
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _write_index(path: Path, described: Mapping[str, Any], digests: Digests) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({**described, _KEY: digests}, indent=2) + "\n", encoding="utf-8")
