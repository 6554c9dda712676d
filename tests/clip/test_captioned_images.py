"""Folders of captioned images: text files, tables, and what is wrong with them."""

import json
from pathlib import Path

import pytest
import torch

from zeroshift.clip.captioned_images import caption_batches, find_captions
from zeroshift.errors import ZeroshiftError
from zeroshift.io.images import save_png, to_uint8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "more").mkdir()
    for index, name in enumerate(("a", "b", "more/c")):
        image = torch.full((1, 3, 20, 30), index / 2 - 0.5)
        save_png(tmp_path / f"{name}.png", to_uint8(image)[0])
    return tmp_path


def names(pairs: list[tuple[Path, str]]) -> list[tuple[str, str]]:
    return [(path.name, caption) for path, caption in pairs]


def test_text_files_beside_images_are_captions(folder: Path) -> None:
    (folder / "a.txt").write_text("  a cat\n on a mat \n")
    (folder / "b.txt").write_text("\n")  # no caption
    (folder / "more" / "c.txt").write_text("a dog")
    assert names(find_captions(folder)) == [("a.png", "a cat on a mat"), ("c.png", "a dog")]


@pytest.mark.parametrize("column", ["text", "caption"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_tables_name_images_with_their_captions(folder: Path, kind: str, column: str) -> None:
    rows = [("more/c.png", 'a dog, "left"'), ("a.png", "a cat"), ("missing.png", "nothing")]
    if kind == "jsonl":
        text = "".join(json.dumps({"file_name": name, column: words}) + "\n" for name, words in rows)
    else:
        quoted = [(name, '"' + words.replace('"', '""') + '"') for name, words in rows]
        text = f"file_name,{column}\n" + "".join(f"{name},{words}\n" for name, words in quoted)
    (folder / f"metadata.{kind}").write_text(text)
    assert names(find_captions(folder)) == [("a.png", "a cat"), ("c.png", 'a dog, "left"')]


def test_batches_hold_scaled_images_and_their_captions(folder: Path) -> None:
    for name in ("a", "b", "more/c"):
        (folder / f"{name}.txt").write_text(f"caption of {name}")
    ((images, captions),) = caption_batches(find_captions(folder), 16)
    assert images.shape == (3, 3, 16, 16)
    torch.testing.assert_close(images.mean(dim=(1, 2, 3)), torch.tensor([-0.5, 0.0, 0.5]), atol=0.01, rtol=0)
    assert captions == ["caption of a", "caption of b", "caption of more/c"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"text without an image", "No image in .* has a caption. Put a text file"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read as text in UTF-8"),
        ("metadata.jsonl", b"{'file_name': 1}", "A line of .* is not valid JSON"),
        ("metadata.jsonl", b'{"file_name": "a.png"}', "needs the columns file_name and text"),
        ("metadata.jsonl", b"[1, 2]", "needs the columns file_name and text"),
        ("metadata.csv", b"name,text\na.png,a cat\n", "needs the columns file_name and text"),
        ("metadata.csv", b"file_name,text\n\xff,x\n", "cannot be read as a table in UTF-8"),
    ],
)
def test_unreadable_captions_are_refused(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ZeroshiftError, match=message):
        find_captions(folder)
