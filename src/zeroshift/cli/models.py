"""`zeroshift models`: the checkpoints that have a name."""

from collections.abc import Sequence
from typing import Annotated

import tyro

from zeroshift.cli.arguments import call
from zeroshift.errors import ZeroshiftError

__all__ = ["main", "models"]


def models(name: Annotated[str, tyro.conf.Positional] = "") -> None:
    """List the known checkpoints, or those whose name or architecture begins with NAME.

    They are downloaded from their authors' addresses when they are first used, and kept in ~/.cache/zeroshift (or
    $ZEROSHIFT_CACHE). Their licences are their authors'; read them before you publish what you made.

    Examples:
      zeroshift models
      zeroshift models afhq
      zeroshift adapt --generator afhqdog --source photo --target fox

    Args:
        name: The beginning of a name or an architecture.
    """
    from rich.console import Console
    from rich.table import Table

    from zeroshift.generators.checkpoints.catalogue import known_checkpoints

    known = [one for one in known_checkpoints() if one.name.startswith(name) or one.architecture.startswith(name)]
    if not known:
        raise ZeroshiftError(f"No known checkpoint begins with {name!r}. `zeroshift models` lists them all.")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("name", "architecture", "pixels", "size", "licence", "address"):
        table.add_column(column, justify="right" if column in ("pixels", "size") else "left", no_wrap=True)
    for one in known:
        size = "" if one.size_mb is None else f"{one.size_mb:g} MB"
        table.add_row(one.name, one.architecture, str(one.resolution), size, one.licence, one.address or "embedded")
    Console(highlight=False, width=300).print(table)  # one line each, whatever the terminal: addresses must stay whole


def main(arguments: Sequence[str]) -> None:
    call(models, "models", arguments)
