"""What the studio keeps has bounds; files for browsers are written once."""

import os
import time
from pathlib import Path

import torch

from zeroshift.studio.engine.cache import Kept
from zeroshift.studio.engine.jobs import FunctionJob
from zeroshift.studio.engine.served import ServedFiles
from zeroshift.studio.engine.sessions import Session
from zeroshift.studio.engine.studio import Studio


def test_a_cache_is_bounded_in_bytes_and_keeps_the_latest() -> None:
    made: list[int] = []

    def make(size: int) -> bytes:
        made.append(size)
        return bytes(size)

    kept = Kept[bytes](size=3, most_bytes=100, bytes_of=len)
    for size in (40, 50, 40, 30, 50, 40):  # 30 makes 120 with 50 and 40: the oldest goes
        kept.get(size, lambda size=size: make(size))  # type: ignore[misc]
    assert made == [40, 50, 30, 50, 40]
    assert len(kept.get(500, lambda: make(500))) == 500
    kept.get(500, lambda: make(500))
    assert made.count(500) == 1, "a value above the bound is kept alone"


def test_an_equal_file_is_not_written_again_and_counts_as_new(tmp_path: Path) -> None:
    files = ServedFiles(tmp_path)
    path = files.put(b"picture", "image.png")
    before = os.stat(path)
    os.utime(path, (0, 0))
    assert files.put(b"picture", "image.png") == path
    after = os.stat(path)
    assert after.st_ino == before.st_ino, "the same file"
    assert after.st_mtime > 0
    assert files.put(b"picture", "other.png") != path
    assert ServedFiles(tmp_path).put(b"picture", "image.png") != path, "paths cannot be guessed from the content"
    assert sorted(file.name for file in tmp_path.rglob("*.png")) == ["image.png", "image.png", "other.png"]


def test_files_that_are_shown_are_removed_by_age_only(studio: Studio) -> None:
    old, new = (Path(studio.files.put(name, "image.png")) for name in (b"old", b"new"))
    os.utime(old, (0, time.time() - 100))
    studio.sweep(50)
    assert not old.exists()
    assert new.exists()


def test_an_ended_job_releases_its_photo(studio: Studio) -> None:
    photo = torch.zeros(3, 8, 8)
    job = FunctionJob("photo", "invert", function=lambda job: job.report(1, 2, "step", photo))
    studio.queue.add(job)
    assert studio.queue.wait(job, 30)
    assert job.state == "done"
    assert job.shown is None
    assert job.function.__closure__ is None


def test_the_inversion_of_a_replaced_photo_is_not_taken_for_the_new_one() -> None:
    session = Session()
    session.set_photo(torch.zeros(3, 8, 8), "first.png")
    first = session.inverted
    session.set_photo(torch.ones(3, 8, 8), "second.png")
    first["miniature", "none"] = object()  # type: ignore[assignment]
    assert session.inverted == {}
