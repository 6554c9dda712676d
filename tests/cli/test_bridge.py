"""`zeroshift bridge`, and a run of the method compass with its file."""

import json
from pathlib import Path

import pytest
import torch

from zeroshift.cli.main import main
from zeroshift.clip.bridge import load_bridge
from zeroshift.io.images import save_png, to_uint8

WORDS = ("zombie", "elf", "sketch", "person", "photo", "picture")


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """108 images whose color depends on their captions."""
    folder = tmp_path_factory.mktemp("captioned")
    draw = torch.Generator().manual_seed(0)
    looks = torch.rand(6, 3, 16, 16, generator=draw)
    for number in range(108):
        first, second = number % 6, number // 6 % 6
        pixels = to_uint8(((looks[first] + looks[second]) - 1)[None])[0]
        save_png(folder / f"{number:03d}.png", pixels)
        (folder / f"{number:03d}.txt").write_text(f"a {WORDS[first]} of the {WORDS[second]} {number // 36}")
    return folder


def test_a_bridge_is_fitted_to_a_folder_and_used_by_compass(
    captioned: Path, tiny_encoder: Path, tiny_generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bridge.safetensors"
    arguments = ["bridge", "--images", str(captioned), "--encoder", str(tiny_encoder), "--out", str(out)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    bridge = load_bridge(out)
    assert f"Captions predict {bridge.explained:.0%} of the variance" in printed
    assert "beard" in bridge.attributes, "the list for portraits"
    run = tmp_path / "run"
    command = [
        "adapt", "--generator", str(tiny_generator), "--encoders", str(tiny_encoder), "--method", "compass",
        "--bridges", str(out), "--target", "zombie", "--adapt.steps", "2", "--captions", "100", "--out", str(run),
        "--device", "cpu", "--no-compile",
    ]  # fmt: skip
    assert main([argument for argument in command if argument != "--no-compile"]) == 0
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"structure", "directional"} <= set(last)


def test_own_attributes_and_errors(
    captioned: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attributes = tmp_path / "attributes.json"
    attributes.write_text('{"color": ["red"], "size": ["small", "large"], "place": ["outdoors"]}')
    out = tmp_path / "bridge.safetensors"
    arguments = ["bridge", "--images", str(captioned), "--encoder", str(tiny_encoder), "--out", str(out)]
    assert main([*arguments, "--attributes", str(attributes)]) == 0
    assert set(load_bridge(out).attributes) == {"color", "size", "place"}
    out.unlink()
    attributes.write_text('{"color": ["red"]}')
    for further, message in (
        (["--num", "20"], "20 captioned images are too few"),
        (["--num", "0"], "--num is 0"),
        (["--attributes", str(attributes)], "at least 3 items"),
        (["--images", str(tmp_path / "none")], "none"),
    ):
        capsys.readouterr()
        assert main([*arguments, *further]) == 1
        assert message in capsys.readouterr().err
        assert not out.exists()
