"""Mutations of JSON: other types, extreme numbers, depth, length, keys that are unknown, missing or doubled."""

import json
import math
from random import Random
from typing import Any

__all__ = ["mutate_json", "mutate_value"]

_NUMBERS = (
    0, -1, 1, 2, 3, 7, 64, 255, 4096, 10**6, 10**9, 2**31, 2**63, 2**64, 10**30, 10**400, -(10**9), 0.0, -0.5, 0.5,
    1.5, 1e-30, 1e9, 1e38, 1e308, math.nan, math.inf, -math.inf,
)  # fmt: skip
_STRINGS = (
    "", " ", "x", "\0", "None", "true", "nan", "ünïcödé", "\ud800", "{}", "{x}", "{", "}", "{0.__class__}",
    "%s", "a" * 300,
    "../../../etc/passwd", "/dev/zero", "http://127.0.0.1:9/x", "https://example.invalid/x", "hf-hub:timm/x", "file:x",
    "os:getcwd", "posix:system", "antigravity:fly", "UNet2DModel", "AutoencoderKL", "stylegan2", "stylegan3", "module",
    "diffusion", "linear", "sigmoid", "squaredcos_cap_v2", "v_prediction", "trailing", "relu", "float16",
    "cuda", "auto",
    "1e9", "1", "zombie", "photo", "adapt", "prompts", "nada", "ipl", "F32", "I64", "BOOL", "U8", "F64", "BF16",
    "F8_E4M3",
)  # fmt: skip
_TEXTS = (b"", b"null", b"[]", b"{}", b"3", b'"text"', b"NaN", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 5000)


def mutate_json(content: bytes, draw: Random) -> bytes:
    """A changed JSON text. Content that is not JSON is returned with a bracket inserted."""
    try:
        value = json.loads(content)
    except ValueError:
        place = draw.randrange(len(content) + 1)
        return content[:place] + draw.choice([b"{", b"[", b'"', b"]", b"}", b","]) + content[place:]
    kind = draw.random()
    if kind < 0.05:
        return draw.choice(_TEXTS)
    if kind < 0.1:
        return _double_key(content, draw)
    for _ in range(1 if draw.random() < 0.7 else draw.randrange(2, 5)):
        value = mutate_value(value, draw)
    text = json.dumps(value)
    if kind < 0.13:
        return text.encode(draw.choice(["utf-16", "utf-8-sig", "utf-32"]))
    return text.encode()


def mutate_value(value: Any, draw: Random) -> Any:
    """A copy of a JSON value with one change at a random place."""
    path, inner = [], value
    while isinstance(inner, dict | list) and inner and draw.random() < 0.85:
        key = draw.choice(sorted(inner, key=str) if isinstance(inner, dict) else range(len(inner)))
        path.append(key)
        inner = inner[key]
    return _changed(value, path, draw)


def _changed(value: Any, path: list[Any], draw: Random) -> Any:
    if len(path) > 1 or (path and draw.random() < 0.7):
        copied = dict(value) if isinstance(value, dict) else list(value)
        copied[path[0]] = _changed(value[path[0]], path[1:], draw)
        return copied
    if path and isinstance(value, dict):
        return _changed_keys(value, path[0], draw)
    if path:
        return _changed_items(value, path[0], draw)
    return _other(value, draw)


def _changed_keys(value: dict[str, Any], key: str, draw: Random) -> dict[str, Any]:
    kind = draw.randrange(5)
    rest = {name: one for name, one in value.items() if name != key}
    if kind == 0:
        return rest
    if kind == 1:
        return {**rest, draw.choice(_STRINGS): value[key]}
    if kind == 2:
        return {**value, draw.choice([*_STRINGS, "__class__", "self", "_class_name", "steps", "device"]): _any(draw)}
    if kind == 3:
        return {**value, key: draw.choice(list(value.values()))}
    return {**value, **{f"{key}{number}": value[key] for number in range(draw.choice([10, 1000]))}}


def _changed_items(value: list[Any], index: int, draw: Random) -> list[Any]:
    return draw.choice(
        [value[:index], value[index + 1 :], value[:index] + value, value * 50, [*value, _any(draw)], value[::-1]]
    )


def _other(value: Any, draw: Random) -> Any:
    """Another value in the place of this one, near it or far from it."""
    if isinstance(value, bool):
        return draw.choice([not value, int(value), str(value), None, _any(draw)])
    if isinstance(value, int | float) and draw.random() < 0.7:
        near = [value + 1, value - 1, value * 2, -value, value * 1000, str(value), [value], [value] * 2, float(value)]
        return draw.choice([*near, *_NUMBERS])
    if isinstance(value, str) and draw.random() < 0.7:
        part = draw.randrange(len(value) + 1)
        near = [value[:part], value + "x", value.upper(), value * 40, [value], {value: value}, list(value[:20])]
        return draw.choice([*near, *_STRINGS])
    return draw.choice([[value], {"a": value}, None, _any(draw)])


def _any(draw: Random) -> Any:
    kind = draw.random()
    if kind < 0.1:
        return _nested(draw.choice([20, 70, 400]))
    if kind < 0.15:
        return "x" * draw.choice([10_000, 1_000_000])
    if kind < 0.2:
        return [draw.choice(_NUMBERS)] * draw.choice([2, 3, 1000])
    return draw.choice([None, True, False, [], {}, [[]], {"": None}, draw.choice(_NUMBERS), draw.choice(_STRINGS)])


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _double_key(content: bytes, draw: Random) -> bytes:
    """The text with a second value for a key of the top level."""
    value = json.loads(content)
    if not isinstance(value, dict) or not value:
        return content
    key, text = draw.choice(sorted(value)), json.dumps(_any(draw))
    return json.dumps(value).encode()[:-1] + f", {json.dumps(key)}: {text}}}".encode()
