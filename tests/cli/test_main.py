import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zeroshift
from zeroshift.cli import adapt as adapt_command
from zeroshift.cli.interpolate import parse_samples
from zeroshift.cli.main import COMMANDS, main
from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.catalogue import known_checkpoints
from zeroshift.generators.checkpoints.files import load_generator, save_generator
from zeroshift.generators.module import is_trusted
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.io.images import to_uint8
from zeroshift.methods.configure import changed, default_config, preset
from zeroshift.miniature.world.domains import parse_domain
from zeroshift.miniature.world.renderer import render, sample_latents
from zeroshift.report.command import command_line
from zeroshift.training.run_folder import RunFolder


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr (its lines joined) of a command in this process."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, " ".join(captured.err.split())


@pytest.fixture
def finished(tiny_generator: Path, tmp_path: Path) -> Path:
    """A finished run folder, with changed weights as the adapted generator."""
    return make_finished(tiny_generator, tmp_path / "finished", scale=1.2)


def make_finished(generator: Path, folder: Path, scale: float) -> Path:
    run = RunFolder.open(folder, AdaptConfig(target="zombie", generator=str(generator)))
    target = load_generator(generator)
    with torch.no_grad():
        for parameter in target.synthesis.parameters():
            parameter.mul_(scale)
    save_generator(target, run.generator_path)
    return folder


# Help and usage


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_cli(capsys, "--help")
    assert code == 0
    assert all(name in out for name in COMMANDS)
    assert "zeroshift adapt --target zombie" in out
    assert run_cli(capsys)[0] == 2, "no command at all is wrong usage"
    code, out, _ = run_cli(capsys, "--version")
    assert (code, out) == (0, f"zeroshift {zeroshift.__version__}\n")


@pytest.mark.parametrize(
    "name", ["adapt", "generate", "evaluate", "interpolate", "translate", "export", "models", "completion"]
)
def test_every_command_shows_examples(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out, _ = run_cli(capsys, name, "--help")
    assert code == 0
    assert f"  zeroshift {name}" in out, "examples"
    assert "Args:" not in out


def test_help_shows_the_defaults_of_the_generator(capsys: pytest.CaptureFixture[str]) -> None:
    def default_lr(*arguments: str) -> str:
        text = run_cli(capsys, "adapt", *arguments, "--help-all")[1]
        return text.split("--adapt.lr FLOAT")[1].split("default: ")[1].split(")")[0]

    own, published = preset("miniature", "x").adapt.lr, preset("published", "x").adapt.lr
    assert float(default_lr()) == own
    assert float(default_lr("--generator", "ffhq")) == published
    assert float(default_lr("--preset", "published")) == published
    assert float(default_lr("--generator=ffhq", "--preset=miniature")) == own


def test_public_names_can_be_imported() -> None:
    assert all(getattr(zeroshift, name) is not None for name in zeroshift.__all__)
    assert dir(zeroshift) == sorted(zeroshift.__all__)
    with pytest.raises(AttributeError, match="no attribute 'surprise'"):
        zeroshift.surprise  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["adpat"], "There is no command 'adpat'. Did you mean 'adapt'?"),
        (["adapt"], "--target"),
        (["adapt", "--target", "zombie", "--surprise", "1"], "--surprise"),
        (["adapt", "--target", "zombie", "--steps", "many"], "--adapt.steps"),
        (["adapt", "--target", "zombie", "--generator"], "Missing value for argument '--generator'"),
        (["generate"], "Missing from zeroshift generate"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str) -> None:
    code, out, err = run_cli(capsys, *arguments)
    assert code == 2
    assert sentence in err
    assert out == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--preset", "large"], "There is no preset 'large'."),
        (["--method", "nadar"], "There is no method 'nadar'. Did you mean nada?"),
        (["--adapt.ema", "0.9"], "--adapt.ema is called --adapt.ema-decay now."),
        (["--diffusion.t0", "0.9"], "--diffusion.t0 is called --sampling.t0 now."),
        (["--options.variations", "3"], "--options.variations is called --variations now."),
        (["--batch", "3"], "--batch is called --batch-size now."),
        (["--source-images-dir", "photos"], "--source-images-dir does not apply"),
        (["--target-texts", "undead=0"], "must be TEXT or TEXT=WEIGHT"),
    ],
)
def test_unknown_and_old_names_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    code, out, err = run_cli(capsys, "adapt", "--target", "zombie", *arguments)
    assert code == 1
    assert sentence in err
    assert out == ""


# Settings from the command line


def test_settings_of_other_methods_are_ignored_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, _ = parsed(monkeypatch, "zeroshift adapt --target zombie --method nada")
    command = (
        "zeroshift adapt --target zombie --method nada --prompts.steps 5 --variations=3 --adapt.lora-rank 2 --steps 240"
    )
    config, _ = parsed(monkeypatch, command)
    assert config == plain
    assert "--prompts.steps does not apply to the method 'nada'" in capsys.readouterr().err


def test_a_negative_flag_of_another_family_is_ignored_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, _ = parsed(monkeypatch, "zeroshift adapt --target zombie")
    config, _ = parsed(monkeypatch, "zeroshift adapt --target zombie --sampling.no-clip-sample")
    assert config == plain
    assert "--sampling.no-clip-sample does not apply" in capsys.readouterr().err


def parsed(monkeypatch: pytest.MonkeyPatch, command: str) -> tuple[AdaptConfig, Path]:
    calls: list[tuple[AdaptConfig, Path]] = []
    monkeypatch.setattr(adapt_command, "run_adaptation", lambda config, out: calls.append((config, out)))
    words = shlex.split(command)
    assert words[:2] == ["zeroshift", "adapt"]
    assert main(words[1:]) == 0
    return calls[0]


def test_everyday_options(monkeypatch: pytest.MonkeyPatch) -> None:
    config, out = parsed(monkeypatch, "zeroshift adapt --target zombie")
    assert config == preset("miniature", "zombie")
    assert out == Path("runs/miniature-zombie-compass")
    config, out = parsed(
        monkeypatch,
        "zeroshift adapt --generator models/stylegan2-ffhq.pkl --encoder ViT-B-32-quickgelu/openai --source face "
        "--target 'Van Gogh: oil/painting' --method nada --steps 7 --lr 0.5 --seed 3 --batch-size=4 --layers all",
    )
    standard = preset(
        "standard", "Van Gogh: oil/painting", generator="models/stylegan2-ffhq.pkl", method="nada", seed=3
    )
    assert config == replace(
        standard,
        encoders=("ViT-B-32-quickgelu/openai",),
        source="face",
        adapt=replace(standard.adapt, steps=7, lr=0.5, batch_size=4, layers=("all",)),
    )
    assert out == Path("runs/stylegan2-ffhq-van-gogh-oil-painting-nada-seed-3")


@pytest.mark.parametrize(
    "config",
    [
        preset("miniature", "pencil sketch of a zombie"),
        preset("published", "it's", generator="a b.pkl", encoders=("ViT-B-32/openai", "ViT-B-16/openai")),
        preset("published", "x", compile=True, class_index=2, encoder_weights=(1.0, 0.5), encoders=("a", "b")),
        changed(preset("miniature", "x", method="nada", precision="bf16"), {"target_images": ("one.png", "two.png")}),
    ],
)
def test_the_printed_command_repeats_a_run(monkeypatch: pytest.MonkeyPatch, config: AdaptConfig) -> None:
    command = command_line(config, Path("runs/my run"))
    assert parsed(monkeypatch, command) == (config, Path("runs/my run"))


def test_the_command_names_the_method_and_omits_defaults() -> None:
    config = default_config("miniature")
    command = command_line(replace(config, target="zombie"), Path("runs/a"))
    assert command == "zeroshift adapt --target zombie --method compass --out runs/a"


# Commands for finished runs


def test_generate(capsys: pytest.CaptureFixture[str], finished: Path) -> None:
    code, out, _ = run_cli(capsys, "generate", finished, "--num", "5", "--seed", "3", "--columns", "2")
    folder = finished / "samples-seed-3"
    assert code == 0
    assert str(folder / "grid.png") in out
    names = [f"{i:08d}.png" for i in range(5)]
    assert sorted(path.name for path in folder.iterdir()) == ["grid.png", "source", "target"]
    with Image.open(folder / "grid.png") as grid:
        assert grid.size == (2 * 32 + 1, 3 * 16 + 2)
        for side, x in (("source", 0), ("target", 16)):
            assert sorted(path.name for path in (folder / side).iterdir()) == names
            with Image.open(folder / side / "00000002.png") as single:
                assert single.tobytes() == grid.crop((x, 17, x + 16, 33)).tobytes()


@pytest.mark.slow
def test_pictures_for_a_slide(capsys: pytest.CaptureFixture[str], finished: Path) -> None:
    options = ["--num", "70", "--files", "both", "--scale", "3", "--title", "photo -> zombie"]
    code, out, _ = run_cli(capsys, "generate", finished, *options)
    folder = finished / "samples-seed-0"
    assert code == 0
    assert f"70 pairs: {folder / 'grid.png'} (the first 64), " in out
    assert out.rstrip().endswith(str(folder / "pair"))
    with Image.open(folder / "pair" / "00000069.png") as pair, Image.open(folder / "grid.png") as grid:
        assert pair.size == (96, 48)
        assert pair.text["Description"] == "scaled from 16 x 16 to 48 x 48 pixels (nearest)"
        assert grid.width == 4 * 96 + 3 * 3
        assert grid.height > 16 * 48 + 15 * 3
    code, out, _ = run_cli(capsys, "generate", finished, "--num", "2", "--json")
    assert (code, json.loads(out)["grid_pairs"], json.loads(out)["num"]) == (0, 2, 2)
    for words, sentence in (
        (["--scale", "big"], "it must be a whole factor"),
        (["--title", "僵"], "characters that cannot be drawn"),
        (["--format", "pairs", "--scale", "2"], "A data set (--format pairs) has no --scale"),
        (["--format", "webdataset", "--title", "x"], "A data set (--format webdataset) has no --scale"),
    ):
        code, _, err = run_cli(capsys, "generate", finished, *words, "--out", finished / "refused")
        assert code == 1
        assert sentence in err
    assert not (finished / "refused").exists()


def test_generate_agrees_with_the_python_interface(capsys: pytest.CaptureFixture[str], finished: Path) -> None:
    out = finished.parent / "elsewhere"
    assert run_cli(capsys, "generate", finished, "--num", "2", "--truncation-psi", "0.3", "--out", out)[0] == 0
    target = zeroshift.load_generator(finished / "generator.safetensors")
    ((images,),) = zeroshift.generate([target], 2, seed=0, truncation_psi=0.3)
    with Image.open(out / "target" / "00000001.png") as picture:
        pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(16, 16, 3)
    expected = (images[1].clamp(-1, 1).permute(1, 2, 0) + 1) * 127.5
    assert (pixels - expected).abs().max() <= 1


def test_truncation_defaults_to_the_setting_of_the_run(capsys: pytest.CaptureFixture[str], finished: Path) -> None:
    psi = RunFolder.read(finished).config.truncation_psi
    assert psi != 1, "otherwise this test proves nothing"
    folders = [finished.parent / name for name in ("default", "explicit", "full")]
    for folder, options in zip(folders, ([], ["--truncation-psi", str(psi)], ["--truncation-psi", "1"]), strict=True):
        assert run_cli(capsys, "generate", finished, "--num", "1", "--out", folder, *options)[0] == 0
    default, explicit, full = ((folder / "grid.png").read_bytes() for folder in folders)
    assert default == explicit != full


def test_generate_replaces_samples_of_an_earlier_call(
    capsys: pytest.CaptureFixture[str], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished / "samples-seed-0"
    assert run_cli(capsys, "generate", finished, "--num", "6")[0] == 0
    foreign = [folder / "target" / name for name in ("0004.jpg", "00000005-mine.png", "mine-0005.png")]
    foreign.append(folder / "00000005.png")
    for file in foreign:
        file.write_bytes(b"of the user")
    assert run_cli(capsys, "generate", finished, "--num", "2")[0] == 0
    with Image.open(folder / "grid.png") as grid:
        assert grid.size == (2 * 32 + 1, 16)
    for side, others in (("source", []), ("target", foreign[:3])):
        expected = {"00000000.png", "00000001.png", *(file.name for file in others)}
        assert {path.name for path in (folder / side).iterdir()} == expected
    assert all(file.read_bytes() == b"of the user" for file in foreign)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zeroshift.sampling.sample_files.to_uint8", interrupted)
    assert run_cli(capsys, "generate", finished, "--num", "4")[0] == 130
    assert not (folder / "grid.png").exists(), "an interrupted call leaves no grid"


def test_interpolate(capsys: pytest.CaptureFixture[str], finished: Path, tiny_generator: Path) -> None:
    other = make_finished(tiny_generator, finished.parent / "other", scale=0.8)
    out = finished.parent / "walk.gif"
    fast = ["--fps", "4", "--seconds", "0.5"]
    code, printed, _ = run_cli(capsys, "interpolate", finished, other, "--seeds", "1,2:7,3", "--out", out, *fast)
    assert (code, printed) == (0, f"6 frames: {out}\n")
    with Image.open(out) as film:
        assert (film.size, film.n_frames) == ((48, 16), 6)
    out = finished.parent / "walk.webp"
    look = ["--scale", "64px", "--title", "photo to zombie", "--seeds", "1"]
    assert run_cli(capsys, "interpolate", finished, *look, "--out", out, *fast)[0] == 0
    with Image.open(out) as film:
        assert (film.format, film.size) == ("WEBP", (128, 64))
        assert film.n_frames == 2, "the card and the frames of one sample, as equal frames are merged"
    arguments = ["--seeds", "1", "--strength", "0,1", "--mix", "0.9,0.3", *fast]
    assert run_cli(capsys, "interpolate", finished, other, "--out", out, *arguments)[0] == 0
    with Image.open(out) as film:
        assert (film.size, film.n_frames) == ((32, 16), 2)
    assert run_cli(capsys, "interpolate", finished, *fast)[0] == 0
    assert (finished / "walk.mp4").stat().st_size > 100


def test_seeds_of_a_film() -> None:
    assert parse_samples("1, 2:7,3") == [(1, 0), (2, 7), (3, 0)]
    for text in ("", "a", "1,,2", "1:2:3", "-1"):
        with pytest.raises(ZeroshiftError, match="--seeds must be"):
            parse_samples(text)


@pytest.mark.parametrize(("format", "name"), [("safetensors", "export.safetensors"), ("rosinality-pt", "export.pt")])
def test_export(capsys: pytest.CaptureFixture[str], tmp_path: Path, format: str, name: str) -> None:
    # rosinality's program supports only its own numbers of channels
    source = StyleGAN2(resolution=8, z_dim=8, w_dim=8, mapping_layers=2, channels={4: 512, 8: 512})
    save_generator(source, tmp_path / "source.safetensors")
    run = make_finished(tmp_path / "source.safetensors", tmp_path / "run", scale=0.9)
    code, out, _ = run_cli(capsys, "export", run, "--format", format)
    assert (code, out) == (0, f"{run / name}\n")
    delivered, exported = load_generator(run / "generator.safetensors"), load_generator(run / name)
    latents = delivered.sample_latents(0, range(2))
    with torch.no_grad():
        assert torch.allclose(delivered(latents), exported(latents), atol=1e-4)


def test_export_offers_the_formats_of_the_run(capsys: pytest.CaptureFixture[str], finished: Path) -> None:
    code, out, _ = run_cli(capsys, "export", finished, "--help")
    assert code == 0
    assert "{safetensors,rosinality-pt,nvidia-pkl,onnx,torch-export}" in out
    code, out, err = run_cli(capsys, "export", finished, "--format", "diffusers")
    assert (code, out) == (2, "")
    assert "rosinality-pt" in err


def test_export_that_the_format_cannot_hold(capsys: pytest.CaptureFixture[str], finished: Path) -> None:
    code, out, err = run_cli(capsys, "export", finished, "--format", "rosinality-pt")
    assert (code, out) == (1, "")
    assert "Export as safetensors" in err
    assert not (finished / "export.pt").exists()


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_cli(capsys, "models")
    lines = [line.split() for line in out.splitlines()]
    entries = known_checkpoints()
    assert code == 0
    assert [line[0] for line in lines[1:]] == [entry.name for entry in entries]
    for line, entry in zip(lines[1:], entries, strict=True):
        assert {str(entry.resolution), entry.family} <= set(line)
        assert line[-1] == (entry.address or "installed")
        assert f"{entry.size_mb:g}" in line
    assert {line.split()[0] for line in run_cli(capsys, "models", "afhqd")[1].splitlines()[1:]} == {"afhqdog"}
    code, out, err = run_cli(capsys, "models", "surprise")
    assert (code, out) == (1, "")
    assert "No known checkpoint begins with 'surprise'" in err


def test_models_trust_a_factory(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path))
    assert not is_trusted("some_package.gan:load")
    code, out, _ = run_cli(capsys, "models", "--trust", "some_package.gan:load")
    assert (code, out) == (0, "Files may now name some_package.gan:load as the source of their generator.\n")
    assert is_trusted("some_package.gan:load")
    code, _, err = run_cli(capsys, "models", "--trust", "some_package.gan")
    assert code == 1
    assert "package.module:function" in err


def test_miniature(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--num", "2", "--domains", "zombie", "mosaic of an elf", "--out", tmp_path / "sheet.png"]
    assert run_cli(capsys, "miniature", "sheet", *arguments)[0] == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 128
        assert sheet.height > 128
    arguments = ["--num", "3", "--domain", "mosaic", "--seed", "7", "--out", tmp_path / "mosaics"]
    assert run_cli(capsys, "miniature", "photos", *arguments)[0] == 0
    assert [path.name for path in sorted((tmp_path / "mosaics").iterdir())] == [f"{n:08d}.png" for n in range(3)]
    expected = render(sample_latents(7, range(3)), parse_domain("mosaic"), 7)[2:]
    with Image.open(tmp_path / "mosaics" / "00000002.png") as image:
        assert (np.asarray(image) == to_uint8(expected)[0]).all()
    code, out, _ = run_cli(capsys, "miniature", "train", "--help")
    assert code == 0
    models = ("guidance-encoder", "evaluator", "probe", "generator", "diffusion", "autoencoder")
    assert all(f"{model} " in out for model in models)
    code, _, err = run_cli(capsys, "miniature", "train")
    assert code == 1
    assert "Name the model to train: " in err
    assert all(model in err for model in models)
    assert run_cli(capsys, "miniature", "surprise")[0] == 2
    code, _, err = run_cli(capsys, "miniature", "sheet", "--domains", "vampire")
    assert code == 1
    assert "has no domain 'vampire'" in err


# Bad input


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["generate", "{tmp}/nowhere"], "nowhere is not a run folder"),
        (["generate", "{run}", "--num", "0"], "--num is 0; it must be positive."),
        (["generate", "{run}", "--batch-size", "-1"], "--batch-size is -1"),
        (["interpolate", "{run}", "--seeds", "one"], "--seeds must be"),
        (["interpolate", "{run}", "--strength", "strong"], "--strength must be numbers"),
        (["interpolate", "{run}", "--mix", "1,2"], "2 shares of a mix for 1 targets"),
        (["interpolate", "{run}", "--out", "{tmp}/film.avi"], "must end in .mp4, .gif or .webp"),
        (["interpolate", "{run}", "--out", "{tmp}/film.gif", "--fps", "60"], "shows 1 to 50 frames per second, not 60"),
        (["interpolate", "{run}", "--scale", "0"], "it must be a whole factor"),
        (["miniature", "sheet", "--num", "1", "--out", "{tmp}/sheet.gif"], "must end in .png, .webp or .jpg"),
        (["interpolate"], "Name at least one run folder"),
        (["export", "{tmp}"], "is not a run folder"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], finished: Path, arguments: list[str], sentence: str) -> None:
    before = sorted(finished.parent.rglob("*"))
    filled = [argument.format(tmp=finished.parent, run=finished) for argument in arguments]
    code, out, err = run_cli(capsys, *filled)
    assert code == 1
    assert err.startswith("Error: ")
    assert sentence in err
    assert "Traceback" not in err
    assert out == ""
    assert sorted(finished.parent.rglob("*")) == before, "no incomplete files"


def test_unfinished_run(capsys: pytest.CaptureFixture[str], finished: Path) -> None:
    (finished / "generator.safetensors").unlink()
    for command in ("generate", "interpolate", "export"):
        code, _, err = run_cli(capsys, command, finished)
        assert code == 1
        assert "is not finished" in err


def test_runs_of_different_generators(capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(Path(RunFolder.read(finished).config.generator).read_bytes())
    other = make_finished(copy, tmp_path / "other", scale=1.0)
    code, _, err = run_cli(capsys, "interpolate", finished, other)
    assert code == 1
    assert "different generators" in err


def test_unexpected_disk_errors_give_a_message(
    capsys: pytest.CaptureFixture[str], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zeroshift.io.images.Image.fromarray", fail)
    code, _, err = run_cli(capsys, "generate", finished)
    assert code == 1
    assert "The disk is full" in err


def test_closed_output_ends_without_a_traceback(finished: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m zeroshift --help | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_default_folders_name_other_seeds_than_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = AdaptConfig(target="pencil sketch", generator="models/ffhq.pkl")
    assert adapt_command.default_folder(config) == Path("runs/ffhq-pencil-sketch-ipl")
    seeded = replace(config, seed=3)
    assert adapt_command.default_folder(seeded) == Path("runs/ffhq-pencil-sketch-ipl-seed-3")
    RunFolder.open("runs/ffhq-pencil-sketch-ipl", seeded)
    assert adapt_command.default_folder(seeded) == Path("runs/ffhq-pencil-sketch-ipl"), "an older folder"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("miniature", "completion")])
def test_help_pages_show_no_python_values(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    page = capsys.readouterr().out
    for word in ("{None}", "None|", "|None", "(default: None)", "(default: )"):
        assert word not in page
