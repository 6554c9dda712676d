"""The weights of one network in a pipeline folder of diffusers: safetensors or .bin, whole or in shards.

Nothing in the files is executed. Names and shapes are known before numbers are read.
"""

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.claims import listed
from zeroshift.generators.checkpoints.torch_data import is_array, open_torch
from zeroshift.io.foreign import first_line, matches, read_json
from zeroshift.io.pickles import items_of

__all__ = ["StoredWeights", "file_names", "is_regular", "open_weights"]

_NAME = "diffusion_pytorch_model"
_SUFFIXES = ("safetensors", "bin")  # the first one that exists is read
_VARIANTS = ("fp32", "fp16", "bf16")  # in order of preference, where the weights without a variant are missing
_FILE = re.compile(rf"{_NAME}(?:\.([\w-]+?))?\.(?:safetensors|bin)(?:\.index(?:\.([\w-]+))?\.json)?")
_SHARD = re.compile(r".+-\d+-of-\d+\.\w+")  # of several files; the index belongs to them
# Names of attention layers before diffusers 0.13, which its own loader translates as well.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_NAME = re.compile(r"(.*\battentions\.\d+\.)(query|key|value|proj_attn)(\.(?:weight|bias))")


class _Index(BaseModel):
    """diffusion_pytorch_model.safetensors.index.json: which file has which weight."""

    weight_map: dict[
        Annotated[str, Field(max_length=500)],
        Annotated[str, Field(max_length=200, pattern=r"^[\w-][\w.-]*\.(safetensors|bin)$")],  # in the same folder
    ] = Field(min_length=1, max_length=100_000)


class StoredWeights:
    """The names and shapes of weights in files, and the numbers when they are asked for."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._tensors: dict[str, Any] = {}  # functions that read one tensor

    def read(self) -> dict[str, Tensor]:
        """All weights, on the CPU, in the precision of the files.

        Raises:
            ZeroshiftError: if one of them cannot be read.
        """
        try:
            return {name: read() for name, read in self._tensors.items()}
        except (SafetensorError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise ZeroshiftError(f"The weights cannot be read ({first_line(error)}).") from error

    def add(self, name: str, shape: tuple[int, ...], read: Any) -> None:
        """Takes a weight under its present name."""
        if old := _OLD_NAME.fullmatch(name):
            name = f"{old[1]}{_OLD_ATTENTION[old[2]]}{old[3]}"
        self.shapes[name] = shape
        self._tensors[name] = read


@contextlib.contextmanager
def open_weights(folder: Path) -> Iterator[StoredWeights]:
    """The weights of the network in a folder. Those of full precision precede variants such as fp16.

    A warning names the variant that is used, or the ones that are not.

    Raises:
        ZeroshiftError: if there are none, or a file is missing, damaged or of another kind.
    """
    weights = StoredWeights()
    with contextlib.ExitStack() as opened:
        for path in _files(folder):
            with _problems(path):
                if path.suffix == ".safetensors":
                    _add_safetensors(weights, opened.enter_context(safe_open(path, framework="pt")))
                else:
                    _add_torch(weights, path)
        yield weights


def is_regular(path: Path) -> bool:
    """Whether there is a file at a path, followed through links.

    Raises:
        ZeroshiftError: for a link to nowhere, a device or a pipe, and if the folder cannot be read.
    """
    try:
        if not path.exists() and not path.is_symlink():
            return False
        if path.is_file():
            return True
    except OSError as error:
        raise ZeroshiftError(f"{path} cannot be read: {error.strerror or error}.") from error
    what = "a folder" if path.is_dir() else "no regular file" if path.exists() else "a link to a file that is missing"
    raise ZeroshiftError(f"{path} is {what}. Copy the file itself there.")


def file_names(folder: Path) -> list[str]:
    """The sorted names of what a folder holds.

    Raises:
        ZeroshiftError: if it cannot be read.
    """
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise ZeroshiftError(f"{folder} cannot be read: {error.strerror or error}.") from error


def _files(folder: Path) -> list[Path]:
    """The files to read: one, or all shards of an index."""
    chosen = _choose(folder)
    if not chosen.name.endswith(".json"):
        return [chosen]
    index = matches(_Index, read_json(chosen), str(chosen))
    shards = [folder / name for name in sorted(set(index.weight_map.values()))]
    missing = [shard.name for shard in shards if not is_regular(shard)]
    if missing:
        raise ZeroshiftError(
            f"{folder} has {len(shards) - len(missing)} of the {len(shards)} weight files that {chosen.name} lists; "
            f"{listed(missing)} is missing. Copy or download the folder again."
        )
    return shards


def _choose(folder: Path) -> Path:
    """The file with the weights or their index."""
    variants: dict[str, list[Path]] = {}
    names = file_names(folder)
    for name in names:
        match = _FILE.fullmatch(name)
        if match and not _SHARD.fullmatch(name) and is_regular(folder / name):
            variants.setdefault(match[1] or match[2] or "", []).append(folder / name)
    if not variants:
        others = [name for name in names if name not in ("config.json", "scheduler_config.json", "model_index.json")]
        raise ZeroshiftError(
            f"{folder} has no weights: there is no file {_NAME}.safetensors (or .bin). It holds "
            f"{listed(others) if others else 'nothing else'}. Copy the file there, or give it this name."
        )
    known = [variant for variant in ("", *_VARIANTS) if variant in variants]
    if not known and len(variants) > 1:
        raise ZeroshiftError(
            f"{folder} has weights in the variants {', '.join(variants)} and none without. Rename the file of the one "
            f"to use to {_NAME}.safetensors."
        )
    variant = (known or list(variants))[0]
    rest = ", ".join(sorted(set(variants) - {variant}))
    if variant:
        warnings.warn(f"{folder}: the weights are those of the variant {variant}; there are no others.", stacklevel=2)
    elif rest:
        warnings.warn(f"{folder}: the weights of full precision are used, not the variant {rest}.", stacklevel=2)
    return min(variants[variant], key=lambda path: (f".{_SUFFIXES[0]}" not in path.name, path.name.endswith(".json")))


def _add_safetensors(weights: StoredWeights, file: Any) -> None:
    for name in file.keys():  # noqa: SIM118
        part = file.get_slice(name)
        if not str(part.get_dtype()).startswith(("F", "BF")):
            raise ValueError(f"{name} has numbers of type {part.get_dtype()}")
        weights.add(name, tuple(part.get_shape()), lambda name=name: file.get_tensor(name))


def _add_torch(weights: StoredWeights, path: Path) -> None:
    content = open_torch(path)
    values = items_of(content.root) or {}
    values = items_of(values.get("state_dict")) or values
    if not values:
        raise ValueError("it holds no weights by name")
    for name, value in values.items():
        if not isinstance(name, str) or not is_array(value):
            raise ValueError(f"{str(name)[:80]!r} is no weight")
        tensor = content.tensor(value, name)
        if not tensor.is_floating_point():
            raise ValueError(f"{name} has numbers of type {tensor.dtype}")
        weights.add(name, tuple(tensor.shape), lambda tensor=tensor: tensor)


@contextlib.contextmanager
def _problems(path: Path) -> Iterator[None]:
    """Turns the errors of reading a weights file into sentences."""
    try:
        yield
    except ZeroshiftError:
        raise
    except SafetensorError as error:
        raise ZeroshiftError(
            f"{path} is damaged: it is not a complete safetensors file ({first_line(error)}). Copy or download it "
            "again."
        ) from error
    except OSError as error:
        raise ZeroshiftError(f"{path} cannot be read: {error.strerror or first_line(error)}.") from error
    except Exception as error:  # damaged archives and pickles raise many types
        raise ZeroshiftError(
            f"{path} holds no weights that can be used ({first_line(error)}). Copy or download it again."
        ) from error
