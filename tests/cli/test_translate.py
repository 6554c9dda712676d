"""`zeroshift translate`, and the other commands on runs of diffusion models."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline
from PIL import Image

from tests.helpers.diffusion_models import ddpm
from zeroshift.cli.main import main
from zeroshift.methods.configure import default_config
from zeroshift.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

SMALL = shlex.split(
    "--target zombie --method nada --device cpu --steps 2 --adapt.lr 1e-3 --adapt.lr-final 1e-3 --num-latents 4 "
    "--sampling.t0 0.3 --sampling.noise-steps 1 --sampling.steps 2 --preview-samples 1"
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ddpm(tmp_path_factory.mktemp("models") / "ddpm")


@pytest.fixture(scope="module")
def runs(source: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs from one source."""
    torch.set_num_threads(1)
    folders = [tmp_path_factory.mktemp("runs") / name for name in ("one", "two")]
    for seed, folder in enumerate(folders):
        models = ["--generator", str(source), "--encoder", str(tiny_encoder), "--seed", str(seed)]
        assert main(["adapt", *models, *SMALL, "--out", str(folder)]) == 0
    return folders


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((30, 20), Image.Resampling.BICUBIC).save(tmp_path / "me.png")
    return tmp_path / "me.png"


def halves(path: Path) -> list[np.ndarray]:
    """The two images of a result file as arrays."""
    sheet = np.asarray(Image.open(path)).astype(float)
    assert sheet.shape == (16, 33, 3)
    return [sheet[:, :16], sheet[:, 17:]]


def translate(*arguments: object) -> int:
    return main(["translate", *map(str, arguments), "--steps", "40", "--invert-steps", "40"])


def test_the_family_has_a_preset(source: Path, tiny_generator: Path) -> None:
    for name in (str(source), "google/ddpm-church-256"):
        config = default_config(name)
        assert config.encoders == ("ViT-B-16-quickgelu/openai",)
        assert (config.num_latents, config.adapt.directional_form, config.sampling.clip_sample) == (50, "log", False)
    assert default_config("miniature-diffusion").encoders == ("miniature",)
    assert default_config(str(tiny_generator)).num_latents == 0
    assert default_config("ffhq").num_latents == 0


def test_the_report_repeats_the_settings(runs: list[Path], source: Path) -> None:
    page = (runs[0] / "report.html").read_text(encoding="utf-8")
    assert "--sampling.noise-steps 1" in page
    assert "directional-form" not in page, "as in the preset"
    assert (runs[0] / "pipeline" / "model_index.json").is_file()
    assert json.loads((runs[0] / "config.json").read_text())["sampling"]["steps"] == 2


def test_generate_and_interpolate(runs: list[Path], tmp_path: Path) -> None:
    assert main(["generate", str(runs[0]), "--num", "2", "--out", str(tmp_path / "few")]) == 0
    assert main(["generate", str(runs[0]), "--num", "2", "--steps", "9", "--out", str(tmp_path / "many")]) == 0
    few, many = ((tmp_path / name / "target" / "00000000.png").read_bytes() for name in ("few", "many"))
    assert few != many
    film = tmp_path / "walk.gif"
    walk = ["interpolate", *map(str, runs), "--seeds", "1,2", "--seconds", "0.1", "--mix", "0.5,0.5", "--steps", "1"]
    assert main([*walk, "--out", str(film)]) == 0
    with Image.open(film) as frames:
        assert frames.n_frames == 6


def test_strength_zero_returns_the_image(runs: list[Path], photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    results = []
    for strength in (0, 0.5, 1):
        assert translate(runs[0], photo, "--strength", strength, "--out", out) == 0
        image, result = halves(out / "me.png")
        results.append(result)
    assert np.abs(results[0] - image).mean() < 4, "inversion and generation by the source"
    far, half = (np.abs(result - results[0]).mean() for result in (results[2], results[1]))
    assert 0 < half < far


def test_pictures_apart_scaled_and_with_a_title(
    runs: list[Path], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, out = tmp_path / "plain", tmp_path / "out"
    assert translate(*runs, photo, "--separate", "--out", plain) == 0
    look = ["--files", "both", "--scale", "4", "--title", "photo -> zombie", "--separate"]
    assert translate(*runs, photo, *look, "--out", out) == 0
    written = {str(path.relative_to(out)) for path in out.rglob("*.png")}
    assert written == {"me.png", "source/me.png", "target-1/me.png", "target-2/me.png"}
    assert ", ".join(str(out / name) for name in ("me.png", "source/me.png")) in capsys.readouterr().out
    with Image.open(plain / "me.png") as row, Image.open(out / "me.png") as titled:
        tiles = np.asarray(row)
        side = tiles.shape[0]
        assert titled.height > 4 * side + 12
    for number, folder in enumerate(("source", "target-1", "target-2")):
        with Image.open(out / folder / "me.png") as image:
            left = number * (side + 1)
            expected = tiles[:, left : left + side].repeat(4, axis=0).repeat(4, axis=1)
            assert (np.asarray(image) == expected).all()
            assert (
                image.text["Description"] == f"scaled from {side} x {side} to {4 * side} x {4 * side} pixels (nearest)"
            )
    assert translate(runs[0], photo, "--files", "separate", "--out", tmp_path / "apart") == 0
    apart = {str(path.relative_to(tmp_path / "apart")) for path in (tmp_path / "apart").rglob("*.png")}
    assert apart == {"source/me.png", "target/me.png"}


@pytest.mark.slow
def test_several_runs_mix(runs: list[Path], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = []
    for mix in ("1,0", "0,1", "0.5,0.5"):
        assert translate(*runs, photo, "--mix", mix, "--out", tmp_path / mix) == 0
        results.append(halves(tmp_path / mix / "me.png")[1])
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "0.5,0.5" / "me.png")
    assert translate(*runs, photo, "--out", tmp_path / "equal") == 0
    assert (halves(tmp_path / "equal" / "me.png")[1] == results[2]).all()
    assert (results[0] != results[1]).any()


def test_a_folder_of_images(runs: list[Path], photo: Path) -> None:
    folder = photo.parent / "photos"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        Image.open(photo).save(folder / name)
    assert translate(runs[0], folder) == 0
    assert {path.name for path in (runs[0] / "translated").iterdir()} == {"a.png", "b.png"}


def test_images_with_the_same_name_are_kept_apart(runs: list[Path], photo: Path, tmp_path: Path) -> None:
    folder = photo.parent / "album"
    for name in ("a.png", "a.jpg", "deep/a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(photo).save(folder / name)
    assert translate(runs[0], folder, "--out", tmp_path / "out") == 0
    made = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")}
    assert made == {"a.png.png", "a.jpg.png", "deep/a.png"}


def test_inverted_photos_of_another_noise_level_are_refused(
    runs: list[Path], source: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "inverted"
    command = ["invert", str(photo), "--generator", str(source), "--steps", "2", "--device", "cpu", "--out", str(out)]
    assert main(command) == 0
    assert translate(runs[0], out / "me.safetensors", "--out", tmp_path / "out") == 1
    assert "for diffusion models to another t0" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_export(runs: list[Path], tmp_path: Path) -> None:
    assert main(["export", str(runs[0]), "--format", "diffusers", "--out", str(tmp_path / "model")]) == 0
    ours, theirs = (DDIMPipeline.from_pretrained(path).unet for path in (runs[0] / "pipeline", tmp_path / "model"))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert main(["export", str(runs[0]), "--format", "rosinality-pt"]) == 2


@pytest.fixture(scope="module")
def gan_run(tiny_generator: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "gan"
    models = ["--generator", str(tiny_generator), "--encoder", str(tiny_encoder)]
    small = shlex.split("--target zombie --method nada --device cpu --steps 1 --adapt.layer-batch-size 2")
    assert main(["adapt", *models, *small, "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{run}", "Name one or more run folders"),
        ("{run} nowhere.png", "There is no image nowhere.png"),
        ("{run} {run}/config.json", "cannot be read"),
        ("{photo} {photo}", "not a run folder"),
        ("{run} {photo} --mix 0.5,0.5", "2 shares"),
        ("{run} {photo} --steps 0", "--steps is 0"),
        ("{run} {gan} {photo}", "different generators"),
        ("{gan} {photo} --steps 3", "no sampling steps. Leave --steps out"),
        ("{run} {photo} --encoder {photo}", "cannot be read as a weights file"),
        ("{gan} {photo} --encoder {photo}", "cannot be read as a weights file"),
        ("{gan} {run}/generator.safetensors", "holds no inverted photo"),
    ],
)
def test_wrong_arguments_are_explained(
    runs: list[Path], gan_run: Path, photo: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [word.format(run=runs[0], gan=gan_run, photo=photo) for word in words.split()]
    assert main(["translate", *arguments]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert RunFolder.read(runs[0]).finished


def test_no_steps_for_a_gan(gan_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(gan_run), "--steps", "3"]) == 1
    assert "no sampling steps" in capsys.readouterr().err


def test_a_result_never_replaces_a_photo_or_a_file_of_somebody_else(
    runs: list[Path], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = photo.read_bytes()
    assert translate(runs[0], tmp_path, "--out", tmp_path) == 1
    assert "would replace an input image" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "me.png").write_bytes(before)
    assert translate(runs[0], photo, "--out", tmp_path / "out") == 1
    assert "me.png exists, and zeroshift cannot tell" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "out" / "me.png").read_bytes() == photo.read_bytes() == before


def test_a_cache_that_cannot_be_written_is_a_warning_with_its_variable(
    runs: list[Path], photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path / "file" / "cache"))
    assert translate(runs[0], photo, "--out", tmp_path / "out") == 0
    warning = " ".join(capsys.readouterr().err.split())
    assert warning.count("ZEROSHIFT_CACHE moves this cache to another folder.") == 1
    assert (tmp_path / "out" / "me.png").exists()


def test_an_exported_pipeline_keeps_the_files_of_others(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ["export", str(runs[0]), "--format", "diffusers", "--out"]
    mine, foreign = tmp_path / "mine", tmp_path / "foreign"
    assert main([*export, str(mine)]) == 0
    (mine / "notes.txt").write_text("mine")
    assert main([*export, str(mine)]) == 0
    assert (mine / "notes.txt").read_text() == "mine"
    DDIMPipeline.from_pretrained(mine).save_pretrained(foreign)
    (foreign / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in foreign.rglob("*") if path.is_file()}
    assert main([*export, str(foreign)]) == 1
    assert "not as zeroshift has written them" in " ".join(capsys.readouterr().err.split())
    assert {path: path.read_bytes() for path in foreign.rglob("*") if path.is_file()} == before
