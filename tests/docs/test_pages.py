"""The pictures of the gallery have their commands beneath them; tables of docs/choosing.md are those of the records."""

from pathlib import Path

import choosing
import gallery
import pytest
from PIL import Image

from tests.helpers.evaluated_runs import make_run

MAX_KILOBYTES = 150


def test_every_picture_of_the_gallery_has_commands_that_make_it() -> None:
    entries = gallery.read_entries()
    page = gallery.PAGE.read_text(encoding="utf-8")
    assert len(entries) == page.count("](gallery/")
    made: set[Path] = set()
    for entry in entries:
        made |= set(entry.outputs)
        for words in entry.commands:
            used = {Path(word) for word in words if (gallery.PAGE.parent / word).suffix == "" and Path(word) in made}
            assert words[0] in ("adapt", "miniature", "translate", "interpolate")
            assert words[0] in ("adapt", "miniature") or used, f"{words} uses results of commands above"


def test_the_pictures_are_there_and_small() -> None:
    entries = gallery.read_entries()
    assert {entry.path for entry in entries} == set((gallery.PAGE.parent / "gallery").iterdir())
    for entry in entries:
        assert entry.path.stat().st_size < MAX_KILOBYTES * 1000
        with Image.open(entry.path) as picture:
            picture.verify()


def test_a_comparison_has_a_row_per_run(tiny_generator: Path, tmp_path: Path) -> None:
    runs = [make_run(tiny_generator, tmp_path / name, method=name).path for name in ("nada", "ipl")]
    gallery.compare(runs, tmp_path / "sheet.webp")
    with Image.open(tmp_path / "sheet.webp") as sheet:
        height = sheet.height
    gallery.compare(runs[:1], tmp_path / "shorter.webp")
    with Image.open(tmp_path / "shorter.webp") as sheet:
        assert height > sheet.height > 2 * 16 * gallery.SCALE
        assert sheet.width > gallery.NUM * 16 * gallery.SCALE


@pytest.mark.parametrize("kind", choosing.KINDS)
def test_the_tables_are_those_of_the_records(kind: str) -> None:
    page = (choosing.DOCS / "choosing.md").read_text(encoding="utf-8")
    assert choosing.kind_table(choosing.KINDS[kind]) in page


def test_every_target_has_a_kind() -> None:
    assert {record["target"] for record in choosing.records("benchmark")} == set(sum(choosing.KINDS.values(), ()))
