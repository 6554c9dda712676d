"""Writes MP4 films with ffmpeg, and checks that they are complete."""

import contextlib
import errno
import os
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from zeroshift.errors import ZeroshiftError
from zeroshift.io.outputs import signed

__all__ = ["require_ffmpeg", "write_mp4"]

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)


def require_ffmpeg() -> str:
    """The path of the program.

    Raises:
        ZeroshiftError: if there is none, or the package that finds it is not installed.
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ZeroshiftError(
            "Writing .mp4 films needs the package imageio-ffmpeg: pip install 'zeroshift[video]'. Or write a .gif."
        ) from error
    try:
        program: str = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise ZeroshiftError(
            "There is no ffmpeg, which writes .mp4 films. Install it, name it in IMAGEIO_FFMPEG_EXE, or write a .gif "
            "or .webp."
        ) from error
    return program


def write_mp4(path: Path, frames: Iterable[np.ndarray], fps: int, notes: Sequence[str] = ()) -> int:
    """Writes uint8 frames [H, W, 3] of one size as H.264, and returns their number. Odd sides are padded by one pixel.

    Args:
        path: the file.
        frames: the frames.
        fps: frames per second.
        notes: what the comment of the film says after our mark; read after the first frame.

    Raises:
        OSError: if the system refused to write (a full disk, a file-size limit).
        ZeroshiftError: if ffmpeg failed, or the film does not hold every frame.
    """
    path = path.absolute()  # ffmpeg reads relative names such as "http:/a.mp4" and "pipe:1.mp4" as addresses
    number = 0
    with contextlib.ExitStack() as stack:
        for frame in frames:
            even = _pad_to_even(frame)
            if number == 0:
                size, stream = even.shape, stack.enter_context(_encoder(path, even.shape, fps, signed(notes)))
            if even.shape != size:
                raise ValueError(f"frames of one film must have one size, not {size} and {even.shape}")
            stream.write(even.tobytes())
            number += 1
    if number:
        _check_number(path, number)
    return number


@contextlib.contextmanager
def _encoder(path: Path, shape: tuple[int, ...], fps: int, comment: str) -> Iterator[IO[bytes]]:
    """A stream for frames of a shape [H, W, 3]; at its end, the file is complete or an error is raised."""
    command = [require_ffmpeg(), "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{shape[1]}x{shape[0]}", "-r", str(fps), "-i", "-", "-an", "-c:v", "libx264"]
    command += ["-pix_fmt", "yuv420p", "-crf", "16", "-metadata", f"comment={comment}", "-f", "mp4", f"file:{path}"]
    # Its own session: Ctrl-C is for us. Signals stay ignored: a file that is too large is then an error, not a kill.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True, restore_signals=False,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stderr is not None
    messages: list[bytes] = []
    reader = threading.Thread(target=lambda pipe: messages.append(pipe.read()), args=(process.stderr,), daemon=True)
    reader.start()
    try:
        with contextlib.suppress(BrokenPipeError):  # it has ended; its status and message say why
            yield process.stdin
            process.stdin.close()
        status = process.wait()
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()
        with contextlib.suppress(OSError):
            process.stdin.close()
    if status != 0:
        _refuse(status, b"".join(messages).decode(errors="replace"))


def _refuse(status: int, message: str) -> None:
    for code in _REFUSALS:
        if os.strerror(code) in message:
            raise OSError(code, os.strerror(code))
    cause = " ".join(message.split()) or "no message"
    raise ZeroshiftError(f"The film could not be written: ffmpeg ended with status {status} ({cause}).")


def _check_number(path: Path, number: int) -> None:
    """Decodes the film: it must hold this many frames."""
    import imageio_ffmpeg

    try:
        found, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
    except RuntimeError:
        found = 0
    if found != number:
        raise ZeroshiftError(f"The film could not be written: it holds {found} of its {number} frames.")


def _pad_to_even(frame: np.ndarray) -> np.ndarray:
    height, width, _ = frame.shape  # yuv420p subsamples by two
    padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded)
