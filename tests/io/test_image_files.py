"""Image files of all kinds, alone and in folders."""

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, PngImagePlugin

from tests.helpers.color_profiles import DISPLAY_P3, rgb_profile
from zeroshift.errors import ZeroshiftError
from zeroshift.io import image_files
from zeroshift.io.image_files import ImageReader, find_images, read_image

CASES = Path(__file__).parent.parent / "cases"


def levels(path: Path) -> Any:
    """The 8-bit levels [H, W, 3] of a file as it is read, without regard to warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ((read_image(path) + 1) * 127.5).round().permute(1, 2, 0).to(torch.uint8).numpy()


def color(path: Path) -> list[int]:
    """The color of the upper left pixel."""
    return levels(path)[0, 0].tolist()


def test_photos_are_rotated_upright(tmp_path: Path) -> None:
    upright = np.arange(6, dtype=np.uint8).reshape(3, 2, 1).repeat(3, axis=2) * 40
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate clockwise by 90 degrees
    Image.fromarray(np.rot90(upright)).save(tmp_path / "held.png", exif=exif)
    Image.fromarray(upright).save(tmp_path / "upright.png")
    assert torch.equal(read_image(tmp_path / "held.png"), read_image(tmp_path / "upright.png"))


def test_sixteen_bit_images_keep_their_high_bytes(tmp_path: Path) -> None:
    gray = np.linspace(0, 65535, 12).astype(np.uint16).reshape(3, 4)
    Image.fromarray(gray).save(tmp_path / "deep.png")
    expected = torch.from_numpy((gray >> 8).astype(np.float32)) / 127.5 - 1
    assert torch.equal(read_image(tmp_path / "deep.png"), expected.expand(3, -1, -1))


def test_files_that_are_not_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_text("<html>")
    with pytest.raises(ZeroshiftError, match=r"page.png cannot be read"):
        read_image(tmp_path / "page.png")
    with pytest.raises(ZeroshiftError, match=r"There is no image .*gone.png"):
        read_image(tmp_path / "gone.png")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    """Pillow raises more than OSError: a broken chunk is a SyntaxError, an endless text chunk a ValueError."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    text = PngImagePlugin.PngInfo()
    text.add_text("note", "x" * 2_000_000, zip=True)
    picture.save(tmp_path / "text.png", pnginfo=text)
    picture.save(tmp_path / "camera.png", exif=b"Exif\0\0nonsense")
    picture.save(tmp_path / "chunk.png")
    whole = (tmp_path / "chunk.png").read_bytes()
    start = whole.index(b"IDAT") - 4
    (length,) = struct.unpack(">I", whole[start : start + 4])
    half = struct.pack(">I", length // 2)  # half of the pixels in one chunk; the next one has no name
    rest = half + bytes(4) + whole[start + 8 + length // 2 :]
    (tmp_path / "chunk.png").write_bytes(
        whole[:start] + half + whole[start + 4 : start + 8 + length // 2] + bytes(4) + rest
    )
    for name in ("text", "camera", "chunk"):
        with pytest.raises(ZeroshiftError, match=rf"{name}\.png cannot be read"):
            read_image(tmp_path / f"{name}.png")


def paint(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(file)


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "real"  # a hidden parent folder does not matter
    visible = [folder / "a.png", folder / "b" / "c.JPG"]
    paint(*visible, folder / "._a.png", folder / ".thumbnails" / "a.png", folder / "b" / ".zeroshift-12-c.png")
    assert find_images(folder) == visible


def test_folders_with_images_of_several_kinds_are_refused(tmp_path: Path) -> None:
    run, samples = tmp_path / "run", tmp_path / "run" / "samples"
    paint(
        run / "pairs.png",
        samples / "grid.png",
        samples / "source" / "00000000.png",
        samples / "target" / "00000000.png",
    )
    (run / "config.json").write_text("{}")
    with pytest.raises(ZeroshiftError, match=r"run is a run folder, .*\. Name a folder of images"):
        find_images(run)
    with pytest.raises(ZeroshiftError, match=rf"of two generators\. Name {samples}/target or {samples}/source\."):
        find_images(samples)
    assert find_images(samples / "target") == [samples / "target" / "00000000.png"]
    paint(tmp_path / "mine" / "grid.png", tmp_path / "mine" / "source" / "a.png")
    assert len(find_images(tmp_path / "mine")) == 2, "not a folder that `generate` wrote"


@pytest.mark.parametrize("name", ["transparent_over_magenta", "gray_with_alpha", "palette_with_transparency"])
def test_transparent_parts_are_laid_over_white(name: str) -> None:
    with pytest.warns(UserWarning, match=rf"{name}\.png: transparent parts were laid over white\."):
        pixels = read_image(CASES / f"{name}.png")
    assert pixels[:, 0, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize(("mode", "half"), [("RGBA", (200, 100, 0, 128)), ("LA", (100, 128)), ("PA", None)])
def test_alpha_blends_with_white(tmp_path: Path, mode: str, half: tuple[int, ...] | None) -> None:
    if half is None:  # a palette with alpha
        Image.new("RGBA", (4, 4), (200, 100, 0, 128)).convert("PA").save(tmp_path / "a.tif")
        half = (200, 100, 0, 128)
    else:
        Image.new(mode, (4, 4), half).save(tmp_path / "a.tif")
    blended = [round(level * 128 / 255 + 127) for level in half[:-1]]
    assert color(tmp_path / "a.tif") == pytest.approx(blended * (3 // len(blended)), abs=1)


def test_opaque_alpha_changes_nothing(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    picture = Image.fromarray(pixels)
    picture.putalpha(255)
    picture.save(tmp_path / "opaque.png")
    for name in ("plain", "opaque"):  # warnings are errors here
        expected = torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1
        assert torch.equal(read_image(tmp_path / f"{name}.png"), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_gray_of_every_bit_depth(tmp_path: Path, bits: int) -> None:
    """Pillow compares the value in the file with scaled levels, and so misses it."""
    top = 2**bits - 1
    samples = [0, top] if bits == 16 else [top << (8 - bits) if bits < 8 else top]
    row = struct.pack(">HH", *samples) if bits == 16 else bytes(samples)
    width = 2 if bits == 16 else 1
    picture = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, 1, bits, 0, 0, 0, 0)
    for name, content in (
        (b"IHDR", header),
        (b"tRNS", struct.pack(">H", top)),
        (b"IDAT", zlib.compress(b"\0" + row)),
        (b"IEND", b""),
    ):
        picture += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    (tmp_path / "key.png").write_bytes(picture)
    with pytest.warns(UserWarning, match="transparent parts"):
        pixels = read_image(tmp_path / "key.png")
    assert pixels[0, 0, -1] == 1
    if bits == 16:
        assert pixels[0, 0, 0] == -1


def test_color_spaces(tmp_path: Path) -> None:
    Image.new("LAB", (4, 4), (128, 128, 128)).save(tmp_path / "lab.tif")  # L = 50, a = b = 0
    assert color(tmp_path / "lab.tif") == pytest.approx([119] * 3, abs=1)
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    assert color(tmp_path / "cmyk.jpg") == pytest.approx([255, 0, 0], abs=2)
    Image.new("1", (4, 4), 1).save(tmp_path / "bits.png")
    assert color(tmp_path / "bits.png") == [255] * 3
    Image.new("P", (4, 4), 7).save(tmp_path / "palette.bmp")


def test_float_images_are_read_from_zero_to_one_or_refused(tmp_path: Path) -> None:
    for name, values in (("unit", [0, 0.5, 1]), ("levels", [0, 128, 255]), ("nan", [0, np.nan, 1])):
        Image.fromarray(np.array([values], np.float32)).save(tmp_path / f"{name}.tif")
    assert levels(tmp_path / "unit.tif")[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(ZeroshiftError, match=r"levels\.tif has floating-point values from 0 to 255, whose scale"):
        read_image(tmp_path / "levels.tif")
    with pytest.raises(ZeroshiftError, match="not finite"):
        read_image(tmp_path / "nan.tif")


def test_whole_numbers_need_a_known_scale(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(ZeroshiftError, match=r"wide\.tif is a TIFF file of whole numbers from 0 to 70000, whose scale"):
        read_image(tmp_path / "wide.tif")
    gray = np.array([[0, 0x8000, 0xFFFF]], np.uint16)
    Image.fromarray(gray).save(tmp_path / "deep.tif")
    Image.fromarray(gray).save(tmp_path / "inverse.tif", tiffinfo={262: 0})
    (tmp_path / "deep.pgm").write_bytes(b"P5 3 1 65535\n" + gray.astype(">u2").tobytes())
    for name in ("deep.tif", "deep.pgm"):
        assert levels(tmp_path / name)[0, :, 0].tolist() == [0, 128, 255]
    assert levels(tmp_path / "inverse.tif")[0, :, 0].tolist() == [255, 127, 0]


def test_color_profiles_are_converted_to_srgb(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 4), (200, 80, 60))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.save(tmp_path / "phone.jpg", quality=100, icc_profile=rgb_profile(DISPLAY_P3), subsampling=0)
    picture.save(tmp_path / "srgb.png", icc_profile=srgb)
    picture.save(tmp_path / "damaged.png", icc_profile=srgb[:200])
    assert color(tmp_path / "phone.jpg") == pytest.approx([217, 69, 50], abs=2)
    assert color(tmp_path / "srgb.png") == [200, 80, 60]
    with pytest.warns(UserWarning, match=r"damaged\.png: the embedded color profile is damaged"):
        assert read_image(tmp_path / "damaged.png")[0, 0, 0] == 200 / 127.5 - 1


def test_the_first_frame_is_read_and_said(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), name) for name in ("red", "lime")]
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        with pytest.warns(UserWarning, match="only the first frame or page was read"):
            pixels = read_image(tmp_path / name)
        assert pixels[:, 0, 0].tolist() == [1, -1, -1]
    frames[0].save(tmp_path / "a.mpo", save_all=True, append_images=frames[1:])  # such as a photo with a gain map
    read_image(tmp_path / "a.mpo")  # without a warning


def test_previews_of_raw_files_are_refused(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 4))
    picture.save(tmp_path / "thumbnail.tif", tiffinfo={254: 1})
    picture.save(tmp_path / "photo.nef", format="TIFF")
    for name in ("thumbnail.tif", "photo.nef"):
        with pytest.raises(ZeroshiftError, match="raw file"):
            read_image(tmp_path / name)


@pytest.mark.filterwarnings("default")
def test_huge_images_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    for width, message in ((12_001, "12001 x 10000 pixels; at most 120 million"), (60_000, "too many pixels; at most")):
        header = struct.pack(">IIBBBBB", width, 10_000, 8, 2, 0, 0, 0)
        chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
        (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + bytes(4))
        with pytest.raises(ZeroshiftError, match=message):
            read_image(tmp_path / "bomb.png")


def test_formats_that_are_no_pictures_or_need_a_package_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "page.eps")
    with pytest.raises(ZeroshiftError, match="EPS is no format of pixels"):
        read_image(tmp_path / "page.eps")
    monkeypatch.setattr(image_files, "_enabled", lambda plug_in: False)
    (tmp_path / "sent.jpg").write_bytes(bytes(4) + b"ftypheic" + bytes(40))
    (tmp_path / "a.jxl").write_bytes(b"\xff\x0a" + bytes(40))
    for name, package in (("sent.jpg", "pillow-heif"), ("a.jxl", "pillow-jxl-plugin")):
        with pytest.raises(ZeroshiftError, match=rf"{name} needs a package: pip install {package}"):
            read_image(tmp_path / name)


def test_many_files_get_one_warning_per_kind(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for path in paths:
        Image.new("RGBA", (4, 4)).save(path)
    reader = ImageReader()
    for path in paths:
        reader.read(path)
    with pytest.warns(UserWarning, match=r"5 images \(.*0\.png, .*2\.png and 2 more\): transparent") as caught:
        reader.say()
    assert len(caught) == 1
    reader.read(paths[0])
    reader.say()  # nothing new


def test_every_format_works_in_a_folder_and_other_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "_enabled", lambda plug_in: False)
    read = ["a.gif", "b.jp2", "c.PNG", "d.webp", "e.ppm", "f.tga", "g.jfif", "h.avif"]
    paint(*(tmp_path / name for name in read))
    Image.new("RGB", (4, 4)).save(tmp_path / "without_suffix", format="PNG")
    for name in ("notes.txt", "list.csv", "IMG_1.heic", "empty", ".hidden", "Thumbs.db", "film.mp4"):
        (tmp_path / name).write_bytes(b"some text that is no image")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "album").symlink_to(tmp_path.parent)
    with pytest.warns(UserWarning, match="7 files are not read") as caught:
        images = find_images(tmp_path)
    assert [path.name for path in images] == [*read, "without_suffix"]
    (warning,) = caught
    message = str(warning.message)
    assert "empty, film.mp4, list.csv and 1 more (no image)" in message
    assert "IMG_1.heic (needs the package pillow-heif)" in message
    assert "gone.png (no regular file)" in message
    assert "album (links to a folder)" in message


def test_a_folder_without_readable_images_says_why(tmp_path: Path) -> None:
    (tmp_path / "photo.nef").write_bytes(b"raw")
    with pytest.raises(ZeroshiftError, match=r"no images in .* \(photo\.nef \(raw file of a camera\)\)"):
        find_images(tmp_path)
