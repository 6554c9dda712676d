"""`zeroshift export`: the adapted generator for other programs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from zeroshift.cli.arguments import call
from zeroshift.training.run_folder import RunFolder

__all__ = ["export", "main"]

NAMES = {"safetensors": "export.safetensors", "rosinality-pt": "export.pt", "diffusers": "export"}


def export(
    run: Annotated[Path, tyro.conf.Positional],
    format: Literal["safetensors", "rosinality-pt", "diffusers"] = "safetensors",
    out: Path | None = None,
) -> None:
    """Write the adapted generator of a finished run as other programs read it.

    rosinality-pt is the format of the published IPL, NADA, e4e and ReStyle programs; diffusers a folder that its
    DDIMPipeline.from_pretrained opens (LDMPipeline's for latent diffusion).

    Examples:
      zeroshift export runs/disney --format rosinality-pt
      zeroshift export runs/disney --format safetensors --out disney.safetensors

    Args:
        run: A run folder that `zeroshift adapt` made.
        format: The format to write.
        out: The file or folder to write; RUN/export.safetensors, RUN/export.pt or RUN/export if not given.
    """
    from zeroshift.generators.checkpoints.files import export_generator, load_generator

    folder = RunFolder.read(run)
    folder.require_generator()
    out = folder.path / NAMES[format] if out is None else out
    export_generator(load_generator(str(folder.generator_path)), out, format=format)
    print(out)


def main(arguments: Sequence[str]) -> None:
    call(export, "export", arguments)
