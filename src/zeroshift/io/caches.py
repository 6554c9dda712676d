"""The cache folders of this package and of the libraries that it uses, with the variables that move them."""

import os
from pathlib import Path

__all__ = ["cache_folder", "cache_variable"]

_DEFAULTS = {  # in $XDG_CACHE_HOME or ~/.cache
    "ZEROSHIFT_CACHE": "zeroshift",
    "HF_HOME": "huggingface",
    "HF_HUB_CACHE": "huggingface",
    "TORCH_HOME": "torch",
}


def cache_folder() -> Path:
    """$ZEROSHIFT_CACHE, or zeroshift in $XDG_CACHE_HOME, or in ~/.cache."""
    return _folder("ZEROSHIFT_CACHE")


def cache_variable(path: str | Path) -> str | None:
    """The environment variable that moves the cache in which `path` lies; None if it lies in none."""
    absolute = Path(os.path.abspath(path))
    return next((name for name in _DEFAULTS if absolute.is_relative_to(os.path.abspath(_folder(name)))), None)


def _folder(variable: str) -> Path:
    if os.environ.get(variable):
        return Path(os.environ[variable]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / _DEFAULTS[variable]
