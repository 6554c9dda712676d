"""`zeroshift export`: the adapted generator for other programs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..runs import RunFolder
from . import call

__all__ = ["export", "main"]

SUFFIXES = {"safetensors": ".safetensors", "rosinality-pt": ".pt"}


def export(
    run: Annotated[Path, tyro.conf.Positional],
    format: Literal["safetensors", "rosinality-pt"] = "safetensors",
    out: Path | None = None,
) -> None:
    """Write the adapted generator of a finished run as one file that other programs read.

    rosinality-pt is the format of the published IPL, NADA, e4e and ReStyle programs.

    Examples:
      zeroshift export runs/disney --format rosinality-pt
      zeroshift export runs/disney --format safetensors --out disney.safetensors

    Args:
        run: A run folder that `zeroshift adapt` made.
        format: The format to write.
        out: The file to write; RUN/export.pt or RUN/export.safetensors if None.
    """
    from ..generators import export_generator, load_generator

    folder = RunFolder.read(run)
    folder.require_finished()
    out = folder.path / f"export{SUFFIXES[format]}" if out is None else out
    export_generator(load_generator(str(folder.generator_path)), out, format=format)
    print(out)


def main(arguments: Sequence[str]) -> None:
    call(export, "export", arguments)
