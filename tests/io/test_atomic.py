import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import append_record, atomic_write, disk_errors, set_default_mode
from zeroshift.io.records import read_records

pytestmark = pytest.mark.slow


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_atomic_write_creates_folders_and_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    for text in ("first", "second"):
        with atomic_write(path) as temporary:
            assert temporary.parent == path.parent
            assert temporary.suffix == ".txt"
            temporary.write_text(text)
        assert path.read_text() == text
    assert files(tmp_path) == ["a/b.txt"]


def test_atomic_write_leaves_the_old_file_when_the_body_fails(tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_write(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise KeyError("stop")
    assert path.read_text() == "old"
    assert files(tmp_path) == ["b.txt"]


def test_atomic_write_gives_the_default_mode_of_new_files(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    with atomic_write(tmp_path / "b.txt") as temporary:
        temporary.unlink()  # simulates a library that creates the file itself, readable only by its owner
        temporary.touch(mode=0o600)
    assert (tmp_path / "b.txt").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize(
    ("code", "sentence"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "No permission"), (errno.EROFS, "No permission")],
)
def test_atomic_write_reports_disk_errors_as_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, sentence: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ZeroshiftError, match=sentence), atomic_write(tmp_path / "b.txt") as temporary:
        temporary.write_text("new")
    assert files(tmp_path) == []


def test_atomic_write_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ZeroshiftError, match="file exists where a folder"), atomic_write(tmp_path / "file" / "x"):
        pass


def test_full_disk_behind_a_library_error(tmp_path: Path) -> None:
    """safetensors and torch wrap the system's error in their own."""
    for error in (RuntimeError("I/O error: No space left on device (os error 28)"), ValueError("wrapped")):
        error.__cause__ = OSError(errno.ENOSPC, "No space left on device") if str(error) == "wrapped" else None
        with pytest.raises(ZeroshiftError, match="disk is full"), atomic_write(tmp_path / "b.txt"):
            raise error


def test_an_incomplete_last_line_is_ignored_and_then_removed(tmp_path: Path) -> None:
    file = tmp_path / "metrics-scs.jsonl"
    whole = [{"value": 0.5}, {"value": 0.25}]
    for torn in (b"", b'{"val', b'{"value": 0.7}'):
        file.write_bytes(torn)
        append_record(file, whole[0])
        assert read_records(file) == whole[:1]
        with open(file, "ab") as appended:
            appended.write(torn)
        assert read_records(file) == whole[:1]
        append_record(file, whole[1])
        assert read_records(file) == whole
        assert file.read_bytes().count(b"\n") == 2


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has a umask")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask_without_changing_it(tmp_path: Path, umask: int) -> None:
    """Runs in its own process and sets the umask after the import, because it may change at any time."""
    program = f"""
import os, pathlib
import zeroshift.io.atomic as atomic
os.umask({umask})
calls = []
os.umask = lambda mask: calls.append(mask)
folder = pathlib.Path({str(tmp_path)!r})
with atomic.atomic_write(folder / "written") as temporary:
    temporary.unlink()
    temporary.touch(mode=0o600)
(folder / "private").touch(mode=0o600)
atomic.set_default_mode(folder / "private")
assert not calls, "the umask of other threads must not change"
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "written": 0o666 & ~umask,
        "private": 0o666 & ~umask,
    }


def test_set_default_mode_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        set_default_mode(tmp_path / "missing")
    assert files(tmp_path) == []


def test_a_file_that_cannot_be_read_is_not_reported_as_one_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, result = tmp_path / "photo.png", tmp_path / "out" / "result.png"
    photo.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(photo) or mode != os.R_OK)
    with pytest.raises(ZeroshiftError, match=rf"^No permission to read {photo}\."), atomic_write(result):
        raise PermissionError(errno.EACCES, "Permission denied", str(photo))
    with pytest.raises(ZeroshiftError, match=rf"^No permission to read {photo}\."), disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", str(photo))
    with pytest.raises(ZeroshiftError, match=rf"^No permission to read {photo}\."), disk_errors():
        raise PermissionError(errno.EACCES, "Permission denied", str(photo))
    with pytest.raises(ZeroshiftError, match=rf"^No permission to write {result}\."), disk_errors(result):
        raise PermissionError(errno.EACCES, "Permission denied", str(result.parent))
    with (
        pytest.raises(ZeroshiftError, match=r"^Cannot open .*photo\.png/x: a file exists where a folder"),
        disk_errors(),
    ):
        (photo / "x").read_text()
    assert files(tmp_path) == ["photo.png"]
    assert not result.parent.exists(), "no empty folder stays"


def test_a_file_size_limit_is_a_sentence(tmp_path: Path) -> None:
    """For Python, NumPy, torch, safetensors and Pillow; in a process of its own."""
    program = f"""
import pathlib, resource
import numpy as np
import torch
from safetensors.torch import save_file
from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import append_record, atomic_write
from zeroshift.io.images import save_png
folder = pathlib.Path({str(tmp_path)!r})
values = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
def torch_save(path):
    with open(path, "wb") as file:
        torch.save(torch.from_numpy(values), file)
def numpy_save(path):
    with open(path, "wb") as file:
        np.save(file, values)
writers = [
    lambda path: path.write_bytes(values.tobytes()), torch_save, numpy_save,
    lambda path: save_file({{"a": torch.from_numpy(values)}}, path), lambda path: save_png(path, values),
]
for writer in writers:
    try:
        with atomic_write(folder / "new" / "a.bin") as temporary:
            writer(temporary)
    except ZeroshiftError as error:
        print(error)
append_record(folder / "log.jsonl", {{"text": "a" * 3000}})
try:
    append_record(folder / "log.jsonl", {{"text": "b" * 3000}})
except ZeroshiftError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    sentences = ended.stdout.splitlines()
    assert len(sentences) == 6, ended.stdout + ended.stderr
    assert all("could not be written" in sentence and "large" in sentence for sentence in sentences)
    assert files(tmp_path) == ["log.jsonl"]
    assert [record["text"][0] for record in read_records(tmp_path / "log.jsonl")] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_cache_that_cannot_be_written_names_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ZEROSHIFT_CACHE", "HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        (tmp_path / variable).touch()
        with (
            pytest.raises(ZeroshiftError, match=rf"{variable} moves this cache"),
            atomic_write(tmp_path / variable / "a" / "b"),
        ):
            pass
