"""Files of torch.save, and tensors in pickles, read as data.

The size, strides and offset of every tensor are checked against the bytes that the file holds for it, before memory is
allocated. Tensors are made when they are asked for, so that what a generator does not need costs nothing.
"""

import io
import math
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.io.pickles import MAX_INSTRUCTIONS, Name, Pickle, Record, Reference, read_pickle

__all__ = ["Content", "SafetensorsContent", "is_array", "open_pickle", "open_torch", "pickle_member"]

MAX_PICKLE = 64 * 2**20  # bytes of the pickle in a zip archive; usual ones have less than 1 MiB
_MAX_MEMBERS = 100_000
_SPARE = 64 * 2**20  # bytes that tensors may claim beyond the size of the file, by sharing or repeating numbers
_MAX_AXES = 8
_MAX_NESTED, _MAX_NESTED_INSTRUCTIONS = 10_000, 100  # storages in a pickle, and instructions in each of them

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001  # of torch.save before version 1.6
_STORAGES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool,
}  # fmt: skip
_DTYPES = {f"torch.{str(dtype).removeprefix('torch.')}": dtype for dtype in _STORAGES.values()}
_SAFETENSORS = "safetensors.tensor"
_ARRAY = (
    _SAFETENSORS,
    "torch._utils._rebuild_",
    "torch._tensor._rebuild_",
    "torch.nn.parameter.",
    "torch.nn.Parameter",
)
_NUMPY_ARRAY = tuple(
    f"numpy.{core}.{name}" for core in ("core", "_core") for name in ("multiarray._reconstruct", "numeric._frombuffer")
)
_NUMPY_SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


def is_array(value: Any) -> bool:
    """Whether a value of a pickle is a tensor or a NumPy array."""
    return isinstance(value, Record) and value.name.startswith((*_ARRAY, *_NUMPY_ARRAY))


class Content:
    """What a file holds, as `read_pickle` gives it, and the numbers of its tensors.

    Args:
        pickled: its pickle.
        path: for messages.
        size: number of bytes of the file.
        find: the bytes of a storage from its key; None for a file without storages.
    """

    def __init__(
        self, pickled: Pickle, path: str | Path, size: int, find: Callable[[int | str], bytearray] | None = None
    ):
        self.root, self.names = pickled.root, pickled.names
        self._budget = 2 * size + _SPARE
        self._find = find
        self._storages: dict[int | str, Tensor] = {}
        self._nested = _nested(pickled, path)

    def tensor(self, value: Any, name: str) -> Tensor:
        """A tensor or NumPy array of the file.

        Args:
            value: for which `is_array` holds.
            name: for messages.

        Raises:
            ZeroshiftError, pickle.UnpicklingError: if it is of another kind, or does not fit the bytes in the file.
        """
        try:
            tensor = self._array(value) if value.name.startswith(_NUMPY_ARRAY) else self._tensor(value)
        except (TypeError, ValueError, IndexError, AttributeError, pickle.UnpicklingError) as error:
            raise pickle.UnpicklingError(f"{name}: {error}") from error
        self._budget -= tensor.numel() * max(tensor.element_size(), 4)
        if self._budget < 0:
            raise pickle.UnpicklingError("its tensors claim far more numbers than the file has")
        return tensor

    def plain(self, value: Any, depth: int = 4) -> Any:
        """A value with NumPy's scalars as numbers and every kind of dictionary as dict, down to a depth."""
        if isinstance(value, Record) and value.name in _NUMPY_SCALAR:
            return _scalar(*value.args)
        if isinstance(value, Record) and value.name == "torch.Size":
            return self.plain(value.args[0] if value.args else (), depth)
        inner = value.items if isinstance(value, Record) else value
        if isinstance(inner, dict) and depth:
            return {key: self.plain(one, depth - 1) for key, one in inner.items() if isinstance(key, str)}
        if isinstance(inner, (list, tuple)) and depth and len(inner) <= 64:
            return [self.plain(one, depth - 1) for one in inner]
        return inner if isinstance(inner, (str, int, float, type(None))) else type(inner).__name__

    def _tensor(self, value: Record, depth: int = 4) -> Tensor:
        function = value.name.rpartition(".")[2]
        if function in ("_rebuild_parameter", "_rebuild_parameter_with_state", "Parameter") and depth:
            return self._tensor(_record(value.args[0]), depth - 1)
        if function == "_rebuild_from_type_v2" and depth and isinstance(value.args[0], Name):
            return self._tensor(Record(value.args[0].value, value.args[2]), depth - 1)
        if function not in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            raise pickle.UnpicklingError(f"a tensor made by {value.name}, which is not supported")
        storage, offset, size, stride = value.args[:4]
        if isinstance(size, Record):  # torch.Size
            size = size.args[0] if size.args else ()
        numbers = self._storage(storage)
        if function == "_rebuild_tensor_v3":
            numbers = numbers.view(_DTYPES[value.args[6].value])
        _check_view(offset, size, stride, len(numbers), self._budget)
        return numbers.as_strided(size, stride, offset)

    def _storage(self, storage: Any) -> Tensor:
        """All numbers of a storage: a reference to data in the file, or a call of torch.storage._load_from_bytes."""
        if isinstance(storage, Reference) and _is_storage(storage) and self._find is not None:
            dtype, key, part = _storage_reference(storage)
            if key not in self._storages:
                self._storages[key] = _numbers(self._find(key), dtype)
            numbers = self._storages[key]
            return numbers if part is None else numbers[part[0] : part[0] + part[1]]
        if isinstance(storage, Record) and storage.name == "torch.storage._load_from_bytes":
            inner = self._nested[id(_text_or_bytes(storage.args[0]))]
            return inner._storage(inner.root)
        raise pickle.UnpicklingError("a tensor without a storage")

    def _array(self, value: Record) -> Tensor:
        if value.name.endswith("_frombuffer"):
            data, dtype, shape, order = value.args
            fortran = order == "F"
        else:
            _, shape, dtype, fortran, data = value.state
        code = _dtype_code(dtype)
        array = np.frombuffer(_bytes(data), code)
        if not isinstance(shape, tuple) or len(shape) > _MAX_AXES or math.prod(shape) != array.size:
            raise pickle.UnpicklingError("an array whose shape does not fit its bytes")
        array = array.reshape(shape, order="F" if fortran else "C")
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))


class SafetensorsContent(Content):
    """The tensors in a safetensors file of another program."""

    def __init__(self, file: Any, path: str | Path):
        items = {name: Record(_SAFETENSORS, (name,)) for name in file.keys()}  # noqa: SIM118
        super().__init__(Pickle(items, set(), [], []), path, 0)
        self._file = file

    def _tensor(self, value: Record, depth: int = 4) -> Tensor:
        tensor: Tensor = self._file.get_tensor(value.args[0])
        self._budget += tensor.numel() * max(tensor.element_size(), 4)  # safetensors has checked its size
        return tensor


def open_pickle(path: str | Path) -> Content:
    """The content of a plain pickle, such as those of NVIDIA's programs.

    Raises the errors of `read_pickle`.
    """
    # A mapped file never returns more bytes than it has, whatever lengths it claims.
    if not Path(path).stat().st_size:
        raise ZeroshiftError(f"{path} is empty.")
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return Content(read_pickle(content, path), path, len(content))


def open_torch(path: str | Path, scripts: bool = False) -> Content:
    """The content of a file of torch.save, a zip archive or the format before version 1.6.

    Args:
        scripts: whether TorchScript archives are read as well: their weights alone, not their program.

    Raises:
        ZeroshiftError: a kind of file that is not supported, or as `read_pickle`.
        pickle.UnpicklingError, zipfile.BadZipFile, ValueError, OSError and others: a damaged file.
    """
    with open(path, "rb") as file:
        if file.read(4) == b"PK\x03\x04":
            return _open_zip(path, scripts)
        content = mmap(file.fileno(), 0, access=ACCESS_READ)  # stays open for the tensors
        return _open_legacy(content, content, path)


def pickle_member(path: str | Path) -> bytes | None:
    """The pickle in a zip archive of torch.save; None if the file has none, or a damaged one."""
    try:
        with _Archive(path) as archive:
            name = archive.pickle_name()
            return None if name is None else bytes(archive.read(name, MAX_PICKLE))
    except (OSError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, ZeroshiftError):
        return None


class _Archive(zipfile.ZipFile):
    """A zip archive whose members are checked against its size."""

    def __init__(self, path: str | Path):
        super().__init__(path)
        self.path = path
        members = self.infolist()
        self.bytes = Path(path).stat().st_size
        if len(members) > _MAX_MEMBERS or len(set(self.namelist())) < len(members):
            self.close()
            raise ZeroshiftError(f"{path} is no file of torch.save: it has too many members, or two of the same name.")
        if sum(member.file_size for member in members) > 4 * self.bytes + _SPARE:
            self.close()
            raise ZeroshiftError(f"{path} claims to unpack to far more than its size. No file of torch.save does.")

    def pickle_name(self) -> str | None:
        """The name of the pickle, `ARCHIVE/data.pkl`."""
        names = [name for name in self.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
        return min(names, key=lambda name: name.count("/"), default=None)

    def read(self, name: str, limit: int | None = None) -> bytearray:  # type: ignore[override]
        """The bytes of a member. A checksum that does not fit gives a warning."""
        info = self.getinfo(name)
        if info.file_size > (self.bytes + _SPARE if limit is None else limit):
            raise ZeroshiftError(f"{self.path} is no file of torch.save: its part {name!r} is too large.")
        if info.compress_type != zipfile.ZIP_STORED:
            return bytearray(super().read(name))
        if info.compress_size != info.file_size or info.flag_bits & 1:
            raise zipfile.BadZipFile(f"{name} has two sizes or is encrypted")
        with open(self.path, "rb") as file:
            file.seek(info.header_offset)
            header = file.read(30)
            if header[:4] != b"PK\x03\x04" or len(header) < 30:
                raise zipfile.BadZipFile(f"{name} is not where it should be")
            file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
            data = bytearray(min(info.file_size, self.bytes))
            if file.readinto(data) != info.file_size:
                raise zipfile.BadZipFile(f"{name} is cut off")
        if zlib.crc32(data) != info.CRC:
            warnings.warn(
                f"{self.path}: the checksum of {name!r} does not fit its data. The file may be damaged; compare it "
                "with the original.",
                stacklevel=2,
            )
        return data


def _open_zip(path: str | Path, scripts: bool) -> Content:
    archive = _Archive(path)  # stays open for the tensors
    name = archive.pickle_name()
    if name is None:
        raise ZeroshiftError(f"{path} is a zip archive, but none of torch.save: it has no data.pkl.")
    folder = name.removesuffix("data.pkl")
    if f"{folder}constants.pkl" in archive.namelist() and not scripts:
        raise ZeroshiftError(
            f"{path} is a TorchScript program. Load it in its own program and save its state_dict with torch.save."
        )
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder", 16) != b"little":
        raise ZeroshiftError(f"{path} was written on a big-endian machine, which is not supported.")
    pickled = read_pickle(io.BytesIO(archive.read(name, MAX_PICKLE)), path)
    return Content(pickled, path, archive.bytes, lambda key: archive.read(f"{folder}data/{key}"))


def _nested(pickled: Pickle, path: str | Path) -> dict[int, Content]:
    """The storages within a pickle, which are files of torch.save, by the identity of their bytes."""
    found: dict[int, Content] = {}
    if len(pickled.storages) > _MAX_NESTED:
        raise ZeroshiftError(f"{path} has more than {_MAX_NESTED:,} tensors, far more than a generator needs.")
    for call in pickled.storages:
        data = _text_or_bytes(call.args[0])
        if id(data) not in found:
            content = _bytes(data)
            inner = _open_legacy(io.BytesIO(content), content, path, _MAX_NESTED_INSTRUCTIONS)
            if not isinstance(inner.root, Reference):
                raise pickle.UnpicklingError("something else where a tensor's storage should be")
            found[id(data)] = inner
    return found


def _open_legacy(file: Any, data: Any, path: str | Path, limit: int = MAX_INSTRUCTIONS) -> Content:
    """Five pickles (magic number, version, system, content, keys), then the storages in the order of the keys.

    `file` and `data` are the same bytes, to be read and to be sliced.
    """
    if [read_pickle(file, path, limit).root for _ in range(2)] != [_MAGIC, _VERSION]:
        raise pickle.UnpicklingError("it does not start like a file of torch.save")
    system = read_pickle(file, path, limit).root
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise ZeroshiftError(f"{path} was written on a big-endian machine, which is not supported.")
    pickled = read_pickle(file, path, limit)
    kinds = {key: kind for kind, key, _ in (_storage_reference(one) for one in pickled.references if _is_storage(one))}
    places: dict[int | str, slice] = {}
    keys = read_pickle(file, path, limit).root
    position = file.tell()
    for key in keys if isinstance(keys, list) else ():
        count = int.from_bytes(data[position : position + 8], "little", signed=True)
        end = position + 8 + count * kinds[key].itemsize
        if count < 0 or end > len(data):
            raise pickle.UnpicklingError("the numbers of its tensors are cut off")
        places[key] = slice(position + 8, end)
        position = end
    return Content(pickled, path, len(data), lambda key: bytearray(data[places[key]]))


def _is_storage(reference: Reference) -> bool:
    return isinstance(reference.value, tuple) and reference.value[:1] == ("storage",)


def _storage_reference(reference: Reference) -> tuple[torch.dtype, int | str, tuple[int, int] | None]:
    """Type, key, and offset and length within the storage, from ("storage", class, key, device, length, view)."""
    _, kind, key, _, _, *view = reference.value
    if not isinstance(kind, Name) or not isinstance(key, (int, str)):
        raise pickle.UnpicklingError("a tensor without a storage")
    name = kind.value.rpartition(".")[2].removesuffix("Storage")
    dtype = torch.uint8 if name == "Untyped" else _STORAGES[name]
    if view and view[0] is not None:
        _, offset, length = view[0]
        return dtype, key, (offset, length)
    return dtype, key, None


def _numbers(data: bytearray, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _check_view(offset: int, size: Sequence[int], stride: Sequence[int], length: int, budget: int) -> None:
    """Raises an error for a tensor that reaches beyond the `length` numbers of its storage."""
    if len(size) > _MAX_AXES or min((offset, *size, *stride)) < 0:
        raise pickle.UnpicklingError("a tensor with too many axes or negative sizes")
    last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
    count = math.prod(size)
    if count and last >= length:
        raise pickle.UnpicklingError("a tensor that reaches beyond its storage")
    if 4 * max((count, *size)) > budget:
        raise pickle.UnpicklingError("a tensor that claims far more numbers than the file has")


def _record(value: Any) -> Record:
    if not isinstance(value, Record):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return value


def _text_or_bytes(data: Any) -> Any:
    """The bytes, or the text that holds them in protocol 2."""
    return data.args[0] if isinstance(data, Record) and data.name == "_codecs.encode" else data


def _bytes(data: Any) -> bytes:
    data = _text_or_bytes(data)
    return data.encode("latin1") if isinstance(data, str) else bytes(memoryview(data))


def _dtype_code(dtype: Record) -> str:
    """The code of a numpy.dtype with its byte order, such as "<f4"."""
    order = str(dtype.state[1]).replace("|", "") if dtype.state else ""
    code = f"{order}{dtype.args[0]}"
    if not re.fullmatch(r"[<>=]?[biuf][1248]", code):
        raise pickle.UnpicklingError("NumPy data that are no numbers")
    return code


def _scalar(dtype: Record, data: Any) -> bool | int | float:
    value: bool | int | float = np.frombuffer(_bytes(data), _dtype_code(dtype), count=1).item()
    return value
