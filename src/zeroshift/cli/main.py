"""The command line. Each command is a module of `zeroshift.cli`, imported on demand."""

import contextlib
import difflib
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape

from zeroshift.cli import output
from zeroshift.cli.allocator import keep_freed_memory
from zeroshift.core.interrupts import RESUME_HINT, interrupts
from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import disk_errors
from zeroshift.io.download_progress import Progress, set_progress

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "adapt": "Adapt a generator to a domain described by text.",
    "studio": "Open the studio in the browser: explore, adapt, photos, compare, share.",
    "generate": "Generate samples of a run, source next to target.",
    "draw": "Draw pictures of runs: strength, mixture, style mixing.",
    "evaluate": "Measure runs: quality, diversity, identity, structure.",
    "interpolate": "Make a film, from sample to sample or from source to target.",
    "translate": "Translate real images into the domain of a run.",
    "invert": "Invert photos into a generator, for every run adapted from it.",
    "export": "Write the adapted generator for other programs.",
    "push": "Share the adapted generator on the Hugging Face Hub.",
    "models": "List the known generators: license, size, address.",
    "benchmark": "Compare methods on your own generator, or with the truth in the miniature world.",
    "bridge": "Fit what the method compass needs, to captioned images.",
    "miniature": "Draw the miniature world and train its models.",
    "completion": "Print a completion script for bash or zsh.",
}
OPTIONS = {
    "-h, --help": "Explain the command.",
    "--help-all": "Explain it with all its options.",
    "-q, --quiet": "Print results, warnings and errors only.",
    "--json": "Print the results as one JSON object, for scripts.",
}
RESUMABLE = ("adapt", "benchmark", "invert", "miniature", "translate")  # commands that keep finished work
EXAMPLES = (
    ("the miniature world, without a download", "zeroshift adapt --target zombie"),
    ("more samples of that run", "zeroshift generate runs/miniature-zombie-compass --num 64"),
    ("its quality in numbers", "zeroshift evaluate runs/miniature-zombie-compass"),
    ("a published checkpoint", "zeroshift adapt --generator ffhq --target sketch"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit code: 0, 1 (an error that the user can fix), 2 (usage) or 130.

    130 follows Ctrl-C, SIGTERM and SIGHUP. `adapt` then writes a checkpoint first; a second Ctrl-C does not wait for
    it, and a third ends the process at once.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    console = Console(stderr=True, highlight=False)
    if arguments[:1] == ["--version"]:
        from importlib.metadata import version

        print(f"zeroshift {version('zeroshift')}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _print_help()
        return 0 if arguments else 2
    arguments = output.start(arguments)
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        console.print(
            f"[red]There is no command {escape(repr(name))}.[/]{hint} The commands are: {', '.join(COMMANDS)}."
        )
        return 2
    _prepare_process()
    with interrupts(restore=argv is not None):  # a program ends after this, and stays silent until then
        return _guarded(name, lambda: _run(name, arguments[1:]), console)


def _run(name: str, arguments: Sequence[str]) -> None:
    importlib.import_module(f"zeroshift.cli.{name}").main(arguments)
    output.finish(name)


def _prepare_process() -> None:
    """Changes process-wide settings, which the library itself never does."""
    keep_freed_memory()
    set_progress(_download_bar)
    if "" not in sys.path:
        sys.path.append("")  # the current folder, for --generator package.module:function


def _download_bar(name: str) -> contextlib.AbstractContextManager[Progress]:
    """A progress bar on stderr for a download."""
    from zeroshift.cli.progress import download_bar  # rich's bars take 30 ms to import

    return download_bar(name)


def _guarded(name: str, command: Callable[[], None], console: Console) -> int:
    """Runs a command. Turns errors that the user can fix, and interrupts, into a message and an exit code."""
    try:
        with warnings.catch_warnings(), disk_errors():
            warnings.filterwarnings("default", category=UserWarning)
            warnings.showwarning = lambda message, category, *_: _show_warning(message, category, console)
            command()
    except ZeroshiftError as error:
        console.print("[bold red]Error:[/]", escape(str(error)), soft_wrap=True)
        return 1
    except KeyboardInterrupt as stop:
        hint = f" {RESUME_HINT}" if name in RESUMABLE or str(stop) == RESUME_HINT else ""
        console.print(f"[yellow]Stopped.[/]{hint}")
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        sentence = f"{error.strerror or error}: {error.filename or 'a file'}"
        console.print("[bold red]Error:[/]", escape(sentence), soft_wrap=True)
        return 1
    except SystemExit as stop:  # tyro, after --help or wrong usage
        return stop.code if isinstance(stop.code, int) else 0
    return 0


def _show_warning(message: Warning | str, category: type[Warning], console: Console) -> None:
    """Shows warnings for users; hides warnings for developers, such as deprecations in libraries."""
    if issubclass(category, UserWarning):
        console.print("[yellow]Warning:[/]", escape(str(message)), soft_wrap=True)


def _print_help() -> None:
    console = Console(highlight=False)
    console.print("[bold]zeroshift[/] adapts a pretrained image generator to a new domain, from text alone.\n")
    console.print("Usage: zeroshift COMMAND [OPTIONS], zeroshift COMMAND --help\n\n[bold]Commands[/]")
    for name, what in COMMANDS.items():
        console.print(f"  [cyan]{name:<13}[/] {what}")
    console.print("\n[bold]Options of every command[/]")
    for name, what in OPTIONS.items():
        console.print(f"  [cyan]{name:<13}[/] {what}")
    console.print("\n[bold]Examples[/]")
    for what, command in EXAMPLES:
        console.print(f"  [dim]# {what}[/]\n  [cyan]{command}[/]")
