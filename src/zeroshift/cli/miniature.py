"""`zeroshift miniature`: the commands of the embedded world, as `zeroshift.miniature.commands` exports them."""

from collections.abc import Sequence

from zeroshift.errors import ZeroshiftError

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Each exported function is a subcommand; one named train_X is called as `zeroshift miniature train X`."""
    import tyro

    from zeroshift.miniature import commands

    functions = {name.replace("_", "-"): getattr(commands, name) for name in commands.__all__}
    recipes = {name.removeprefix("train-"): f for name, f in functions.items() if name.startswith("train-")}
    others = {name: f for name, f in functions.items() if not name.startswith("train-")}

    def train() -> None:
        """Train a model of the world by its recipe: `zeroshift miniature train MODEL --help`."""
        raise ZeroshiftError(f"Name the model to train: {', '.join(recipes)}.")

    if arguments[:1] == ["train"] and len(arguments) > 1:
        prog, commands_there, rest = "zeroshift miniature train", recipes, arguments[1:]
    else:
        prog, commands_there, rest = "zeroshift miniature", {**others, "train": train}, arguments
    tyro.extras.subcommand_cli_from_dict(commands_there, prog=prog, args=list(rest))
