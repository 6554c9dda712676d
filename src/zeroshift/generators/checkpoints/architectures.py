"""Finds out the family of a generator without loading its weights; names need neither torch nor files."""

import contextlib
import os
from pathlib import Path

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.catalogue import named_entry, read_header, resolve
from zeroshift.generators.trust import is_factory_name

__all__ = ["architecture_of", "looks_like_name", "require_generator"]

_SUFFIXES = (".safetensors", ".pt", ".pth", ".pkl", ".ckpt", ".bin")


def architecture_of(name_or_path: str | Path) -> str | None:
    """`Generator.architecture` of a generator, without loading its weights; None if it cannot be determined."""
    name, path = str(name_or_path), Path(name_or_path)
    entry = named_entry(name)
    if entry is not None:
        return entry.family
    if not os.path.exists(path):
        if is_factory_name(name):
            return "module"
        return _hub_family(name) if "/" in name and looks_like_name(path) else None
    from zeroshift.generators.checkpoints.hub_models import generator_in
    from zeroshift.generators.checkpoints.readers import find_reader

    described = read_header(generator_in(path))
    if described is not None:
        return str(described["architecture"])
    with contextlib.suppress(ZeroshiftError):
        reader = find_reader(path)
        if reader is not None:
            return reader.architecture if isinstance(reader, type) else reader.family
    return None


def require_generator(name_or_path: str | Path) -> None:
    """Checks a name without the network: an existing path, a known name, a factory, or any name at the Hub.

    Raises:
        ZeroshiftError: if there is no such file and no such name.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if named_entry(name) is not None or os.path.exists(path) or is_factory_name(name):
        return
    if not looks_like_name(path):
        raise ZeroshiftError(f"There is no generator file {path}. Check the path.")
    elif "/" not in name:
        resolve(name)  # which lists similar names


def looks_like_name(path: Path) -> bool:
    """Whether a path could be OWNER/NAME of the Hugging Face Hub, and is no existing file."""
    return not (path.is_absolute() or len(path.parts) > 2 or path.suffix in _SUFFIXES or os.path.exists(path))


def _hub_family(name: str) -> str:
    """The family of a model of the Hugging Face Hub."""
    from zeroshift.generators.checkpoints.hub_models import hub_architecture
    from zeroshift.generators.checkpoints.readers import FOLDER_FAMILY

    return hub_architecture(name) or FOLDER_FAMILY
