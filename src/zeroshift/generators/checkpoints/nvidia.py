"""Reads NVIDIA's .pkl files (stylegan2-ada-pytorch, stylegan3) without executing anything in them.

Such a file is a plain pickle of {"G": ..., "D": ..., "G_ema": ..., "training_set_kwargs": ..., "augment_pipe": ...}.
A network in it is a call of `torch_utils.persistence._reconstruct_persistent_obj` on a dictionary with the source code
of its class, which the published programs execute, and with its `__dict__`, which is all we need: parameters, buffers,
submodules, constructor arguments. Tensors are calls of `torch._utils._rebuild_tensor_v2`, each with a nested pickle (a
storage in torch.save's old format). We keep a table of the allowed names with an inert replacement for each, and read
storages with torch.load(weights_only=True). Any other name is an error.
"""

import io
import mmap
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.stylegan2_layouts import stylegan2_from_nvidia
from zeroshift.generators.checkpoints.stylegan3_layouts import stylegan3_from_nvidia

__all__ = ["load_pkl", "read_pkl"]


def load_pkl(path: str | Path) -> Generator:
    """The generator in an NVIDIA .pkl, in evaluation mode on the CPU: G_ema, or with a warning G if that is missing.

    Raises:
        ZeroshiftError: a missing, damaged, suspicious or unsupported file, or a generator that is neither a StyleGAN2
            (skip architecture) nor a StyleGAN3.
    """
    state_dict, init_kwargs = read_pkl(path)
    try:
        if "synthesis.input.freqs" in state_dict:
            return stylegan3_from_nvidia(state_dict, init_kwargs)
        return stylegan2_from_nvidia(state_dict, init_kwargs)
    except Exception as error:  # sizes and settings come from the file, too
        raise ZeroshiftError(f"The generator in {path} cannot be used: {error}") from error


def read_pkl(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Parameters and buffers of the generator in an NVIDIA .pkl by name, and its settings.

    The settings are the published constructor arguments. For a StyleGAN2, `synthesis_kwargs` also has the attributes of
    its layers (architecture, activation, conv_clamp), as the two programs have different defaults.

    Raises:
        ZeroshiftError: as `load_pkl`.
    """
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                raise ZeroshiftError(f"{path} is empty.")
            # A mapped file never returns more bytes than it has, whatever lengths it claims.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                network = _generator(_Unpickler(content, path).load(), path)
        return dict(_tensors(network)), _settings(network)
    except ZeroshiftError:
        raise
    except OSError as error:
        raise ZeroshiftError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ZeroshiftError(
            f"{path} is damaged or not an NVIDIA .pkl: it cannot be read to its end ({type(error).__name__}: {error}). "
            "Download it again."
        ) from error


class _Inert:
    """Holds a value from the file. The file's instructions cannot set its attributes."""

    __slots__ = ("value",)

    def __init__(self, value: Any = None):
        self.value = value

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"unexpected state for a {type(self).__name__}")


class _Function(_Inert):
    """One of our functions, under the name that the file calls."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        return self.value(*args)


class _EasyDict(dict[Any, Any]):
    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """The published class has no attributes."""


class _Network(_Inert):
    """A persisted module: its `__dict__`."""

    __slots__ = ("class_name",)

    def __init__(self, meta: dict[str, Any]):
        super().__init__(dict(meta["state"]))
        self.class_name = str(meta["class_name"])

    def children(self) -> dict[str, "_Network"]:
        modules = self.value.get("_modules", {})
        return {name: module for name, module in modules.items() if isinstance(module, _Network)}


class _Array(_Inert):
    """A NumPy array, whose content is not needed."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        self.value = None


class _Dtype(_Inert):
    """A NumPy dtype; `value` is its code, with the byte order."""

    __slots__ = ()

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        super().__init__(str(code))

    def __setstate__(self, state: Any) -> None:
        self.value = state[1].replace("|", "") + self.value  # (version, byte order, ...)


def _numpy_scalar(dtype: _Dtype, data: bytes) -> bool | int | float:
    if not re.fullmatch(r"[<>=]?[biuf][1248]", dtype.value):
        raise pickle.UnpicklingError(f"a NumPy scalar of type {dtype.value}")
    value: bool | int | float = np.frombuffer(data, dtype.value, count=1).item()
    return value


def _storage(data: bytes) -> _Inert:
    """A storage as a flat tensor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TypedStorage is deprecated, but these files hold it
        storage: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if not isinstance(storage, torch.storage.TypedStorage):
            raise pickle.UnpicklingError(f"a {type(storage).__name__} where a tensor's storage should be")
        return _Inert(torch.empty(0, dtype=storage.dtype).set_(storage.untyped()))


def _tensor(storage: _Inert, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> _Inert:
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (last >= len(storage.value) and 0 not in size):
        raise pickle.UnpicklingError("a tensor that reaches beyond its storage")
    return _Inert(storage.value.as_strided(size, stride, offset))


_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Network,
    ("dnnlib.util", "EasyDict"): _EasyDict,
    ("collections", "OrderedDict"): OrderedDict,
    **{(module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in (set, frozenset)},
    ("_codecs", "encode"): lambda text, _encoding: text.encode("latin1"),  # bytes in protocol 2
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, _requires_grad, _hooks: data,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch", "Size"): tuple,
    **{("torch", name): name for name in ("float16", "bfloat16", "float32", "float64", "int64")},
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): "ndarray",
    **{(module, "scalar"): _numpy_scalar for module in _NUMPY},
    **{(module, "_reconstruct"): lambda *_: _Array() for module in _NUMPY},
    **{(module, "_frombuffer"): lambda *_: _Array() for module in ("numpy.core.numeric", "numpy._core.numeric")},
}
_TYPES = (_EasyDict, OrderedDict, set, frozenset, tuple)  # pickle instantiates these


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, path: str | Path):
        super().__init__(file)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            allowed = _ALLOWED[module, name]
            return allowed if allowed in _TYPES or isinstance(allowed, str) else _Function(allowed)
        if module.split(".")[0] in ("tensorflow", "tflib", "tfutil") or module.startswith("dnnlib.tflib"):
            raise ZeroshiftError(
                f"{self._path} is a TensorFlow pickle of the first StyleGAN programs, which zeroshift does not read. "
                "Use the PyTorch file of the same model (see `zeroshift models`), or convert it with `python legacy.py "
                "--source=... --dest=...` of stylegan2-ada-pytorch or stylegan3. Nothing in it was executed."
            )
        raise ZeroshiftError(
            f"{self._path} asks for {module}.{name}, which no NVIDIA generator needs: it may belong to another program "
            "or be malicious. Nothing in it was executed."
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        raise ZeroshiftError(f"{self._path} is not an NVIDIA .pkl: it refers to data outside the pickle.")


def _generator(content: Any, path: str | Path) -> _Network:
    networks = content if isinstance(content, dict) else {"G_ema": content}  # a single network
    for key in ("G_ema", "G"):
        network = networks.get(key)
        if isinstance(network, _Network) and {"mapping", "synthesis"} <= set(network.children()):
            if key == "G":
                warnings.warn(f"{path} has no G_ema, the averaged generator; using G.", stacklevel=4)
            return network
    kinds = {str(key): getattr(value, "class_name", type(value).__name__) for key, value in networks.items()}
    raise ZeroshiftError(f"{path} holds no StyleGAN2 or StyleGAN3 generator under G_ema or G, but {kinds}.")


def _walk(network: _Network) -> Iterator[tuple[str, _Network]]:
    """All modules with the prefixes of their names. A module that occurs twice is an error."""
    pending, visited = [("", network)], set()
    while pending:
        prefix, module = pending.pop()
        if id(module) in visited:
            raise pickle.UnpicklingError(f"the module {prefix} occurs twice")
        visited.add(id(module))
        yield prefix, module
        pending += [(f"{prefix}{name}.", child) for name, child in module.children().items()]


def _tensors(network: _Network) -> Iterator[tuple[str, Tensor]]:
    for prefix, module in _walk(network):
        for name, stored in [*module.value["_parameters"].items(), *module.value["_buffers"].items()]:
            if stored is not None:
                if not isinstance(stored, _Inert) or not isinstance(stored.value, Tensor):
                    raise pickle.UnpicklingError(f"{prefix}{name} is no tensor")
                yield f"{prefix}{name}", stored.value


def _settings(network: _Network) -> dict[str, Any]:
    names = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs")
    arguments = dict(zip(names, network.value.get("_init_args", ()), strict=False)) | network.value.get(
        "_init_kwargs", {}
    )
    settings = {key: dict(value) if isinstance(value, dict) else value for key, value in arguments.items()}
    synthesis = network.children()["synthesis"]
    if "b4" in synthesis.children():
        # stylegan3's StyleGAN2 takes flat arguments and clamps by default; stylegan2-ada-pytorch does neither.
        settings = {key: settings.pop(key) for key in names if key in settings} | {
            "synthesis_kwargs": settings.pop("synthesis_kwargs", {}) | settings
        }
        settings["synthesis_kwargs"] |= _common(synthesis, ("architecture", "activation", "conv_clamp"))
    return settings


def _common(network: _Network, names: tuple[str, ...]) -> dict[str, Any]:
    """The common values of attributes in all layers that have them."""
    common: dict[str, Any] = {}
    for name in names:
        for _, module in _walk(network):
            value = module.value.get(name, "linear")  # the activation of the affine layers
            if value != "linear" and common.setdefault(name, value) != value:
                raise ZeroshiftError(f"its layers differ in {name} ({common[name]}, {value}), which is not supported.")
    return common
