"""ICC profiles of RGB color spaces, written by hand."""

import struct

__all__ = ["DISPLAY_P3", "SRGB", "rgb_profile"]

# Primaries as XYZ relative to D50, columns of the published matrices.
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # of sRGB and Display P3


def rgb_profile(primaries: tuple[tuple[float, ...], ...]) -> bytes:
    """An ICC 4 profile: primaries (red, green, blue) and the curve of sRGB."""
    tags = {b"desc": _text("test"), b"cprt": _text("none"), b"wtpt": _xyz((0.9642, 1.0, 0.8249))}
    for letter, primary in zip(b"rgb", primaries, strict=True):
        tags[bytes([letter]) + b"XYZ"] = _xyz(primary)
        tags[bytes([letter]) + b"TRC"] = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + _fixed(_CURVE)
    offset, table, data = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, offset + len(data), len(content))
        data += padded
    head = struct.pack(">I4sI4s4s4s", offset + len(data), bytes(4), 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + _fixed((0.9642, 1.0, 0.8249))
    return head + bytes(128 - len(head)) + table + data


def _fixed(values: tuple[float, ...]) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(values)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded
