"""Mutations of containers that keep them well-formed outside: safetensors, zip archives and PNG files."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

from tests.fuzz.json_values import mutate_json, mutate_value

__all__ = ["mutate_png", "mutate_safetensors", "mutate_zip"]

Bytes = Callable[[bytes, Random], bytes]
_TABLES = (
    (b"PK\x01\x02", (8, 10, 16, 20, 24, 28, 30, 42)),
    (b"PK\x03\x04", (6, 8, 14, 18, 22, 26, 28)),
    (b"PK\x05\x06", (8, 10, 12, 16)),
)
_DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}


def mutate_safetensors(content: bytes, draw: Random) -> bytes:
    """A safetensors file with another header, other metadata, other sizes, or weights that are not finite."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    names = sorted(name for name in header if name != "__metadata__")
    kind = draw.random()
    if kind < 0.4 and header.get("__metadata__"):
        _mutate_metadata(header["__metadata__"], draw)
    elif kind < 0.55 and names:
        _mutate_entry(header, names, draw)
    elif kind < 0.65 and names:
        return _rebuilt(header, data, names, draw)
    elif kind < 0.75:
        header = mutate_value(header, draw)
    elif kind < 0.85 and names:
        data = _not_finite(header, data, names, draw)
    else:
        wrong = draw.choice([0, 1, length - 1, length + 1, length * 2, 2**20, 2**31, 2**62, 2**64 - 1])
        return wrong.to_bytes(8, "little") + content[8:]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _mutate_metadata(metadata: dict[str, str], draw: Random) -> None:
    """Metadata holds strings, which often are JSON themselves."""
    name = draw.choice(sorted(metadata))
    try:
        changed = mutate_json(metadata[name].encode(), draw).decode()
    except ValueError:
        changed = metadata[name][: draw.randrange(len(metadata[name]) + 1)]
    metadata[name] = changed
    if draw.random() < 0.1:
        del metadata[name]


def _mutate_entry(header: dict[str, Any], names: list[str], draw: Random) -> None:
    entry = header[draw.choice(names)]
    kind, size = draw.randrange(4), 1
    for side in entry["shape"]:
        size *= side
    if kind == 0:
        entry["dtype"] = draw.choice([*_DTYPES, "F8_E4M3", "C64", "X"])
    elif kind == 1:
        entry["shape"] = draw.choice([[size], [1, size], entry["shape"][::-1], [], [0], [2**40, 2**40], [-1]])
    elif kind == 2:
        shift = draw.choice([-4, 4, 2**31, 2**60])
        entry["data_offsets"] = [offset + shift for offset in entry["data_offsets"]]
    else:
        entry["data_offsets"] = draw.choice([header[draw.choice(names)]["data_offsets"], [0, 0], [8, 4], [0, 2**62]])


def _rebuilt(header: dict[str, Any], data: bytes, names: list[str], draw: Random) -> bytes:
    """A correct file in which tensors are missing, renamed, of another shape or another type."""
    tensors = {}
    for one in names:
        entry = header[one]
        tensors[one] = (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
    name = draw.choice(names)
    dtype, shape, values = tensors.pop(name)
    kind, width = draw.randrange(5), _DTYPES.get(dtype, 1)
    if kind == 1:
        tensors[f"{name}.x"] = (dtype, shape, values)
    elif kind == 2:
        count = len(values) // width
        tensors[name] = (dtype, draw.choice([[count], [1, count], [*shape, 1], shape[::-1]]), values)
    elif kind == 3:
        other = draw.choice([one for one, size in _DTYPES.items() if len(values) % size == 0])
        if shape:
            shape = [*shape[:-1], shape[-1] * width // _DTYPES[other]]
            if shape and _count(shape) * _DTYPES[other] == len(values):
                tensors[name] = (other, shape, values)
    elif kind == 4 and shape:
        tensors[name] = (dtype, [2 * shape[0], *shape[1:]], 2 * values)
    rebuilt, parts, end = {"__metadata__": header.get("__metadata__") or {}}, [], 0
    for key, (one_type, one_shape, one_values) in tensors.items():
        rebuilt[key] = {"dtype": one_type, "shape": one_shape, "data_offsets": [end, end + len(one_values)]}
        parts.append(one_values)
        end += len(one_values)
    text = json.dumps(rebuilt).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def _count(shape: list[int]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def _not_finite(header: dict[str, Any], data: bytes, names: list[str], draw: Random) -> bytes:
    begin, end = header[draw.choice(names)]["data_offsets"]
    place = begin + 4 * draw.randrange(max(1, (end - begin) // 4))
    value = struct.pack("<f", draw.choice([float("nan"), float("inf"), -3e38, 3e38, 1e-45]))
    return data[:place] + value + data[place + 4 :]


def mutate_zip(content: bytes, draw: Random, mutate_member: Bytes) -> bytes:
    """An archive with another member, other names, or other sizes in its tables."""
    kind = draw.random()
    if kind < 0.2:
        return _mutate_tables(content, draw)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(one.file_size for one in archive.infolist()) > 1 << 28:
            raise ValueError("an earlier change has made a bomb")
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = [name for name in members if name.endswith(".pkl")]
    name = draw.choice(pickled if pickled and kind < 0.75 else sorted(members))
    deflate = draw.random() < 0.1
    if kind < 0.75:
        members[name] = mutate_member(members[name], draw)
    elif kind < 0.8:
        del members[name]
    elif kind < 0.85:
        members[draw.choice(["x", "/etc/x", "../x", f"{name}x", name.replace("/", "//", 1)])] = members.pop(name)
    elif kind < 0.9:
        members[name] = members[name][: draw.randrange(len(members[name]) + 1)]
    elif kind < 0.95:
        members[name] += bytes(draw.choice([1, 1000]))
    else:
        return _packed(members, draw, bomb=name)
    return _packed(members, draw, deflate=deflate)


def _packed(members: dict[str, bytes], draw: Random, deflate: bool = False, bomb: str = "") -> bytes:
    file, method = io.BytesIO(), zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, content if name != bomb else b"\0" * 4)
    return _with_bomb(file.getvalue(), bomb) if bomb else file.getvalue()


def _with_bomb(content: bytes, name: str) -> bytes:
    """Replaces the content of a stored member by 3 GiB of zeros, deflated to about 3 MB."""
    zeros = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = zeros.compress(bytes(1 << 24)) + zeros.flush(zlib.Z_FULL_FLUSH)
    packed, size = block * 192 + zeros.flush(), 192 << 24
    local = content.index(b"PK\x03\x04" + content[4:6], 0)
    while content[local + 30 : local + 30 + len(name)] != name.encode():
        local = content.index(b"PK\x03\x04", local + 4)
    begin = local + 30 + struct.unpack("<H", content[local + 26 : local + 28])[0]
    begin += struct.unpack("<H", content[local + 28 : local + 30])[0]
    head = bytearray(content[:begin])
    head[local + 8 : local + 10] = struct.pack("<H", zipfile.ZIP_DEFLATED)
    head[local + 18 : local + 26] = struct.pack("<II", len(packed), size)
    tail, growth = bytearray(content[begin + 4 :]), len(packed) - 4
    central = 0
    while (central := tail.find(b"PK\x01\x02", central)) >= 0:
        offset = struct.unpack("<I", tail[central + 42 : central + 46])[0]
        if offset == local:
            tail[central + 10 : central + 12] = struct.pack("<H", zipfile.ZIP_DEFLATED)
            tail[central + 20 : central + 28] = struct.pack("<II", len(packed), size)
        elif offset > local:
            tail[central + 42 : central + 46] = struct.pack("<I", offset + growth)
        central += 4
    end = tail.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", tail[end + 16 : end + 20])[0]
    tail[end + 16 : end + 20] = struct.pack("<I", start + growth)
    return bytes(head) + packed + bytes(tail)


def _mutate_tables(content: bytes, draw: Random) -> bytes:
    """Another number in a local header, in the central directory or in its end."""
    changed = bytearray(content)
    signature, fields = draw.choice(_TABLES)
    places = []
    place = content.find(signature)
    while place >= 0:
        places.append(place)
        place = content.find(signature, place + 4)
    if not places:
        return content[: len(content) // 2]
    at = draw.choice(places) + draw.choice(fields)
    number = draw.choice([0, 1, 8, 99, 0xFFFF, 2**31, 2**32 - 1, draw.randrange(2**32)])
    changed[at : at + 4] = struct.pack("<I", number)
    return bytes(changed)


def mutate_png(content: bytes, draw: Random) -> bytes:
    """A PNG file with correct checksums and another header, other chunks or other pixels."""
    chunks, place = [], 8
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    index = draw.randrange(len(chunks))
    name, body = chunks[index]
    kind = draw.randrange(6)
    if kind == 0:
        name, body = chunks[(index := 0)]
        size = draw.choice([0, 1, 2, 10_000, 13_000, 50_000, 2**31 - 1, 2**32 - 1])
        body = draw.choice([struct.pack(">II", size, size) + body[8:], struct.pack(">I", size) + body[4:]])
    elif kind == 1:
        index, (name, body) = 0, chunks[0]
        depth, color = draw.choice([1, 2, 4, 8, 16, 3]), draw.choice([0, 2, 3, 4, 6, 1])
        body = body[:8] + bytes([depth, color, *body[10:12], draw.choice([0, 1, 7])])
    elif kind == 2 and body:
        at = draw.randrange(len(body))
        body = body[:at] + bytes([draw.randrange(256)]) + body[at + 1 :]
    elif kind == 3:
        name = draw.choice([b"tRNS", b"PLTE", b"eXIf", b"iCCP", b"zTXt", b"acTL", b"IDAT", b"IEND", b"gAMA", b"abcd"])
    elif kind == 4:
        chunks.insert(index, (draw.choice([b"tRNS", b"eXIf", b"zTXt", b"iCCP", b"PLTE"]), body[:50] or b"x\0\0"))
    else:
        body = body[: draw.randrange(len(body) + 1)]
    if index < len(chunks):
        chunks[index] = (name, body)
    packed = [struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks]
    return content[:8] + b"".join(packed)
