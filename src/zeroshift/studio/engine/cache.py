"""Loaded generators that the studio keeps: renderers for latents, translators for photos, one encoder for labels."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from zeroshift.api.drawing import Renderer, load_renderer
from zeroshift.api.runs import load_for_photos
from zeroshift.generators.base import Generator
from zeroshift.training.run_folder import RunFolder

__all__ = ["Kept", "ModelCache"]

_RENDERERS, _PHOTO_MODELS = 3, 2
_MOST_BYTES = 128 * 2**20  # of each cache: fifteen miniature generators, or one StyleGAN2 of 1024 pixels

T = TypeVar("T")


class Kept(Generic[T]):
    """The last few values that were asked for; thread-safe, and each value is made once.

    Args:
        size: number of values.
        most_bytes: largest sum of their sizes; the last value is kept also if it alone is larger.
        bytes_of: the size of a value.
    """

    def __init__(self, size: int, most_bytes: int, bytes_of: Callable[[T], int]):
        self._size, self._most_bytes, self._bytes_of = size, most_bytes, bytes_of
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key; made if it is not there."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
            self._values.move_to_end(key)
            while len(self._values) > 1 and (len(self._values) > self._size or self._bytes() > self._most_bytes):
                self._values.popitem(last=False)
            return self._values[key]

    def _bytes(self) -> int:
        return sum(map(self._bytes_of, self._values.values()))


class ModelCache:
    """Loads the generators of runs on first use, and again when a run has changed."""

    def __init__(self) -> None:
        self._renderers: Kept[tuple[Renderer, threading.Lock]] = Kept(
            _RENDERERS, _MOST_BYTES, lambda kept: _renderer_bytes(kept[0])
        )
        self._photo_models: Kept[tuple[Generator, list[Generator]]] = Kept(
            _PHOTO_MODELS, _MOST_BYTES, lambda kept: _bytes([kept[0], *kept[1]])
        )

    def renderer(self, runs: Sequence[RunFolder], generator: str = "") -> tuple[Renderer, threading.Lock]:
        """The renderer of finished runs, or if there is none of a generator; and the lock under which it draws.

        Raises:
            ZeroshiftError: see `load_renderer`.
        """
        key = tuple(map(_stamp, runs)) or generator
        return self._renderers.get(key, lambda: (load_renderer(list(runs) or generator), threading.Lock()))

    def for_photos(self, runs: Sequence[RunFolder]) -> tuple[Generator, list[Generator]]:
        """Source and targets of finished runs, with the sampling settings for photos.

        Raises:
            ZeroshiftError: see `load_for_photos`.
        """
        return self._photo_models.get(tuple(map(_stamp, runs)), lambda: load_for_photos(runs))


def _bytes(generators: Sequence[Generator]) -> int:
    return sum(part.nbytes for one in generators for part in (*one.parameters(), *one.buffers()))


def _renderer_bytes(renderer: Renderer) -> int:
    """Size of a renderer: the source, and for each target its weights and those of a mixture."""
    return _bytes([renderer.source, *renderer.targets, *renderer.targets])


def _stamp(run: RunFolder) -> tuple[Path, int]:
    """Changes when the run gets another adapted generator."""
    return run.path.resolve(), run.generator_path.stat().st_mtime_ns
