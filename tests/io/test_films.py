"""Films keep their speed in every format, and say who wrote them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeroshift.errors import ZeroshiftError
from zeroshift.io.films import frame_times, save_film
from zeroshift.io.outputs import is_ours

FRAMES = [np.random.default_rng(number).integers(0, 256, (16, 32, 3), dtype=np.uint8) for number in range(31)]


def durations(path: Path) -> list[int]:
    """The time of each frame in milliseconds."""
    times = []
    with Image.open(path) as film:
        for number in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(number)
            film.load()
            times.append(film.info["duration"])
    return times


@pytest.mark.parametrize("fps", [1, 7, 24, 30, 50])
def test_a_gif_keeps_its_speed(tmp_path: Path, fps: int) -> None:
    times = durations(save_film(tmp_path / "a.gif", FRAMES, fps))
    assert len(times) == 31
    assert all(time % 10 == 0 and abs(time - 1000 / fps) < 10 for time in times)
    for number in range(1, 32):
        assert abs(sum(times[:number]) - number * 1000 / fps) <= 5.001, "errors do not add up"


@pytest.mark.parametrize("fps", [24, 30, 60, 90])
def test_a_webp_keeps_its_speed(tmp_path: Path, fps: int) -> None:
    path = save_film(tmp_path / "a.webp", FRAMES, fps)
    times = durations(path)
    assert len(times) == 31
    assert all(abs(time - 1000 / fps) < 1 for time in times)
    assert abs(sum(times) - 31 * 1000 / fps) <= 0.501
    with Image.open(path) as film:
        assert (film.format, film.size, film.info["loop"]) == ("WEBP", (32, 16), 0)
        assert np.abs(np.asarray(film.convert("RGB")).astype(int).mean() - FRAMES[0].mean()) < 8


def test_frame_times_are_those_of_the_film() -> None:
    assert frame_times(6, 30, 100) == [3, 4, 3, 3, 4, 3]
    assert frame_times(3, 25, 100) == [4, 4, 4]
    assert frame_times(0, 25, 100) == []


@pytest.mark.parametrize(("name", "fps"), [("a.gif", 51), ("a.webp", 91), ("a.gif", 0)])
def test_speeds_that_viewers_do_not_show_are_refused(tmp_path: Path, name: str, fps: int) -> None:
    with pytest.raises(ZeroshiftError, match=r"frames per second, not \d+\. Write an \.mp4 for more"):
        save_film(tmp_path / name, FRAMES, fps)
    with pytest.raises(ZeroshiftError, match="at least 1 frame per second, not 0"):
        save_film(tmp_path / "a.mp4", FRAMES, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_scaled_films_with_a_title(tmp_path: Path, suffix: str) -> None:
    path = save_film(tmp_path / f"a{suffix}", FRAMES[:4], 10, title="zombie", scale="64px")
    assert is_ours(path)
    assert b"Written by zeroshift" in path.read_bytes()
    assert b"scaled from 32 x 16 to 128 x 64 pixels (nearest)" in path.read_bytes()
    if suffix != ".mp4":  # equal frames of the card are merged
        assert sum(durations(path)) == 1500 + 400
        with Image.open(path) as film:
            assert film.size == (128, 64)
    again = path.read_bytes()
    with pytest.raises(ZeroshiftError, match="does not fit into frames of 32 x 16"):
        save_film(path, FRAMES[:4], 10, title="zombie")
    assert path.read_bytes() == again
