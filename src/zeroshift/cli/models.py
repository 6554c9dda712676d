"""`zeroshift models`: lists the known generators."""

from collections.abc import Sequence
from typing import Annotated

import tyro

from zeroshift.cli.arguments import call
from zeroshift.cli.output import record, wants_json
from zeroshift.errors import ZeroshiftError

__all__ = ["main", "models"]


def models(name: Annotated[str, tyro.conf.Positional] = "", trust: str | None = None) -> None:
    """List the known generators with license, size and address: all, or those whose names begin with NAME.

    A checkpoint is downloaded from its authors' address on first use, to ~/.cache/zeroshift or $ZEROSHIFT_CACHE.
    Read the authors' license before you publish results.

    A run of your own generator (--generator package.module:function) imports that function again whenever the run is
    opened. For somebody else's run, allow this once with --trust, after reading the code.

    Examples:
      zeroshift models
      zeroshift models afhq
      zeroshift adapt --generator afhqdog --source photo --target fox
      zeroshift models --trust my_package.gan:load

    Args:
        name: Beginning of the name of a generator or of a family.
        trust: Function PACKAGE.MODULE:FUNCTION that files may name as the source of their generator; then list nothing.
    """
    if trust is not None:
        _trust(trust)
        return
    from rich.console import Console
    from rich.table import Table

    from zeroshift.generators.checkpoints.catalogue import known_checkpoints

    entries = [one for one in known_checkpoints() if one.name.startswith(name) or one.family.startswith(name)]
    if not entries:
        raise ZeroshiftError(f"No known checkpoint begins with {name!r}. `zeroshift models` lists them all.")
    names = ("name", "family", "resolution", "size_mb", "license", "address", "sha256")
    values = [{name: getattr(entry, name) for name in names} for entry in entries]
    if wants_json():
        record(models=values)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("name", "family", "pixels", "size", "license", "address"):
        table.add_column(column, justify="right" if column in ("pixels", "size") else "left", no_wrap=True)
    for entry in entries:
        size = "" if entry.size_mb is None else f"{entry.size_mb:g} MB"
        address = entry.address or "installed"
        table.add_row(entry.name, entry.family, str(entry.resolution), size, entry.license, address)
    Console(highlight=False, width=300).print(table)  # wide enough to keep addresses on one line


def _trust(factory: str) -> None:
    from zeroshift.generators.module import trust

    trust(factory)
    print(f"Files may now name {factory} as the source of their generator.")


def main(arguments: Sequence[str]) -> None:
    call(models, "models", arguments)
