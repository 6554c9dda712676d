"""The command line. A command is a module of `zeroshift.commands`, imported when called for; no model work here."""

import difflib
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from .errors import ZeroshiftError
from .runs import disk_errors

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "adapt": "Move a generator to a new domain that a text names.",
    "generate": "Draw samples of a run: source beside target, single pictures and a grid.",
    "interpolate": "Make a film: a walk through latents, from source to target, of one or several targets.",
    "export": "Write the adapted generator in another program's format.",
    "models": "List the known checkpoints: name, resolution, licence, size, address.",
    "miniature": "The embedded world: its pictures, its figures, the recipes of its models.",
}
EXAMPLES = (
    ("zeroshift adapt --target zombie", "the embedded miniature world, no download"),
    ("zeroshift generate runs/miniature-zombie-ipl --num 16", "more pictures of that run"),
    ("zeroshift adapt --generator ffhq --source photo --target sketch", "a published checkpoint, by its name"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code: 0, 1 (something the user can mend), 2 (usage) or 130 (Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    console = Console(stderr=True, highlight=False)
    if arguments[:1] == ["--version"]:
        from importlib.metadata import version

        print(f"zeroshift {version('zeroshift')}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _print_help()
        return 0 if arguments else 2
    name = arguments[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        console.print(f"[red]There is no command {name!r}.[/]{hint} The commands are: {', '.join(COMMANDS)}.")
        return 2
    return _guarded(lambda: importlib.import_module(f".commands.{name}", __package__).main(arguments[1:]), console)


def _guarded(command: Callable[[], None], console: Console) -> int:
    """Runs a command; what the user can mend or has asked for becomes a sentence and an exit code, not a traceback."""
    try:
        with warnings.catch_warnings(), disk_errors("a file"):
            warnings.showwarning = lambda message, category, *_: _show_warning(message, category, console)
            command()
    except ZeroshiftError as error:
        console.print("[bold red]Error:[/]", str(error), markup=True, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("[yellow]Stopped.[/] Run the same command again to resume.")
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SystemExit as stop:  # tyro, after --help or wrong usage
        return stop.code if isinstance(stop.code, int) else 0
    return 0


def _show_warning(message: Warning | str, category: type[Warning], console: Console) -> None:
    """Warnings that are meant for the user are shown; those that libraries exchange with programmers are not."""
    if issubclass(category, UserWarning):
        console.print("[yellow]Warning:[/]", str(message), soft_wrap=True)


def _print_help() -> None:
    console = Console(highlight=False)
    console.print("[bold]zeroshift[/] moves a pretrained image generator to a new visual domain from text alone.\n")
    console.print("Usage: zeroshift COMMAND [OPTIONS]        zeroshift COMMAND --help\n")
    for title, rows in (("Commands", tuple(COMMANDS.items())), ("Examples", EXAMPLES)):
        table = Table(box=None, show_header=False, padding=(0, 2))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        for row in rows:
            table.add_row(*row)
        console.print(f"[bold]{title}[/]")
        console.print(table)
        console.print()


if __name__ == "__main__":
    sys.exit(main())
