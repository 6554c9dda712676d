"""Mutations of pickles by instruction: swapped names, absurd numbers, nesting, hash bombs, calls that leave a mark."""

import pickletools
import struct
from random import Random

__all__ = ["CANARY", "mutate_pickle"]

CANARY = "zeroshift-fuzz-canary"
"""A file or folder of this name in the current folder shows that code in a file was executed."""

_CALLS = (
    f"cos\nmkdir\n(V{CANARY}\ntR", f"cposix\nsystem\n(Vmkdir {CANARY}\ntR",
    f"cbuiltins\nexec\n(Vopen('{CANARY}', 'w')\ntR",
    f"cbuiltins\neval\n(Vopen('{CANARY}', 'w')\ntR", f"c__builtin__\nopen\n(V{CANARY}\nVw\ntR",
    f"csubprocess\nPopen\n((Vmkdir\nV{CANARY}\nltR", f"cpathlib\nPath.mkdir\n(cpathlib\nPath\n(V{CANARY}\ntRtR",
    "ctorch.hub\nload\n(Vx/y\nVz\ntR", f"cnumpy\nsave\n(V{CANARY}\nK\x01tR",
    "cimportlib\nimport_module\n(Vantigravity\ntR",
)  # fmt: skip
_NAMES = (
    "os system", "builtins eval", "builtins getattr", "builtins bytearray", "builtins range", "builtins set",
    "collections OrderedDict", "collections Counter", "collections defaultdict", "argparse Namespace", "numpy dtype",
    "numpy ndarray", "numpy.core.multiarray scalar", "numpy.core.multiarray _reconstruct", "torch Size", "torch device",
    "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "torch._utils _rebuild_sparse_tensor",
    "torch._tensor _rebuild_from_type_v2", "torch.storage _load_from_bytes", "torch FloatStorage", "torch HalfStorage",
    "dnnlib.util EasyDict", "torch_utils.persistence _reconstruct_persistent_obj", "_codecs encode",
    "pytorch_lightning.callbacks ModelCheckpoint", "copyreg _reconstructor", "functools partial",
)  # fmt: skip
_NUMBERS = (0, 1, -1, 2, 255, 2**16, 10**6, 10**9, 2**31 - 1, 2**31, 2**40, 2**62, -(2**31), 2**200)
_NESTED = b"(" * 3000 + b"t" * 3000
_HASH_BOMB = b"}" + b")" + b"2\x86" * 60 + b"Ns"  # {(((...), (...)), ...): None}, 2 ** 60 hashes of tuples
_MEMO_BOMB = b"}" + b")" + b"q\xfah\xfa\x86" * 60 + b"Ns"  # the same for readers that cannot double the top
_SET_BOMB = b"cbuiltins\nfrozenset\n(" + b"(l" + b")" + b"2\x86" * 60 + b"atR"
_DOUBLED_TEXT = b"V" + b"x" * 1000 + b"\n" + b"2\x86" * 40


def mutate_pickle(content: bytes, draw: Random) -> bytes:
    """A pickle, or several ones in a row, with some other instructions."""
    try:
        pieces = _instructions(content)
    except (ValueError, IndexError, struct.error, UnicodeDecodeError):
        return content[: draw.randrange(len(content) + 1)]
    for _ in range(1 if draw.random() < 0.7 else draw.randrange(2, 6)):
        _mutate_one(pieces, draw)
    return b"".join(piece for _, _, piece in pieces)


def _instructions(content: bytes) -> list[tuple[str, object, bytes]]:
    """(name, argument, bytes) of every instruction, without frames, whose lengths would be wrong afterward.

    What follows the last pickle, as in old files of torch.save, is one piece without a name.
    """
    pieces: list[tuple[str, object, bytes]] = []
    start = 0
    while start < len(content) and content[start : start + 1] == b"\x80":
        found = [(op.name, argument, place) for op, argument, place in pickletools.genops(content[start:])]
        places = [start + place for _, _, place in found]
        end = places[-1] + 1
        for (name, argument, _), first, last in zip(found, places, [*places[1:], end], strict=True):
            if name != "FRAME":
                pieces.append((name, argument, content[first:last]))
        start = end
    return [*pieces, ("", None, content[start:])]


def _mutate_one(pieces: list[tuple[str, object, bytes]], draw: Random) -> None:
    index = draw.randrange(len(pieces))
    kind = draw.random()
    if kind < 0.2:
        index = _pick(pieces, ("GLOBAL", "STACK_GLOBAL"), draw, index)
        module, name = draw.choice(_NAMES).split(" ")
        taken = b"00" if pieces[index][0] == "STACK_GLOBAL" else b""  # the two strings on the stack
        pieces[index] = ("GLOBAL", None, taken + f"c{module}\n{name}\n".encode())
    elif kind < 0.4:
        index = _pick(pieces, ("BININT", "BININT1", "BININT2", "LONG1", "INT", "LONG"), draw, index)
        pieces[index] = ("LONG", None, _number(draw.choice(_NUMBERS)))
    elif kind < 0.5:
        index = _pick(pieces, ("BINUNICODE", "SHORT_BINUNICODE", "BINPUT", "BINGET", "MEMOIZE"), draw, index)
        _mutate_text(pieces, index, draw)
    elif kind < 0.58:
        index = _pick(pieces, ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), draw, index)
        _mutate_bytes(pieces, index, draw)
    elif kind < 0.68:
        call = draw.choice(_CALLS).encode("latin1")
        pieces.insert(index, ("", None, call + draw.choice([b"", b"0"])))
    elif kind < 0.76:
        bomb = draw.choice(
            [_NESTED, _HASH_BOMB, _MEMO_BOMB, _SET_BOMB, _DOUBLED_TEXT, b"N" * 100_000, b"(" * 100_000, b"2" * 1000]
        )
        pieces.insert(index, ("", None, bomb + draw.choice([b"", b"0"])))
    elif kind < 0.82:
        del pieces[index : index + draw.choice([1, 1, 2, 10])]
    elif kind < 0.88:
        pieces[index:index] = pieces[index : index + draw.choice([1, 2, 20])]
    elif kind < 0.94:
        other = draw.randrange(len(pieces))
        pieces[index], pieces[other] = pieces[other], pieces[index]
    else:
        code = draw.choice([b"R", b"b", b"\x81", b"o", b"\x93", b"Q", b".", b"t", b"s", b"u", b"e", b"}", b"]", b"N"])
        pieces[index] = ("", None, code)


def _pick(pieces: list[tuple[str, object, bytes]], names: tuple[str, ...], draw: Random, otherwise: int) -> int:
    """An instruction with one of these names."""
    places = [place for place, (name, _, _) in enumerate(pieces) if name in names]
    return draw.choice(places) if places else otherwise


def _mutate_text(pieces: list[tuple[str, object, bytes]], index: int, draw: Random) -> None:
    name, argument, piece = pieces[index]
    if name.endswith("UNICODE"):
        text = str(argument)
        texts = [text[:-1], f"{text}x", "", "g_ema", "state_dict", "weight", "x" * 100_000, "cuda:0", "0", text[::-1]]
        changed = draw.choice(texts).encode("utf-8", "surrogatepass")
        pieces[index] = (name, None, b"X" + struct.pack("<I", len(changed)) + changed)
    elif name in ("BINPUT", "BINGET"):
        pieces[index] = (name, None, piece[:1] + bytes([draw.randrange(256)]))


def _mutate_bytes(pieces: list[tuple[str, object, bytes]], index: int, draw: Random) -> None:
    """Bytes in a pickle may be a pickle, such as a storage in NVIDIA's files."""
    _, argument, _ = pieces[index]
    if not isinstance(argument, bytes):
        return
    if argument.startswith(b"\x80") and draw.random() < 0.7:
        changed = mutate_pickle(argument, draw)
    else:
        changed = argument[: draw.randrange(len(argument) + 1)]
    length = len(changed) if draw.random() < 0.9 else draw.choice([2**31 - 1, len(changed) + 1])
    pieces[index] = ("BINBYTES", None, b"B" + struct.pack("<I", length) + changed)


def _number(value: int) -> bytes:
    return f"L{value}L\n".encode() if not -(2**31) <= value < 2**31 else b"J" + struct.pack("<i", value)
