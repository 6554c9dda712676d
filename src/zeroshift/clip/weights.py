"""Reads weights of encoders and feature networks from the files of many programs, and fits them into a module.

No code in a file is executed, and memory is allocated only after the file's claims were compared with its size.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from zeroshift.core.finite import require_finite_weights
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.torch_data import Content, is_array, open_torch
from zeroshift.io.checksums import load_tensors
from zeroshift.io.foreign import first_line
from zeroshift.io.pickles import items_of

__all__ = ["build", "load_into", "open_content", "read_safetensors", "read_weights", "tensors_of"]

_MAX_HEADER = 32 * 2**20  # bytes; those of language models with thousands of tensors have fewer than 10 MiB
_LFS_POINTER = b"version https://git-lfs"

Module = TypeVar("Module", bound=nn.Module)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a state dict of torch.save, on the CPU.

    A state dict may be part of a checkpoint, under "state_dict". Values that are no tensors are left out.

    Raises:
        ZeroshiftError: a file that is missing, unreadable, damaged or of another kind, or holds more than plain data.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    content = open_content(path)
    items = items_of(content.root) or {}
    items = items_of(items.get("state_dict")) or items
    return tensors_of(content, {name: value for name, value in items.items() if isinstance(name, str)}, path)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, on the CPU.

    Raises:
        ZeroshiftError: as `read_weights`.
    """
    if int.from_bytes(_first_bytes(path)[:8], "little") > _MAX_HEADER:
        raise ZeroshiftError(f"{path} is not a complete safetensors file, or its header is absurdly long.")
    return load_tensors(path)


def open_content(path: Path) -> Content:
    """The content of a file of torch.save or of a TorchScript archive.

    Raises:
        ZeroshiftError: as `read_weights`.
    """
    _first_bytes(path)
    try:
        return open_torch(path, scripts=True)
    except ZeroshiftError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise _unreadable(path, error) from error


def tensors_of(content: Content, values: Mapping[str, object], path: Path) -> dict[str, Tensor]:
    """Those of the values that are tensors.

    Raises:
        ZeroshiftError: as `read_weights`.
    """
    try:
        return {name: content.tensor(value, name) for name, value in values.items() if is_array(value)}
    except ZeroshiftError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise _unreadable(path, error) from error


def build(make: Callable[[], Module], state: Mapping[str, Tensor], name: str) -> Module:
    """The module that `make` builds, with the weights `state`.

    It is built on the meta device first, so that names and shapes are compared before memory is allocated.

    Args:
        name: what holds the weights, as the start of a sentence.

    Raises:
        ZeroshiftError: weights that do not fit the module, or are not finite numbers.
    """
    with torch.device("meta"):
        _require_fit(make(), state, name)
    module = make()
    load_into(module, state, name)
    return module


def load_into(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Copies weights into a module with the same names and shapes.

    Raises:
        ZeroshiftError: as `build`.
    """
    _require_fit(module, state, name)
    module.load_state_dict(state)
    require_finite_weights(module, name)


def _require_fit(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    expected = module.state_dict()
    wrong = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    differences = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of another size": [f"{key} {list(state[key].shape)}, not {list(expected[key].shape)}" for key in wrong],
        "of another type": [key for key in expected if key in state and not _same_kind(state[key], expected[key])],
    }
    found = [
        f"{len(keys)} {kind} ({keys[0][:120]}{', …' if len(keys) > 1 else ''})"
        for kind, keys in differences.items()
        if keys
    ]
    if found:
        raise ZeroshiftError(
            f"{name} holds weights of another model: of {len(expected)} tensors, {'; '.join(found)}. Give the file of "
            "this model, or name the model of this file."
        )


def _same_kind(one: Tensor, other: Tensor) -> bool:
    return one.is_floating_point() == other.is_floating_point() and not one.is_complex()


def _first_bytes(path: Path) -> bytes:
    """The first bytes of a file, of which it is known that it can be read and holds more than a reference."""
    try:
        if path.is_dir():
            raise ZeroshiftError(f"{path} is a folder. Give the file with the weights in it.")
        if path.exists() and not path.is_file():
            raise ZeroshiftError(f"{path} is no file but a device or pipe.")
        with open(path, "rb") as file:
            head = file.read(256)
    except FileNotFoundError as error:
        raise ZeroshiftError(f"There is no weights file {path}. Check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise ZeroshiftError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if not head:
        raise ZeroshiftError(f"{path} is empty.")
    if head.startswith(_LFS_POINTER):
        raise ZeroshiftError(
            f"{path} is a pointer of Git LFS, not the file itself. Run `git lfs pull` in its folder, or download it."
        )
    if head.lstrip()[:1] == b"<":
        raise ZeroshiftError(f"{path} is a web page, not a file with weights. Download the file itself.")
    return head


def _unreadable(path: Path, error: Exception) -> ZeroshiftError:
    return ZeroshiftError(
        f"{path} cannot be read as a weights file: it is damaged or in another format ({first_line(error)})."
    )
