"""Generators of zeroshift in repositories of the Hugging Face Hub, and in folders laid out like them."""

import contextlib
import os
from functools import lru_cache
from pathlib import Path

from zeroshift.errors import ZeroshiftError
from zeroshift.io.foreign import read_json
from zeroshift.io.hub import hub_file

__all__ = ["DESCRIPTION", "GENERATOR_FILE", "generator_in", "hub_architecture"]

GENERATOR_FILE = "generator.safetensors"
DESCRIPTION = "zeroshift.json"  # the description of the generator, for those who do not load it yet


def generator_in(path: Path) -> Path:
    """The generator file of zeroshift in a folder, or the path itself."""
    inside = path / GENERATOR_FILE
    return inside if os.path.isfile(inside) else path  # False, too, for names that no file system takes


@lru_cache(maxsize=64)
def hub_architecture(repository: str) -> str | None:
    """The family of a generator of zeroshift on the Hub; None if the repository holds none or cannot be reached.

    Downloads the description, a small file, unless it is in the cache.
    """
    with contextlib.suppress(ZeroshiftError):
        described = read_json(hub_file(repository, [DESCRIPTION]))
        architecture = described.get("architecture") if isinstance(described, dict) else None
        return architecture if isinstance(architecture, str) else None
    return None
