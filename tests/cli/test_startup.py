"""Commands answer before they import what takes seconds: torch (2 s), torchvision and open_clip (7 s more)."""

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

SLOW = ("torch", "torchvision", "open_clip", "diffusers", "pydantic", "huggingface_hub", "matplotlib")
RUN = """
import contextlib, io, json, sys
from zeroshift.cli.main import main
codes = []
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    for command in json.loads(sys.argv[1]):
        codes.append(main(command))
print(json.dumps([codes, sorted(set(sys.modules) & set(json.loads(sys.argv[2])))]))
"""


def run(commands: list[list[str]], packages: Sequence[str] = SLOW) -> tuple[list[int], list[str]]:
    """Exit codes of commands, and which of the packages they imported."""
    words = [sys.executable, "-c", RUN, json.dumps(commands), json.dumps(packages)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    codes, imported = json.loads(done.stdout)
    return codes, imported


def test_simple_answers_import_nothing_slow() -> None:
    answered = [
        ["--help"],
        ["--version"],
        ["models"],
        *[[name, "--help"] for name in ("generate", "translate", "invert", "adapt")],
    ]
    refused = [
        *[[name, "runs/nothing"] for name in ("generate", "translate", "interpolate", "evaluate", "export")],
        ["translate", "runs/nothing", "me.jpg"], ["push", "runs/nothing", "me/zombie"],
        ["adapt", "--target", "x", "--generator", "ffqh"],
    ]  # fmt: skip
    codes, imported = run([*answered, *refused])
    assert codes == [0] * len(answered) + [1] * len(refused)
    assert imported == []


def test_the_list_of_models_needs_no_network_code_and_no_type_checker() -> None:
    # They take 30 to 60 ms each, of 0.2 s.
    assert run([["models"]], ["typeguard", "urllib.request", "rich.progress"]) == ([0], [])


@pytest.mark.slow
def test_the_help_of_adapt_imports_no_models() -> None:
    codes, imported = run([["adapt", "--help-all"]])
    assert codes == [0]
    assert set(imported) <= {"torch", "pydantic"}
