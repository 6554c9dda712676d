"""Changes the files of a case. A case is defined by the seed of its random numbers alone."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.fuzz.containers import mutate_png, mutate_safetensors, mutate_zip
from tests.fuzz.json_values import mutate_json
from tests.fuzz.pickles import mutate_pickle

__all__ = ["Files", "Link", "mutate"]


@dataclass(frozen=True)
class Link:
    """A symbolic link in the place of a file."""

    target: str


Files = dict[str, "bytes | Link | None"]
"""Relative path -> content, link, or None for a folder."""

_LENGTHS = (0, 1, 2**7, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1)


def mutate(files: Files, draw: Random) -> tuple[Files, str]:
    """The files with one to three changes, and a description of them."""
    changed, notes = dict(files), []
    name = draw.choice(sorted(files))
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        if name not in changed or draw.random() < 0.2:
            name = draw.choice(sorted(changed))
        content = changed[name]
        if draw.random() < (0.08 if len(files) > 1 else 0.02) or not isinstance(content, bytes):
            notes.append(_mutate_folder(changed, name, draw))
        else:
            kind = _kind(name, content)
            structured = draw.random() < 0.75
            changed[name] = _structured(content, kind, draw) if structured else mutate_bytes(content, draw)
            notes.append(f"{name}: {kind if structured else 'bytes'}")
    return changed, "; ".join(notes)


def _kind(name: str, content: bytes) -> str:
    if name.endswith(".jsonl"):
        return "lines"
    if content[8:9] == b"{" and len(content) > 8 + int.from_bytes(content[:8], "little"):
        return "safetensors"
    heads = {b"PK\x03\x04": "zip", b"\x80": "pickle", b"\x89PNG": "png", b"{": "json", b"[": "json"}
    return next((kind for head, kind in heads.items() if content.startswith(head)), "bytes")


def _structured(content: bytes, kind: str, draw: Random) -> bytes:
    changes: dict[str, Callable[[bytes, Random], bytes]] = {
        "json": mutate_json, "lines": _mutate_lines, "safetensors": mutate_safetensors, "pickle": mutate_pickle,
        "png": mutate_png, "zip": lambda archive, draw: mutate_zip(archive, draw, _mutate_member),
        "bytes": mutate_bytes,
    }  # fmt: skip
    try:
        return changes[kind](content, draw)
    except Exception:  # an earlier change has broken the structure
        return mutate_bytes(content, draw)


def _mutate_member(content: bytes, draw: Random) -> bytes:
    return _structured(content, _kind("", content), draw)


def mutate_bytes(content: bytes, draw: Random) -> bytes:
    """Flipped bits, other bytes, truncation, exchanged, repeated, inserted or zeroed blocks, other lengths."""
    size = len(content)
    if not size:
        return draw.choice([b"\0", b"x" * 100, b"\x80\x04."])
    kind, place = draw.randrange(9), _place(size, draw)
    length = min(draw.choice([1, 4, 16, 512, 4096]), size - place)
    changed = bytearray(content)
    if kind <= 1:
        for _ in range(draw.choice([1, 1, 4, 40])):
            at = _place(size, draw)
            changed[at] = changed[at] ^ (1 << draw.randrange(8)) if kind else draw.randrange(256)
    elif kind == 2:
        del changed[place:]
    elif kind == 3:
        other = _place(size, draw)
        changed[place : place + length] = content[other : other + length]
    elif kind == 4:
        changed[place:place] = draw.choice([draw.randbytes(length), bytes(length), b"\xff" * length, b"\r\n"])
    elif kind == 5:
        changed[place : place + length] = bytes(length)
    elif kind == 6:
        del changed[place : place + length]
    elif kind == 7:
        number = struct.pack(draw.choice(["<Q", ">Q"]), draw.choice(_LENGTHS))
        width = draw.choice([2, 4, 8])
        changed[place : place + width] = number[:width] if number[0] else number[-width:]
    else:
        changed += draw.choice([b"\0", bytes(5000), b"}\n", content])
    return bytes(changed)


def _place(size: int, draw: Random) -> int:
    """A place, often in the first or last 4 KiB, where headers and tables are."""
    kind = draw.random()
    if kind < 0.4:
        return draw.randrange(min(size, 4096))
    if kind < 0.6:
        return size - 1 - draw.randrange(min(size, 4096))
    return draw.randrange(size)


def _mutate_lines(content: bytes, draw: Random) -> bytes:
    """JSON lines with a line changed, lost, doubled, exchanged, blank, or followed by NUL bytes."""
    lines = content.splitlines(keepends=True)
    if not lines:
        return mutate_bytes(content, draw)
    index, kind = draw.randrange(len(lines)), draw.random()
    if kind < 0.6:
        lines[index] = mutate_json(lines[index], draw) + b"\n"
    elif kind < 0.7:
        lines[index] = draw.choice([b"", bytes(512), b"\xff\xfe", b"null", b"[]", b"3", b"{}", b"{"]) + b"\n"
    elif kind < 0.8:
        lines.insert(index, draw.choice([b"\n", bytes(4096), b"  \n", lines[index], b"\r\n"]))
    elif kind < 0.9:
        del lines[index]
    else:
        draw.shuffle(lines)
    return b"".join(lines)


def _mutate_folder(files: Files, name: str, draw: Random) -> str:
    """A missing, renamed, empty, exchanged or further file, or a link or folder in its place."""
    kind = draw.randrange(8)
    content = files.pop(name)
    if kind == 0 and files:
        return f"{name}: missing"
    if kind == 1:
        other = draw.choice([f"{name}.bak", name.upper(), "x", "é " + name, "-" + name, ".hidden"])
        files[other] = content
        return f"{name}: renamed to {other!r}"
    if kind == 2:
        files[name] = None
        return f"{name}: a folder"
    if kind == 3:
        target = draw.choice(["nowhere", ".", "/dev/null", "/dev/zero", "/proc/self/mem"])
        files[name] = Link(target)
        return f"{name}: a link to {target}"
    if kind == 4 and files:
        other = draw.choice(sorted(files))
        files[name], files[other] = files[other], content
        return f"{name}: exchanged with {other}"
    if kind == 5:
        files[name], files[f"{name}-index.json"] = content, b'{"weight_map": {"x": "/etc/passwd"}}'
        return f"{name}: a further index"
    if kind == 6:
        files[name] = content
        files[draw.choice(["x.json", "notes.txt", "model_index.json", "config.json.bak"])] = b"text"
        return f"{name}: a further file"
    files[name] = b""
    return f"{name}: empty"
