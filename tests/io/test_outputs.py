"""Outputs are tried before the work, and only files that zeroshift wrote are replaced."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import export_generator, load_generator
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.io.films import save_film
from zeroshift.io.images import save_picture, save_png
from zeroshift.io.outputs import MARKDOWN_MARK, is_ours, require_outputs, require_writable

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


@pytest.mark.slow
def test_every_kind_of_output_is_recognized(tmp_path: Path, tiny_generator: Path) -> None:
    save_png(tmp_path / "a.png", PIXELS)
    for suffix in (".webp", ".jpg"):
        save_picture(tmp_path / f"a{suffix}", PIXELS)
        save_picture(tmp_path / f"noted{suffix}", PIXELS, "enlarged")
    save_film(tmp_path / "a.gif", [PIXELS, PIXELS[::-1]], 10)
    save_film(tmp_path / "film.webp", [PIXELS, PIXELS[::-1]] * 60, 10)
    save_film(tmp_path / "still.webp", [PIXELS], 10)
    save_film(tmp_path / "a.mp4", [PIXELS, PIXELS[::-1]] * 600, 30)  # a long index before the mark
    export_generator(load_generator(tiny_generator), tmp_path / "a.safetensors")
    published = StyleGAN2(resolution=8, z_dim=16, w_dim=16, mapping_layers=1, channels={4: 512, 8: 512})
    export_generator(published, tmp_path / "a.pt", "rosinality-pt")
    (tmp_path / "a.md").write_text("| run |\n" + MARKDOWN_MARK)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 12
    assert [file.name for file in files if not is_ours(file)] == []
    require_outputs(*files)
    assert torch.load(tmp_path / "a.pt", weights_only=True).keys() == {"g_ema", "latent_avg"}
    assert torch.equal(load_generator(tmp_path / "a.pt").mapping.w_avg, published.mapping.w_avg)


def test_files_of_others_are_not_ours(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "b.png")
    save_png(tmp_path / "edited.png", PIXELS)
    Image.open(tmp_path / "edited.png").convert("L").save(tmp_path / "edited.png")
    Image.fromarray(PIXELS).save(tmp_path / "b.gif")
    for suffix in (".webp", ".jpg"):
        Image.fromarray(PIXELS).save(tmp_path / f"b{suffix}")
        Image.open(save_picture(tmp_path / f"edited{suffix}", PIXELS)).convert("L").save(tmp_path / f"edited{suffix}")
    (tmp_path / "mine.txt").write_text("EXIF data says: Written by zeroshift.")
    torch.save({"g_ema": torch.zeros(3)}, tmp_path / "b.pt")
    save_file({"a": torch.zeros(3)}, tmp_path / "b.safetensors", metadata={"format": "pt"})
    (tmp_path / "empty.md").touch()
    (tmp_path / "b.md").write_text(f"# Notes on zeroshift\n{MARKDOWN_MARK}\nmine\n")
    (tmp_path / "b.json").write_text('[{"runs": 3}]')
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for file in tmp_path.iterdir():
        assert not is_ours(file), file
        with pytest.raises(ZeroshiftError, match=rf"{file.name} exists, and zeroshift cannot tell"):
            require_outputs(tmp_path / "new.png", file)


def test_nothing_is_made_before_the_work(tmp_path: Path) -> None:
    require_outputs(tmp_path / "a" / "b" / "c.png", tmp_path / "a" / "d.png")
    require_writable(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ZeroshiftError, match="file exists where a folder"):
        require_outputs(tmp_path / "file" / "a.png")
    with pytest.raises(ZeroshiftError, match="is a folder"):
        require_outputs(tmp_path / "folder")
    with pytest.raises(ZeroshiftError, match="too long"):
        require_outputs(tmp_path / ("a" * 300 + ".png"))
    with pytest.raises(ZeroshiftError, match="No file can be written into /proc/a"):
        require_outputs(Path("/proc/a/b.png"))


def test_a_missing_permission_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, data: bytes) -> int:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(ZeroshiftError, match=rf"No permission to write {tmp_path / 'out'}\."):
        require_outputs(tmp_path / "out" / "a.png")


def test_pictures_are_written_by_suffix(tmp_path: Path) -> None:
    for suffix, kind in ((".png", "PNG"), (".WEBP", "WEBP"), (".jpeg", "JPEG")):
        with Image.open(save_picture(tmp_path / f"a{suffix}", PIXELS, "enlarged")) as image:
            assert image.format == kind
            if kind == "JPEG":
                assert np.abs(np.asarray(image).astype(int) - PIXELS).mean() < 5
            else:
                assert (np.asarray(image) == PIXELS).all()
            if kind != "PNG":
                assert image.getexif()[0x010E] == "enlarged"
    with pytest.raises(ZeroshiftError, match=r"must end in \.png, \.webp or \.jpg"):
        save_picture(tmp_path / "a.gif", PIXELS)


def test_reading_the_mark_needs_no_whole_file(tmp_path: Path) -> None:
    save_png(tmp_path / "a.png", PIXELS)
    with Image.open(tmp_path / "a.png") as image:
        assert image.text["Software"] == "Written by zeroshift"
    with Image.open(io.BytesIO((tmp_path / "a.png").read_bytes())) as image:
        assert np.array_equal(np.asarray(image), PIXELS)
