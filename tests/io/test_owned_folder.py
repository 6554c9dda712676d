"""Folders are replaced file by file: own files only, and as a whole or not at all."""

import json
import os
from pathlib import Path

import pytest

from zeroshift.errors import ZeroshiftError
from zeroshift.io import owned_folder
from zeroshift.io.owned_folder import replaced_folder, require_owned_folder

INDEX = "index.json"


def write(folder: Path, content: str, *names: str) -> None:
    with replaced_folder(folder, INDEX) as temporary:
        for name in names:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_text(content)
        (temporary / INDEX).write_text(json.dumps({"content": content}))


def read(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != INDEX)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_own_files_are_replaced_and_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "pipeline"
    write(folder, "first", "unet/w.bin", "vqvae/w.bin")
    (folder / "notes.txt").write_text("mine")
    (folder / "unet" / "mine.bin").write_text("mine")
    write(folder, "second", "unet/w.bin", "scheduler/s.json")
    mine = {"notes.txt": "mine", "unet/mine.bin": "mine"}
    assert read(folder) == {"unet/w.bin": "second", "scheduler/s.json": "second", **mine}
    assert json.loads((folder / INDEX).read_text())["content"] == "second"
    assert [path.name for path in folder.parent.iterdir()] == ["pipeline"]


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    write(tmp_path, "first", "w.bin")
    assert read(tmp_path) == {"w.bin": "first"}


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / INDEX).unlink(),
        lambda folder: (folder / INDEX).write_text('{"_class_name": "DDPMPipeline"}'),
        lambda folder: (folder / INDEX).write_text("[" * 100_000),
        lambda folder: (folder / "unet" / "w.bin").write_text("trained further"),
        lambda folder: (folder / INDEX).write_text(
            (folder / INDEX).read_text().replace('"unet/w.bin"', '"../notes.txt"')
        ),
    ],
)
def test_folders_that_are_not_as_we_wrote_them_are_refused_before_the_work(tmp_path: Path, change) -> None:
    folder = tmp_path / "pipeline"
    (tmp_path / "notes.txt").write_text("first")
    write(folder, "first", "unet/w.bin")
    change(folder)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ZeroshiftError, match="not as zeroshift has written them"):
        require_owned_folder(folder, INDEX)
    with pytest.raises(ZeroshiftError, match="not as zeroshift has written them"), replaced_folder(folder, INDEX):
        pytest.fail("the work began")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_new_file_in_the_place_of_a_foreign_one(tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    write(folder, "first", "w.bin")
    (folder / "s.json").write_text("mine")
    with pytest.raises(ZeroshiftError, match=r"s\.json exists, and zeroshift has not written it"):
        write(folder, "second", "w.bin", "s.json")
    assert read(folder) == {"w.bin": "first", "s.json": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline"]


@pytest.mark.parametrize("moves", range(5))
def test_after_a_kill_at_any_move_the_same_call_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    folder = tmp_path / "pipeline"
    write(folder, "first", "a.bin", "b.bin", "old.bin")
    replace, done = os.replace, []

    def killed(source: Path, target: Path) -> None:
        if Path(target).parent == folder:
            if len(done) == moves:
                raise SystemExit
            done.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(owned_folder.os, "replace", killed)
        try:
            write(folder, "second", "a.bin", "b.bin")
        except SystemExit:
            assert moves < 4
    write(folder, "second", "a.bin", "b.bin")
    assert read(folder) == {"a.bin": "second", "b.bin": "second"}


def test_a_failing_body_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), replaced_folder(tmp_path / "a" / "pipeline", INDEX):
        raise KeyError("stop")
    assert list(tmp_path.iterdir()) == []
