"""What the studio keeps has bounds; files for browsers are written once."""

import os
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from zeroshift.inversion.inverted import Inverted
from zeroshift.studio.engine.cache import Kept
from zeroshift.studio.engine.explorer import Picture, Sheet
from zeroshift.studio.engine.jobs import FunctionJob
from zeroshift.studio.engine.served import ServedFiles
from zeroshift.studio.engine.sessions import Session, Sessions
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


def test_pages_are_bounded_in_bytes_and_the_one_in_use_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = torch.zeros(3, 100, 100, dtype=torch.uint8)
    monkeypatch.setattr("zeroshift.studio.engine.sessions._MOST_BYTES", 2 * photo.nbytes)
    sessions = Sessions()
    for name in ("a", "b", "c"):
        sessions.get(name).set_photo(photo.clone(), name)
    assert sessions.get("c").photo is not None
    assert len(sessions) == 2, "the oldest page is forgotten"
    sessions.get("c").set_photo(torch.zeros(3, 1000, 1000, dtype=torch.uint8), "large")
    assert sessions.get("c").photo is not None
    assert len(sessions) == 1


def test_a_page_counts_with_its_photo_its_inversions_and_its_pictures() -> None:
    picture = Picture(Image.new("RGB", (10, 20)), "photo", "")
    session = Session(photo=torch.zeros(3, 5, 5, dtype=torch.uint8), sheet=Sheet([[picture] * 2] * 2, 0))
    session.inverted["miniature", "none"] = Inverted(torch.zeros(4, 2), {"weight": torch.zeros(8)})
    assert session.nbytes == 75 + 4 * 600 + 4 * (8 + 8)


def test_the_latest_inversions_of_the_present_photo_are_kept() -> None:
    session, photo = Session(), torch.zeros(3, 5, 5, dtype=torch.uint8)
    session.set_photo(photo, "me.png")
    for number in range(6):
        session.keep_inverted(photo, ("miniature", str(number)), Inverted(torch.zeros(1)))
    assert [align for _, align in session.inverted] == ["2", "3", "4", "5"]
    session.set_photo(photo.clone(), "other.png")
    session.keep_inverted(photo, ("miniature", "none"), Inverted(torch.zeros(1)))
    assert session.inverted == {}, "the page has another photo by now"
