"""The commands of `zeroshift miniature`."""

import pytest
from PIL import Image

from zeroshift.cli import main as cli
from zeroshift.errors import ZeroshiftError
from zeroshift.miniature import commands
from zeroshift.miniature.world.domains import parse_domain


def size(path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_commands_write_images(tmp_path, capsys):
    assert cli.main(["miniature", "sheet", "--out", str(tmp_path / "a.png"), "--domains", "zombie", "--num", "2"]) == 0
    assert cli.main(["miniature", "factors", "--out", str(tmp_path / "b.png"), "--domain", "mosaic of an elf"]) == 0
    assert size(tmp_path / "a.png")[0] > 128
    assert size(tmp_path / "b.png")[1] > 64 * len(parse_domain("mosaic of an elf").visible)


def test_wrong_options_are_reported_and_nothing_is_written(tmp_path):
    with pytest.raises(ZeroshiftError, match="no domain 'vampire'"):
        commands.sheet(tmp_path / "a.png", domains=("vampire",))
    with pytest.raises(ZeroshiftError, match="--num and --scale must be at least 1"):
        commands.sheet(tmp_path / "a.png", num=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", ["guidance-encoder", "evaluator", "probe", "generator", "diffusion", "autoencoder"])
def test_every_model_has_a_recipe_with_help(model, capsys):
    assert cli.main(["miniature", "train", model, "--help"]) == 0
    assert "--out" in capsys.readouterr().out


@pytest.mark.parametrize("name", commands.__all__)
def test_every_command_has_an_example_of_itself(name):
    words = name.replace("train_", "train ", 1).replace("_", "-")
    examples = getattr(commands, name).__doc__.split("Examples:")[1].split("Args:")[0]
    assert f"zeroshift miniature {words}" in examples
