"""Films replace an older one only if ffmpeg succeeded and every frame is in them."""

import errno
import os
import resource
import stat
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from zeroshift.errors import ZeroshiftError
from zeroshift.io import ffmpeg
from zeroshift.io.films import save_film

FRAMES = list(np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8))


def fake(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces ffmpeg by a shell script."""
    program = folder / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(program))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "bin")


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("echo 'a.mp4: No space left on device' >&2; exit 228", "The disk is full: .*a.mp4"),
        ("cat >/dev/null; echo 'av_interleaved_write_frame(): File too large' >&2; exit 1", "larger than files may be"),
        ("cat >/dev/null; echo 'Unknown encoder' >&2; exit 8", r"ffmpeg ended with status 8 \(Unknown encoder\)"),
        ("kill -9 $$", "ffmpeg ended with status -9"),
        ("exit 0", r"holds 0 of its \d+ frames"),
    ],
)
def test_a_film_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, sentence: str
) -> None:
    film = save_film(tmp_path / "a.mp4", FRAMES[:3], 10)
    before = film.read_bytes()
    fake(tmp_path, script, monkeypatch)
    with pytest.raises(ZeroshiftError, match=sentence):
        save_film(film, FRAMES, 10)
    assert film.read_bytes() == before
    assert names(tmp_path) == ["a.mp4"]


def test_missing_frames_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imageio_ffmpeg, "count_frames_and_secs", lambda path: (2, 0.2))
    with pytest.raises(ZeroshiftError, match="holds 2 of its 40 frames"):
        save_film(tmp_path / "a.mp4", FRAMES, 10)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["pipe:1.mp4", "http:/x/w.mp4", "file:a.mp4", "-y.mp4", "%03d.mp4", "pipe:1.gif"])
def test_names_are_never_read_as_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    save_film(name, FRAMES[:3], 10)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()] == [name]
    assert (tmp_path / name).stat().st_size > 1000


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_file_size_limit_is_a_sentence(tmp_path: Path, suffix: str) -> None:
    film = save_film(tmp_path / f"a{suffix}", FRAMES[:1], 10)
    before, limits = film.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(ZeroshiftError, match=r"larger than files may be here.*ulimit -f"):
            save_film(film, FRAMES, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert film.read_bytes() == before
    assert names(tmp_path) == [film.name]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_film_without_frames_is_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ZeroshiftError, match="no frames"):
        save_film(tmp_path / "new" / f"a{suffix}", [], 10)
    assert names(tmp_path) == []


def test_an_error_or_interrupt_between_frames_ends_ffmpeg(tmp_path: Path) -> None:
    def frames():
        yield FRAMES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_film(tmp_path / "a.mp4", frames(), 10)
    with pytest.raises(ValueError, match="one size"):
        save_film(tmp_path / "a.mp4", [FRAMES[0], FRAMES[0][:8]], 10)
    assert names(tmp_path) == []


def test_without_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    with pytest.raises(ZeroshiftError, match=r"There is no ffmpeg.*\.gif"):
        save_film(tmp_path / "a.mp4", FRAMES, 10)


def test_the_messages_of_the_system_are_known() -> None:
    assert errno.ENOSPC in ffmpeg._REFUSALS
    assert os.strerror(errno.EFBIG) == "File too large"
