"""What the files of a folder hold: whether each is complete, and what of it two runs of a command must share."""

import hashlib
import json
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

__all__ = ["broken_files", "contents", "differences"]

_TEMPORARY = (".zeroshift-", ".tmp")
_TIMES = ("memory", "processor_seconds", "seconds", "time")
_DURATION = re.compile(r"[\d.,]+ ?(µs|ms|s|min|h|seconds|minutes|hours|MiB|GiB|MB)\b")
_COSTS = re.compile(r"\d+ \| \d+ \|$", re.MULTILINE)  # seconds and MiB, the last columns of the benchmark's tables
_CHECKPOINTS = "checkpoints"  # their number and steps depend on interruptions; the last one does not
_LAST = "checkpoints/last.pt"
_DAMAGED = (OSError, ValueError, RuntimeError, SyntaxError, EOFError, KeyError, SafetensorError, struct.error)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def broken_files(folder: Path) -> list[str]:
    """The files that are not complete, with the reason. Temporary files and TensorBoard's logs are left out."""
    broken = []
    for path in _files(folder):
        check = _CHECKS.get(path.suffix)
        if check is not None and not path.name.startswith(_TEMPORARY):
            try:
                check(path)
            except _DAMAGED as error:
                broken.append(f"{path.relative_to(folder)} ({type(error).__name__}: {error})"[:300])
    return broken


def _check_text(path: Path) -> None:
    if not path.read_text(encoding="utf-8").endswith("\n"):
        raise ValueError("no end of line at its end")


def _check_page(path: Path) -> None:
    if not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("no </html> at its end")


def _check_lines(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):  # a process can be killed in the last one
            json.loads(line)


def _check_image(path: Path) -> None:
    with Image.open(path) as image:
        for frame in range(getattr(image, "n_frames", 1)):
            image.seek(frame)
            image.load()


def _check_film(path: Path) -> None:
    import imageio_ffmpeg

    if imageio_ffmpeg.count_frames_and_secs(str(path))[0] < 1:
        raise ValueError("no frames")


_CHECKS: dict[str, Callable[[Path], object]] = {
    ".gif": _check_image,
    ".html": _check_page,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".jsonl": _check_lines,
    ".md": _check_text,
    ".mp4": _check_film,
    ".png": _check_image,
    ".pt": lambda path: torch.load(path, map_location="cpu", weights_only=True),
    ".safetensors": load_file,
    ".webp": _check_image,
}


def contents(folder: Path, *, hashes_only: bool = False) -> dict[str, Any]:
    """What two runs of the same commands must have in common, by relative path.

    This is the hash of each file, except that times are left out of texts, JSON and checkpoints, that a log of
    measurements counts each of them once, and that TensorBoard's logs are represented by their numbers. With
    `hashes_only`, it is the hash of every file without exception.
    """
    if hashes_only:
        return {path.relative_to(folder).as_posix(): _digest(path.read_bytes()) for path in _files(folder)}
    found: dict[str, Any] = {}
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if "events" in path.parts:
            found.setdefault(str(Path(name).parent), []).extend(_scalars(path))
        elif _CHECKPOINTS not in path.parent.name or name.endswith(_LAST) or path.name.startswith(_TEMPORARY):
            found[name] = _content(path)
    return {name: sorted(value) if isinstance(value, list) and "events" in name else value
            for name, value in found.items()}  # fmt: skip


def _content(path: Path) -> Any:
    if path.suffix == ".pt":
        return _plain(torch.load(path, map_location="cpu", weights_only=True))
    if path.suffix == ".json":
        return _plain(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".jsonl":
        records = [_plain(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        if path.name.startswith("metrics-"):  # a repeated `evaluate` appends the same measurement again
            return [record for i, record in enumerate(records) if record not in records[:i]]
        return records
    if path.suffix in (".html", ".md"):
        return _COSTS.sub("COSTS", _DURATION.sub("TIME", path.read_text(encoding="utf-8")))
    return _digest(path.read_bytes())


def _plain(value: Any) -> Any:
    """A structure without times, with hashes instead of tensors."""
    if isinstance(value, torch.Tensor):
        value = value.detach().contiguous()
        return [str(value.dtype), list(value.shape), _digest(value.flatten().view(torch.uint8).numpy().tobytes())]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if key not in _TIMES}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _scalars(path: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) of a TensorBoard log."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    return [
        (value.tag, event.step, value.simple_value or float(sum(value.tensor.float_val)))
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag.rpartition("/")[2] not in _TIMES
    ]


def differences(expected: dict[str, Any], actual: dict[str, Any]) -> list[str]:
    """Paths that only one of two contents has, or with different values."""
    names = sorted(expected.keys() | actual.keys())
    return [
        f"{name} is {'missing' if name not in actual else 'left over' if name not in expected else 'different'}"
        for name in names
        if expected.get(name, names) != actual.get(name, names)
    ]
