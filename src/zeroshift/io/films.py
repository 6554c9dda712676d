"""Writes films: MP4, GIF and animated WebP."""

import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import atomic_write
from zeroshift.io.ffmpeg import require_ffmpeg, write_mp4
from zeroshift.io.images import metadata
from zeroshift.io.outputs import signed
from zeroshift.io.scaling import Resample, Scale
from zeroshift.io.titles import with_card

__all__ = ["frame_times", "require_film", "save_film"]

_SUFFIXES = (".mp4", ".gif", ".webp")
# Viewers show frames that are shorter for 100 ms: of a GIF below 20 ms, of a WebP file up to 10 ms.
_FASTEST = {".gif": 50, ".webp": 90}


def require_film(path: str | Path, fps: int) -> None:
    """Raises ZeroshiftError unless `save_film` can write a film of this name and speed."""
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise ZeroshiftError(f"Cannot write a film to {str(path)!r}: the name must end in .mp4, .gif or .webp.")
    if not 0 < fps <= _FASTEST.get(suffix, fps):
        raise ZeroshiftError(
            f"A {suffix} film shows 1 to {_FASTEST[suffix]} frames per second, not {fps}. Write an .mp4 for more."
            if suffix in _FASTEST
            else f"A film has at least 1 frame per second, not {fps}."
        )
    if suffix == ".mp4":
        require_ffmpeg()


def save_film(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: int,
    *,
    title: str = "",
    scale: int | str | Scale = 1,
    resample: Resample = "auto",
) -> Path:
    """Writes uint8 frames [H, W, 3] of one size as .mp4 (H.264), .gif or .webp (both endless loops), atomically.

    Args:
        path: the file. Its suffix decides the format.
        frames: the frames.
        fps: frames per second: at most 50 for .gif and 90 for .webp, because viewers slow down faster ones.
        title: text of a card that is shown for 1.5 seconds before the film.
        scale: a whole factor, such as 4, or the height of a frame, such as "512px".
        resample: "nearest", "lanczos" or "auto", see `zeroshift.io.scaling.Scale`.

    Raises:
        ZeroshiftError: a name with another suffix, no frames, a title that does not fit, an invalid scale, or a film
            that could not be written completely. A film of this name from before then stays as it was.

    Examples:
        >>> frames = (numpy.full((64, 64, 3), level, numpy.uint8) for level in (0, 128, 255))
        >>> save_film("fade.gif", frames, fps=10).name
        'fade.gif'
    """
    path = Path(path)
    require_film(path, fps)
    chosen = scale if isinstance(scale, Scale) else Scale.parse(scale, resample)
    write = {".gif": _write_gif, ".webp": _write_webp, ".mp4": write_mp4}[path.suffix.lower()]
    notes: list[str] = []
    with atomic_write(path) as temporary:
        if not write(temporary, with_card(_scaled(frames, chosen, notes), title, fps), fps, notes):
            raise ZeroshiftError(f"There are no frames for the film {path}. It needs at least one.")
    return path


def _scaled(frames: Iterable[np.ndarray], scale: Scale, notes: list[str]) -> Iterator[np.ndarray]:
    """The frames after scaling; adds what was done to `notes` before the first one."""
    for number, frame in enumerate(frames):
        if number == 0 and (note := scale.note(*frame.shape[:2])):
            notes.append(note)
        yield scale(frame)


def frame_times(num: int, fps: float, per_second: int) -> list[int]:
    """How long each frame is shown, in whole units of 1 / per_second seconds, so that the errors do not add up."""
    ends = [round(frame * per_second / fps) for frame in range(num + 1)]
    return [end - start for start, end in itertools.pairwise(ends)]


def _write_gif(path: Path, frames: Iterable[np.ndarray], fps: int, notes: list[str]) -> int:
    images = [Image.fromarray(frame) for frame in frames]
    times = [10 * time for time in frame_times(len(images), fps, 100)]  # a GIF counts in hundredths of a second
    return _write_images(path, images, {"format": "GIF", "duration": times, "comment": signed(notes).encode()})


def _write_webp(path: Path, frames: Iterable[np.ndarray], fps: int, notes: list[str]) -> int:
    images = [Image.fromarray(frame) for frame in frames]
    quality = {"quality": 90, "method": 4, "exif": metadata(notes)}
    return _write_images(
        path,
        images,
        {"format": "WEBP", "duration": frame_times(len(images), fps, 1000), "minimize_size": True, **quality},
    )


def _write_images(path: Path, images: list[Image.Image], options: dict[str, object]) -> int:
    if images:
        film = io.BytesIO()  # Pillow reports no cause if it cannot write a file
        images[0].save(film, save_all=True, append_images=images[1:], loop=0, **options)  # type: ignore[arg-type]
        path.write_bytes(film.getvalue())
    return len(images)
