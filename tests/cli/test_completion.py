"""Shell completion: the contents of the help pages, and their completion in bash."""

import shutil
import subprocess

import pytest

from zeroshift.cli import completion
from zeroshift.cli.completion import Page, parse_help, script

PAGES = {
    "": Page(("adapt", "miniature"), {"--help": (), "--version": ()}),
    "adapt": Page((), {"--device": ("auto", "cpu"), "--target": ()}),
    "adapt --method": Page(("nada", "air"), {"--target": ()}),
    "adapt --method air": Page((), {"--target": (), "--options.rounds": ()}),
    "miniature": Page(("sheet",), {"--help": ()}),
    "miniature sheet": Page((), {"--num": (), "--out": ()}),
}
HELP = """\
usage: zeroshift export [-h] {one,two} [--format {safetensors,rosinality-pt}] [--names [STR [STR ...]]]

Examples:
  zeroshift adapt --target zombie

╭─ options ───────────────────╮ ╭─ more options ───────────────╮
│ -h, --help   show this help │ │ --adapt.lr FLOAT  Or --other │
│ --format {None,safetensors,rosinality-pt}  See --elsewhere.  │
│ --log, --no-log   Log.      │                                │
╰─────────────────────────────╯ ╰──────────────────────────────╯
"""


def test_a_help_page_gives_subcommands_options_and_choices_but_ignores_prose():
    page = parse_help(HELP)
    assert page.subcommands == ("one", "two")
    assert page.options == {
        "--help": (),
        "--adapt.lr": (),
        "--format": ("safetensors", "rosinality-pt"),
        "--log": (),
        "--no-log": (),
    }


def test_the_help_page_of_a_command_lists_its_options_and_choices():
    page = parse_help(completion._help_text("adapt"))
    assert {"--help", "--out", "--target", "--adapt.steps"} <= page.options.keys()
    assert page.options["--device"] == ("auto", "cpu")


def test_each_method_has_its_own_page(monkeypatch):
    shared = "usage: x\n\n│ --method {nada,air}  How. │\n"
    specific = "│ --options.rounds INT  More. │\n"
    monkeypatch.setattr(completion, "_help_text", lambda *words: shared + (specific if "air" in words else ""))
    pages = dict(completion._read_pages(["adapt"]))
    assert list(pages) == ["", "adapt", "adapt --method", "adapt --method nada", "adapt --method air"]
    assert pages["adapt --method"].subcommands == ("nada", "air")
    assert [name for name, page in pages.items() if "--options.rounds" in page.options] == ["adapt --method air"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([""], ["adapt", "miniature"]),
        (["--"], ["--help", "--version"]),
        (["adapt", "--d"], ["--device"]),
        (["adapt", "--device", ""], ["auto", "cpu"]),
        (["adapt", "--target", "miniature", "--device", "c"], ["cpu"]),
        (["adapt", ""], []),  # completed as file names
        (["adapt", "--target", "x", "--method", ""], ["nada", "air"]),
        (["adapt", "--target", "x", "--method", "air", "--seed", "1", "--o"], ["--options.rounds"]),
        (["miniature", ""], ["sheet"]),
        (["miniature", "sheet", "--"], ["--num", "--out"]),
    ],
)
def test_bash_completes_commands_options_and_choices(words, expected):
    call = 'COMP_WORDS=(zeroshift "$@"); COMP_CWORD=$#; _zeroshift; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", script("bash", PAGES) + call, "bash", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == expected


def test_the_zsh_script_has_the_same_words():
    text = script("zsh", PAGES)
    assert text.startswith("#compdef zeroshift\n")
    assert '" adapt --device") values="auto cpu" ;;' in text
