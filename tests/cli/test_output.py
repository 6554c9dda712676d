"""--quiet, --json and --help-all, which every command has."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from zeroshift.cli import output
from zeroshift.cli.main import COMMANDS, main
from zeroshift.cli.progress import Display, download_bar


@pytest.fixture(autouse=True)
def _afterwards() -> Iterator[None]:
    yield
    output.start([])


def test_results_are_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "mini", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["command"] == "models"
    assert {"name", "resolution", "size_mb", "sha256"} <= values["models"][0].keys()
    assert values["models"][0]["name"] == "miniature"


def test_an_error_prints_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "nothing", "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "No known checkpoint" in printed.err


def test_lists_of_results_grow_and_notes_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert output.start(["export", "--json", "run", "--seed", "1"]) == ["export", "run", "--seed", "1"]
    output.show_result("a.png", files=[Path("a.png")])
    output.note("Next: more")
    output.show_result("b.png", files=[Path("b.png")], folder=Path("out"))
    output.finish("export")
    assert json.loads(capsys.readouterr().out) == {"command": "export", "files": ["a.png", "b.png"], "folder": "out"}


def test_quiet_leaves_out_notes_and_progress(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in ([], ["-q"]):
        output.start(["adapt", *quiet])
        output.show_result("Images: a.png")
        output.note("Next: more")
        with Display() as display:
            display.update("adapt", 10, 10, {"loss": 0.5})
        with download_bar("weights.pt") as progress:
            progress(5, 10)
        printed = capsys.readouterr()
        shown = (printed.out.split("\n"), printed.err.splitlines())
        expected = ["adapting 10/10 loss 0.5000", "Downloading weights.pt"]
        assert shown == ((["Images: a.png", ""], []) if quiet else (["Images: a.png", "Next: more", ""], expected))


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("evaluate", "miniature", "benchmark")])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help-all"]) == 0
    assert f"usage: zeroshift {command}" in capsys.readouterr().out


def test_the_help_of_adapt_is_short_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapt", "--help"]) == 0
    short = capsys.readouterr().out
    assert "--help-all" in short
    assert "--steps INT" in short
    assert "--adapt.layer-lr" not in short
    assert main(["adapt", "--help-all", "--method", "svl"]) == 0
    whole = capsys.readouterr().out
    assert "--adapt.layer-lr" in whole
    assert "--variations" in whole
    assert len(short) < len(whole) / 2


def test_json_is_not_read_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 2
    assert "There is no command" in capsys.readouterr().err
