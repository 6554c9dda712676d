"""Where the results of a trial come from: settings, weights, machine."""

import functools
import hashlib
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.methods.configure import flat, settings

__all__ = ["fingerprint", "machine", "recorded_settings", "same_settings", "slug"]

_LONGEST = 120  # bytes; file systems allow 255, with what is added to the name


def recorded_settings(config: AdaptConfig) -> dict[str, Any]:
    """All settings of method and generator family, and others that differ from the defaults, by dotted name."""
    specific = {setting.name for setting in settings(config) if setting.owner.split(".")[0] in ("options", "sampling")}
    defaults, values = flat(AdaptConfig(target="")), flat(config)
    values.pop("family", None)  # follows from the weights
    return {name: value for name, value in values.items() if name in specific or value != defaults.get(name)}


def same_settings(one: Mapping[str, Any], other: Mapping[str, Any], config: AdaptConfig) -> bool:
    """Whether two results of `recorded_settings`, through JSON, mean the same.

    A setting that only one of them states, because it was added to the program later, has its default in the other.

    Args:
        config: a configuration of the method and the family.
    """
    plain = AdaptConfig(
        target="", method=config.method, family=config.family, options=type(config.options)(),
        sampling=type(config.sampling)(),
    )  # fmt: skip
    defaults = flat(plain)
    return all(
        one.get(name, defaults.get(name)) == other.get(name, defaults.get(name)) for name in one.keys() | other.keys()
    )


@functools.cache
def fingerprint(path: Path) -> str:
    """Hash of the weights in a file or folder.

    Raises:
        ZeroshiftError: if they are missing.
    """
    files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
    if not files or not path.exists():
        raise ZeroshiftError(f"The weights {path} are missing. Restore them.")
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def slug(text: str) -> str:
    """A string in characters, and of a length, that every file system and web page accepts.

    A long one ends in a digest of the text, so that different texts keep different names.
    """
    plain = re.sub(r"[^\w.=]+", "-", text).strip("-.")
    if len(plain.encode()) <= _LONGEST:
        return plain
    kept = plain.encode()[: _LONGEST - 9].decode(errors="ignore")
    return f"{kept}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def machine() -> str:
    """Processor and PyTorch version."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        # Virtual machines may report the vendor only; family and model distinguish generations of processors.
        processor = f"{facts['model name']} (family {facts['cpu family']}, model {facts['model']})"
    except (OSError, KeyError):
        pass
    return f"{processor}, PyTorch {torch.__version__.partition('+')[0]}"
