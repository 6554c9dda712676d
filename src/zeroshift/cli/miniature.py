"""`zeroshift miniature`: the functions of `zeroshift.miniature.commands` as subcommands."""

from collections.abc import Callable, Sequence

import tyro

from zeroshift.cli.arguments import call
from zeroshift.errors import ZeroshiftError

__all__ = ["main"]

DESCRIPTION = """The embedded miniature world: rendered portraits with a known truth, and small models trained on them.

Examples:
  zeroshift miniature sheet --domains zombie "pencil sketch"
  zeroshift miniature photos --domain zombie --num 1000 --out zombies
  zeroshift miniature COMMAND --help"""
TRAIN_DESCRIPTION = """Train one of the shipped models with its recipe (for maintainers).

At the end the result REPLACES the shipped model in the installed package, unless --weights names another place.

Examples:
  zeroshift miniature train generator --out training/generator --weights training/generator.safetensors
  zeroshift miniature train MODEL --help"""


def main(arguments: Sequence[str]) -> None:
    """Each function is a subcommand; a function named `train_x_y` is called as `train x-y`."""
    from zeroshift.miniature import commands

    functions: dict[str, Callable[..., object]] = {
        name.replace("_", "-"): getattr(commands, name) for name in commands.__all__
    }
    recipes = {name.removeprefix("train-"): f for name, f in functions.items() if name.startswith("train-")}
    others = {name: f for name, f in functions.items() if not name.startswith("train-")}

    def train() -> None:
        """Train one of the shipped models with its recipe (for maintainers)."""
        raise ZeroshiftError(f"Name the model to train: {', '.join(recipes)}.")

    if arguments[:1] == ["train"] and len(arguments) > 1:
        _run("miniature train", recipes, arguments[1:], TRAIN_DESCRIPTION)
    else:
        _run("miniature", {**others, "train": train}, arguments, DESCRIPTION)


def _run(prefix: str, table: dict[str, Callable[..., object]], arguments: Sequence[str], description: str) -> None:
    """Runs one subcommand, or lists all of them."""
    if arguments and arguments[0] in table:
        call(table[arguments[0]], f"{prefix} {arguments[0]}", arguments[1:])
    else:
        tyro.extras.subcommand_cli_from_dict(
            table, prog=f"zeroshift {prefix}", description=description, args=list(arguments)
        )
