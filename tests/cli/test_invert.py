"""`zeroshift invert`, and `zeroshift translate` with runs of a StyleGAN."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from zeroshift.cli.main import main
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator, blend_weights
from zeroshift.generators.checkpoints.catalogue import CATALOGUE
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.inversion import inverter
from zeroshift.inversion.inverted import Inverted, render
from zeroshift.inversion.inverter import Inverter
from zeroshift.inversion.portraits import Portrait, make_inverter, portraits
from zeroshift.inversion.translate import Translator
from zeroshift.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

FAST = shlex.split("--distance pyramid --tune-steps 3")


@pytest.fixture(scope="module")
def runs(tiny_generator: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs from one StyleGAN2."""
    folders = [tmp_path_factory.mktemp("runs") / name for name in ("one", "two")]
    small = shlex.split(
        "--target zombie --method nada --device cpu --steps 3 --adapt.lr 0.05 --adapt.ema-decay 0 "
        "--adapt.layer-batch-size 2 --preview-samples 1"
    )
    for seed, folder in enumerate(folders):
        models = ["--generator", str(tiny_generator), "--encoder", str(tiny_encoder), "--seed", str(seed)]
        assert main(["adapt", *models, *small, "--out", str(folder)]) == 0
    return folders


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two small photos; inversions go into a cache of this test."""
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path / "cache"))
    files = [tmp_path / "photos" / name for name in ("me.png", "you.jpg")]
    files[0].parent.mkdir()
    for seed, file in enumerate(files):
        pixels = np.random.default_rng(seed).integers(0, 256, (2, 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((30, 20), Image.Resampling.BICUBIC).save(file)
    return files


@torch.no_grad()
def drawn(generator: Generator, photo: Inverted) -> np.ndarray:
    """What a generator draws of an inverted photo, in 8-bit levels."""
    image = render(generator, photo.codes[None], photo.changes).clamp(-1, 1)[0].permute(1, 2, 0)
    return ((image + 1) * 127.5).numpy()


def halves(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The two images of a result file."""
    sheet = np.asarray(Image.open(path)).astype(float)
    size = sheet.shape[0]
    return sheet[:, :size], sheet[:, -size:]


def invert(generator: Path, photo: Path, out: Path, *arguments: str) -> int:
    fixed = ["--generator", str(generator), "--device", "cpu", "--steps", "4", "--out", str(out)]
    return main(["invert", str(photo), *fixed, *FAST, *arguments])


def translate(*arguments: object) -> int:
    return main(["translate", *map(str, arguments), "--invert-steps", "4", *FAST])


def test_photos_are_inverted_once_and_every_run_can_show_them(
    runs: list[Path], tiny_generator: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "inverted"
    assert invert(tiny_generator, photos[0].parent, out) == 0
    assert {path.name for path in out.iterdir()} == {"me.png", "me.safetensors", "you.png", "you.safetensors"}
    one = Inverted.load(out / "me.safetensors")
    assert one.record["space"] == "w+"
    assert (one.record["steps"], one.record["tuning_steps"], one.record["distance"]) == (4, 3, "pyramid")
    source, target = load_generator(tiny_generator), load_generator(runs[0] / "generator.safetensors")
    shown = halves(out / "me.png")
    assert np.abs(shown[1] - drawn(source, one)).max() <= 0.51

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a photo was inverted again")

    monkeypatch.setattr(inverter, "project", fail)
    monkeypatch.setattr(inverter, "tune", fail)
    for folder in runs:
        assert translate(folder, *photos, "--out", folder / "new") == 0
        assert translate(folder, out / "me.safetensors", "--out", folder / "again") == 0
        assert (halves(folder / "new" / "me.png")[1] == halves(folder / "again" / "me.png")[1]).all()
    assert np.abs(halves(runs[0] / "new" / "me.png")[1] - drawn(target, one)).max() <= 0.51
    mixed = blend_weights(source, [load_generator(run / "generator.safetensors") for run in runs], [0.35, 0.35])
    assert translate(*runs, photos[0], "--strength", 0.7, "--out", tmp_path / "mixed") == 0
    assert np.abs(halves(tmp_path / "mixed" / "me.png")[1] - drawn(mixed, one)).max() <= 0.51
    assert translate(*runs, photos[0], "--separate", "--out", tmp_path / "both") == 0
    row = np.asarray(Image.open(tmp_path / "both" / "me.png")).astype(float)
    assert (row[:, -16:] == halves(runs[1] / "new" / "me.png")[1]).all()
    assert (row[:, 17:33] == halves(runs[0] / "new" / "me.png")[1]).all()
    assert translate(runs[0], photos[0], "--strength", 0, "--out", tmp_path / "none") == 0
    assert (halves(tmp_path / "none" / "me.png")[1] == shown[1]).all()


@pytest.fixture
def fast_inversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """`zeroshift generate --photos` with few steps."""

    def few_steps(found: list[Portrait], generator: Generator, name: str) -> Inverter:
        return make_inverter(generator, name, steps=4, tune_steps=3, distance="pyramid")

    monkeypatch.setattr("zeroshift.inversion.portraits.default_inverter", few_steps)


def test_photos_take_the_place_of_samples(
    runs: list[Path], tiny_generator: Path, photos: list[Path], tmp_path: Path, fast_inversion: None
) -> None:
    assert invert(tiny_generator, photos[1], tmp_path / "inverted") == 0
    files = [photos[0], tmp_path / "inverted" / "you.safetensors"]
    assert main(["generate", str(runs[0]), "--photos", *map(str, files)]) == 0
    out = runs[0] / "samples-photos"
    assert {str(path.relative_to(out)) for path in out.rglob("*.*")} == {
        "grid.png", "source/me.png", "source/you.png", "target/me.png", "target/you.png",
    }  # fmt: skip
    source, target = load_generator(tiny_generator), load_generator(runs[0] / "generator.safetensors")
    you = Inverted.load(files[1])
    for side, generator in (("source", source), ("target", target)):
        assert np.abs(np.asarray(Image.open(out / side / "you.png")) - drawn(generator, you)).max() <= 0.51
    assert translate(runs[0], photos[0], "--out", tmp_path / "translated") == 0
    assert (np.asarray(Image.open(out / "target" / "me.png")) == halves(tmp_path / "translated" / "me.png")[1]).all()
    assert main(["generate", str(runs[0]), "--photos", *map(str, files), "--num", "1", "--out", str(tmp_path)]) == 0
    assert [path.name for path in (tmp_path / "source").iterdir()] == ["me.png"]


@pytest.mark.parametrize("form", ["pairs", "webdataset"])
def test_a_data_set_of_photos_resumes(
    form: str, runs: list[Path], tiny_generator: Path, photos: list[Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, fast_inversion: None, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def generate(out: Path) -> int:
        paths = [str(runs[0]), "--photos", str(photos[0].parent), "--out", str(out)]
        return main(["generate", *paths, "--format", form, "--batch-size", "1", "--shard-size", "1"])

    def content(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert generate(tmp_path / "whole") == 0
    draw, drawn_pairs = Translator.draw, 0

    def stopped(self: Translator, photo: Inverted) -> torch.Tensor:
        nonlocal drawn_pairs
        drawn_pairs += 1
        if drawn_pairs == 2:
            raise KeyboardInterrupt
        return draw(self, photo)

    with monkeypatch.context() as patch:
        patch.setattr(Translator, "draw", stopped)
        capsys.readouterr()
        assert generate(tmp_path / "parts") == 130
        assert "Stopped. Run the same command again to resume." in capsys.readouterr().err
    assert content(tmp_path / "parts") != content(tmp_path / "whole")
    assert generate(tmp_path / "parts") == 0
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    if form == "pairs":
        lines = (tmp_path / "whole" / "metadata.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        assert [record["photo"] for record in records] == ["me", "you"]
        source = load_generator(tiny_generator)
        assert {len(record["codes"]) for record in records} == {source.codes(source.sample_latents(0, [0])).numel()}
    Image.new("RGB", (20, 20)).save(photos[1])
    assert generate(tmp_path / "whole") == 1
    assert "holds a data set with other settings (photos:" in " ".join(capsys.readouterr().err.split())


def test_an_interrupted_inversion_keeps_the_codes_and_leaves_no_preview(
    tiny_generator: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert invert(tiny_generator, photos[0], whole) == 0
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path / "other"))

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(inverter, "tune", interrupt)
        assert invert(tiny_generator, photos[0], part) == 130
    assert not part.exists() or not list(part.iterdir())
    monkeypatch.setattr(inverter, "project", interrupt)  # its result is in the cache
    assert invert(tiny_generator, photos[0], part) == 0
    assert (part / "me.safetensors").read_bytes() == (whole / "me.safetensors").read_bytes()


def test_unusual_photos_are_read_or_refused_with_a_sentence(
    tiny_generator: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(3)
    readable = {
        "tiny.png": Image.fromarray(rng.integers(0, 256, (1, 1, 3), dtype=np.uint8)),
        "grey.png": Image.fromarray(rng.integers(0, 256, (20, 30), dtype=np.uint8)),
        "transparent.png": Image.fromarray(rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)),
        "deep.png": Image.fromarray(rng.integers(0, 65536, (20, 30), dtype=np.uint16)),
        "large.png": Image.fromarray(rng.integers(0, 256, (2000, 1500, 3), dtype=np.uint8)),
    }
    for name, image in readable.items():
        image.save(tmp_path / name)
        assert invert(tiny_generator, tmp_path / name, tmp_path / "out", "--tune-steps", "0") == 0, name
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(photos[0].read_bytes()[:100])
    for arguments, message in (
        ([damaged], "damaged.png cannot be read"),
        ([tmp_path / "nowhere.jpg"], "There is no image"),
        ([photos[0], "--generator", tmp_path / "nothing"], "nothing"),
        ([photos[0], "--encoder", damaged], "cannot be read as a weights file"),
        ([photos[0], "--encoder", runs_encoder(tmp_path)], "has no weights named encoder"),
        ([photos[0], "--tune-steps", "-1"], "--tune-steps is -1"),
        ([photos[0], "--seed", "-1"], "--seed is -1"),
        ([], "Name at least one photo"),
    ):
        capsys.readouterr()
        generator = [] if "--generator" in arguments else ["--generator", tiny_generator]
        assert main(["invert", *map(str, [*arguments, *generator]), "--out", str(tmp_path / "bad")]) == 1, message
        assert message in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "bad").exists()


def runs_encoder(folder: Path) -> Path:
    torch.save({"state_dict": {"decoder.x": torch.zeros(1)}}, folder / "other.pt")
    return folder / "other.pt"


def test_an_inverted_photo_of_another_generator_is_refused(
    runs: list[Path], tiny_generator: Path, photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invert(tiny_generator, photos[0], tmp_path / "inverted") == 0
    file = tmp_path / "inverted" / "me.safetensors"
    one = Inverted.load(file)
    Inverted(one.codes, {"synthesis.nowhere": torch.zeros(1)}, one.record).save(file)
    assert translate(runs[0], file, "--out", tmp_path / "out") == 1
    assert "belongs to another generator" in " ".join(capsys.readouterr().err.split())
    Inverted(one.codes[:, :3], {}, one.record).save(file)
    assert translate(runs[0], file, "--out", tmp_path / "out") == 1
    assert "Codes must be" in " ".join(capsys.readouterr().err.split())
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ZeroshiftError, match=r"not a complete|damaged|cannot be read"):
        Inverted.load(file)


def test_help_names_the_encoders(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["invert", "--help"]) == 0
    assert "e4e" in capsys.readouterr().out


def test_a_run_folder_is_not_taken_for_a_photo(
    runs: list[Path], photos: list[Path], tiny_generator: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert RunFolder.read(runs[0]).finished
    assert translate(photos[0], runs[0]) == 1
    assert "not a run folder" in " ".join(capsys.readouterr().err.split())


def test_faces_are_aligned_and_pasted_back(
    runs: list[Path], photos: list[Path], tiny_generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = skimage.data.astronaut()
    party = photos[0].parent / "party.png"
    small = np.asarray(Image.fromarray(pixels[:256, 100:356]).resize((192, 192)))
    both = np.full((512, 720, 3), 100, np.uint8)
    both[:, :512], both[200:392, 520:712] = pixels, small
    Image.fromarray(both).save(party)
    out = tmp_path / "out"
    assert translate(runs[0], party, "--align", "auto", "--faces", "all", "--paste", "--out", out) == 0
    assert {path.name for path in out.iterdir()} == {"party-1.png", "party-2.png", "party-pasted.png"}
    pasted = np.asarray(Image.open(out / "party-pasted.png")).astype(int)
    changed = (pasted != both).any(axis=2)
    assert changed[110, 228]
    assert changed[300, 620]
    assert not changed[400:, :500].any()
    assert translate(runs[0], party, "--align", "140,20,180", "--paste", "--out", out) == 0
    changed = (np.asarray(Image.open(out / "party-pasted.png")) != both).any(axis=2)
    assert changed[110, 228]
    assert not changed[300, 620]
    left = halves(out / "party.png")[0]
    expected = both[20:200, 140:320].astype(float)
    assert np.abs(left.mean(axis=(0, 1)) - expected.mean(axis=(0, 1))).max() < 3
    assert invert(tiny_generator, party, tmp_path / "inverted", "--align", "auto") == 0
    assert {path.name for path in (tmp_path / "inverted").iterdir()} == {"party.png", "party.safetensors"}
    capsys.readouterr()
    for arguments, message in (
        (["--align", "auto"], "you.jpg shows no face"),
        (["--separate", "--mix", "1"], "nothing to mix"),
        (["--align", "middle"], "choose auto, none, or a square"),
        (["--align", "900,0,50"], "does not fit a photo of 30 x 20"),
    ):
        assert translate(runs[0], photos[1], *arguments, "--out", tmp_path / "bad") == 1
        assert message in " ".join(capsys.readouterr().err.split())
    assert translate(runs[0], tmp_path / "inverted" / "party.safetensors", "--paste", "--out", tmp_path / "bad") == 1
    assert "does not hold the whole photo" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "bad").exists()


def test_generators_of_aligned_faces_align_by_default() -> None:
    aligned = {name for name, entry in CATALOGUE.items() if entry.alignment == "faces"}
    assert {
        "ffhq",
        "ffhq256",
        "metfaces",
        "celebahq256",
        "stylegan3-r-ffhq-1024x1024",
        "google/ddpm-celebahq-256",
    } <= aligned
    assert (
        not {
            "google/ddpm-cat-256",
            "google/ddpm-cifar10-32",
            "afhqcat",
            "stylegan3-r-ffhqu-1024x1024",
            "stylegan2-metfacesu-1024x1024",
            "miniature",
        }
        & aligned
    )


def test_a_film_from_photo_to_domain(
    runs: list[Path], photos: list[Path], tiny_generator: Path, tmp_path: Path
) -> None:
    assert invert(tiny_generator, photos[0], tmp_path / "inverted") == 0
    film = tmp_path / "film.gif"
    fixed = ["--strength", "0,1", "--seconds", "0.2", "--fps", "10", "--out", str(film)]
    both = [str(tmp_path / "inverted" / "me.safetensors"), str(photos[1])]
    assert main(["interpolate", str(runs[0]), "--photos", *both, *fixed]) == 0
    with Image.open(film) as frames:
        assert frames.n_frames == 4
        assert frames.size == (32, 16)
    assert not (tmp_path / "inversion-preview.png").exists()


def test_without_the_packages_the_middle_of_a_photo_is_used(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zeroshift.inversion.portraits.can_find_faces", lambda: False)
    with pytest.warns(UserWarning, match=r"pip install 'zeroshift\[faces\]'"):
        (found,) = portraits([photos[1]], None, "largest", "ffhq")
    assert found.crop is None
    monkeypatch.setattr("zeroshift.inversion.portraits.can_find_faces", lambda: True)
    with pytest.raises(ZeroshiftError, match="shows no face"):
        portraits([photos[1]], None, "largest", "ffhq")
    assert len(portraits(photos, None, "largest", "miniature")) == 2
