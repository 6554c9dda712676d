"""The catalogue of named generators and the locations of their files. Importing it does not import PyTorch."""

import dataclasses
import difflib
import os
import warnings
from importlib import resources
from pathlib import Path
from typing import Any

from zeroshift.core.registry import Registry
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.entry import CatalogueEntry
from zeroshift.generators.checkpoints.published import HUGGING_FACE, published_entries
from zeroshift.generators.registry import FAMILIES
from zeroshift.io.caches import cache_folder
from zeroshift.io.foreign import MAX_JSON_BYTES, parse_json
from zeroshift.io.hub import hub_folder, looks_like_path

__all__ = [
    "CATALOGUE", "CatalogueEntry", "find_entry", "known_checkpoints", "named_entry", "parse_description", "read_header",
    "resolve",
]  # fmt: skip

CATALOGUE: Registry[CatalogueEntry] = Registry("generator", "zeroshift.catalogue")
"""Generators by name. Entry points: "zeroshift.catalogue"."""

for _entry in published_entries():
    CATALOGUE.register(_entry.name)(_entry)

_WEIGHTS = ("*.safetensors", "*.bin")  # the first pattern that matches files of a model is downloaded


def find_entry(generator: str | Path) -> CatalogueEntry | None:
    """The catalogue entry of a generator; None if it has none.

    Args:
        generator: a name in the catalogue, or a file that `save_generator` wrote. An adapted generator has the entry of
            its source generator, if a package ships that.
    """
    if (named := named_entry(generator)) is not None or not str(generator).endswith(".safetensors"):
        return named
    described = read_header(Path(generator))
    if described is None:
        return None
    family = described["architecture"]
    for entry in CATALOGUE.values():
        if entry.package_file.endswith(".safetensors") and entry.family == family and family in FAMILIES:
            shipped = read_header(_shipped(entry))
            network = FAMILIES[family].network_config
            if shipped is not None and network(shipped["config"]) == network(described["config"]):
                return entry
    return None


def named_entry(name: str | Path) -> CatalogueEntry | None:
    """The entry with this name. A file or folder of the same name takes precedence, except over shipped entries."""
    entry: CatalogueEntry | None = CATALOGUE.get(str(name))
    return None if entry is None or (not entry.package_file and os.path.exists(name)) else entry


def read_header(path: Path) -> dict[str, Any] | None:
    """The description that `save_generator` wrote into a safetensors file; None for other files.

    Reads the header alone, without PyTorch: the first 8 bytes are its length, the rest is JSON.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if 2 <= length <= MAX_JSON_BYTES else b"{}"
        return parse_description(parse_json(header, str(path))["__metadata__"])
    except (OSError, ValueError, KeyError, TypeError, ZeroshiftError):
        return None


def parse_description(metadata: Any) -> dict[str, Any] | None:
    """The description in safetensors metadata: "architecture", "config" and other strings; None if there is none."""
    try:
        described: dict[str, Any] = parse_json(metadata["zeroshift"], "the description")
        fits = isinstance(described["architecture"], str) and isinstance(described["config"], dict)
    except (KeyError, TypeError, AttributeError, ZeroshiftError):
        return None
    return described if fits else None


def known_checkpoints() -> list[CatalogueEntry]:
    """The entries whose files exist or can be downloaded, shipped ones first, with the sizes of their files."""
    shipped = [entry for entry in CATALOGUE.values() if entry.package_file]
    sizes = {entry.name: sum(file.stat().st_size for file in _files(_shipped(entry))) / 1e6 for entry in shipped}
    existing = [dataclasses.replace(one, size_mb=round(sizes[one.name], 1)) for one in shipped if sizes[one.name]]
    return [*existing, *(entry for entry in CATALOGUE.values() if not entry.package_file)]


def resolve(name: str) -> Path:
    """The file or folder of a generator in the catalogue, or of a model on the Hugging Face Hub ("OWNER/MODEL").

    Downloads it if it is not in the cache.

    Raises:
        ZeroshiftError: an unknown name, a missing file, no network, a failed download, or a cache that cannot be
            written.
    """
    entry: CatalogueEntry | None = CATALOGUE.get(name)
    if "/" in name and (entry is None or not entry.package_file):
        return _from_hugging_face(name, entry)
    if entry is None:
        near = difflib.get_close_matches(name, CATALOGUE, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise ZeroshiftError(
            f"There is no known generator {name!r}. {hint}Run `zeroshift models` for the names, or give a file's path."
        )
    if entry.package_file:
        path = _shipped(entry)
        if not _files(path):
            how = f" Train it with `{entry.train_command}`." if entry.train_command else ""
            raise ZeroshiftError(f"The file of {name!r} does not exist: {path}.{how}")
        return path
    if entry.address is None:
        raise ZeroshiftError(f"The catalogue entry {name!r} has neither an address nor a file. Correct the entry.")
    from zeroshift.io.downloads import download  # `zeroshift models` does without network code

    return download(entry.address, cache_folder() / "generators" / f"{name}.pkl", sha256=entry.sha256)


def _shipped(entry: CatalogueEntry) -> Path:
    package, _, path = entry.package_file.partition(":")
    return Path(str(resources.files(package))) / path


def _files(path: Path) -> list[Path]:
    """A file, or all files in a folder; none if there is nothing at the path."""
    return [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]


def _from_hugging_face(name: str, entry: CatalogueEntry | None) -> Path:
    """The folder with a model's configuration and weights, in the cache of huggingface_hub.

    Names in our catalogue are downloaded without a warning. Other names may be mistyped paths, so there is a warning.
    """
    if entry is None:
        if looks_like_path(name) or name.count("/") > 1 or Path(name).parent.is_dir():
            raise ZeroshiftError(f"There is no file or folder {name}. Check the path.")
        warnings.warn(f"There is no file {name}; taking it for a model at {HUGGING_FACE}{name}.", stacklevel=3)
    return hub_folder(name, _WEIGHTS, revision=(entry.revision or None) if entry else None)
