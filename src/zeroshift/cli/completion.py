"""`zeroshift completion`: a shell script that completes commands, options and their choices.

tyro writes completion scripts for single commands (`--tyro-print-completion`); this one covers the whole program. It is
generated from the help pages and offers the commands and options that they list.
"""

import contextlib
import importlib
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from zeroshift.cli.arguments import call
from zeroshift.cli.output import HELP_ALL

__all__ = ["Page", "completion", "main", "parse_help", "script"]

# Both shells run the same `case` statements, which set `values`; they differ in how they pass the words typed so far.
TEMPLATES = {
    "bash": """\
# bash completion for zeroshift, written by `zeroshift completion bash`
_zeroshift() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} command= values= options= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$command ${{COMP_WORDS[i]}}" in
            {commands}) command="$command ${{COMP_WORDS[i]}}" ;;
        esac
    done
{cases}
    COMPREPLY=($(compgen -W "$values" -- "$current"))
}}
complete -o default -F _zeroshift zeroshift
""",
    "zsh": """\
#compdef zeroshift
# zsh completion for zeroshift, written by `zeroshift completion zsh`
_zeroshift() {{
    local current=${{words[CURRENT]}} previous=${{words[CURRENT-1]}} command= values= options= i
    for ((i = 2; i < CURRENT; i++)); do
        case "$command ${{words[i]}}" in
            {commands}) command="$command ${{words[i]}}" ;;
        esac
    done
{cases}
    if [[ -n $values ]]; then
        compadd -- ${{=values}}
    else
        _files
    fi
}}
if [[ $funcstack[1] = _zeroshift ]]; then
    _zeroshift "$@"
else
    compdef _zeroshift zeroshift
fi
""",
}
CASES = """\
    case "$command" in
{words}
    esac
    [[ $current == -* ]] && values=$options
    case "$command $previous" in
{choices}
    esac"""
METHOD = "--method"


@dataclass(frozen=True)
class Page:
    """Contents of a help page: subcommands (or choices of a positional argument), and options with their choices."""

    subcommands: tuple[str, ...] = ()
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def parse_help(text: str) -> Page:
    """Reads a help page that tyro printed."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    usage = text.partition("\n\n")[0]
    while (outside := re.sub(r"\[[^\[\]]*\]", "", usage)) != usage:  # options are in brackets, which can be nested
        usage = outside
    options: dict[str, tuple[str, ...]] = {}
    for cell in re.split("[│\n]", text):  # wide terminals show two boxes side by side
        if declaration := re.match(r" (?:-\w, )?(--\S.*?)(?:  |$)", cell):
            for name in re.findall(r"--[a-z][\w.-]*", declaration[1]):
                options[name] = _choices(declaration[1])
    return Page(_choices(usage), options)


def _choices(text: str) -> tuple[str, ...]:
    """The choices in "{a,b,c}", without None, which denotes a default."""
    listed = re.search(r"\{([\w.,-]+)\}", text)
    return tuple(one for one in listed[1].split(",") if one != "None") if listed else ()


def script(shell: str, pages: Mapping[str, Page]) -> str:
    """The completion script of a shell.

    Args:
        shell: "bash" or "zsh".
        pages: The help page of each command by its words ("generate", "miniature sheet"); "" for the program itself.
    """
    words, choices = [], []
    for command, page in pages.items():
        key = f" {command}" if command else ""  # the shell code puts a space before each word
        words.append(f'        "{key}") values="{" ".join(page.subcommands)}" options="{" ".join(page.options)}" ;;')
        for option, values in page.options.items():
            if values:
                choices.append(f'        "{key} {option}") values="{" ".join(values)}" ;;')
    cases = CASES.format(words="\n".join(words), choices="\n".join(choices))
    return TEMPLATES[shell].format(commands=" | ".join(f'" {command}"' for command in pages if command), cases=cases)


def _read_pages(commands: Sequence[str]) -> Iterator[tuple[str, Page]]:
    """The help pages of the program, its commands, their subcommands, and of each method."""
    yield "", Page(tuple(commands), {"--help": (), "--help-all": (), "--version": (), "--quiet": (), "--json": ()})
    waiting: list[tuple[str, ...]] = [(name,) for name in commands]
    while waiting:
        words = waiting.pop(0)
        page = parse_help(_help_text(*words))
        yield " ".join(words), page
        waiting += [(*words, subcommand) for subcommand in page.subcommands]
        methods = page.options.get(METHOD, ())
        if methods and METHOD not in words:  # each method has its own options, so its name acts as a subcommand
            yield " ".join([*words, METHOD]), Page(methods, page.options)
            waiting += [(*words, METHOD, method) for method in methods]


def _help_text(command: str, *words: str) -> str:
    """What `zeroshift COMMAND WORDS --help-all` prints."""
    module = importlib.import_module(f"zeroshift.cli.{command}")
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # tyro draws boxes only if the encoding has them
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit), _terminal_width(160):
        module.main([*words, HELP_ALL])
    output.seek(0)
    return output.read()


@contextlib.contextmanager
def _terminal_width(columns: int) -> Iterator[None]:
    """Formats help pages for a terminal of this width, so that lists of choices are not wrapped."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def completion(shell: Annotated[Literal["bash", "zsh"], tyro.conf.Positional]) -> None:
    """Print a script that completes commands, options and choices in a shell.

    Examples:
      zeroshift completion bash > ~/.local/share/bash-completion/completions/zeroshift
      zeroshift completion zsh > ~/.zfunc/_zeroshift      # a folder of $fpath

    Open a new shell afterward. See docs/cli.md for details.

    Args:
        shell: The shell that reads the script.
    """
    from zeroshift.cli.main import COMMANDS

    print(script(shell, dict(_read_pages(tuple(COMMANDS)))), end="")


def main(arguments: Sequence[str]) -> None:
    call(completion, "completion", arguments)
