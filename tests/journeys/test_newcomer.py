"""A newcomer: adapts, reads the report, translates a photo of the world, makes a film and a picture for a slide."""

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

from zeroshift.cli.main import main

pytestmark = pytest.mark.slow


def run(command: str) -> None:
    assert main(shlex.split(command)) == 0, command


def _printed(capsys: pytest.CaptureFixture[str], command: str) -> str:
    capsys.readouterr()
    run(command)
    return capsys.readouterr().out


def test_from_the_first_command_to_a_slide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path / "cache"))
    run("adapt --target zombie --device cpu --steps 4")
    printed = capsys.readouterr().out
    folder = Path("runs/miniature-zombie-compass")
    for name in ("pairs.png", "report.html", "previews/00000000.png", "previews/00000004.png"):
        assert (folder / name).exists()
    assert str(folder / "report.html") in printed

    follow = [line.split("zeroshift ", 1)[1] for line in printed.splitlines() if "zeroshift " in line]
    assert [line.split()[0] for line in follow] == ["generate", "interpolate"], "what the run suggests next"
    run(follow[0].replace("--num 64", "--num 4"))
    with Image.open(folder / "samples-seed-0" / "grid.png") as grid:
        assert grid.width > 4 * 64

    run("miniature photos --num 2")
    run("invert miniature-photos/00000001.png --steps 5 --tune-steps 3 --device cpu")
    run(f"translate {folder} inverted/00000001.safetensors --out slide")
    with Image.open("slide/00000001.png") as pair:
        assert pair.size == (130, 64)
    run(
        f"interpolate {folder} --photos miniature-photos/00000001.png --strength 0,1 --seconds 0.4 --fps 10 "
        "--out film.gif"
    )
    with Image.open("film.gif") as film:
        assert getattr(film, "n_frames", 1) == 4

    run(f'generate {folder} --num 2 --files pair --scale 4 --title "photo -> zombie" --out for-the-slide --quiet')
    with Image.open("for-the-slide/pair/00000001.png") as pair:
        assert pair.height >= 4 * 64
    assert json.loads(_printed(capsys, f"evaluate {folder} --metrics clip-distance --num 16 --json"))["runs"]

    run("adapt --target zombie --device cpu --steps 4")
    assert "already finished" in capsys.readouterr().out
    assert main(shlex.split("adapt --target zombie --device cpu --steps 4 --captions 300")) == 1
    assert "captions" in capsys.readouterr().err, "the difference is named"
