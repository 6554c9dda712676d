"""`zeroshift export`: writes the adapted generator in formats of other programs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from zeroshift.cli.arguments import call
from zeroshift.cli.output import show_result
from zeroshift.errors import ZeroshiftError
from zeroshift.training.run_folder import RunFolder

__all__ = ["main"]


def _formats(arguments: Sequence[str]) -> list[str]:
    """The formats for the run on the command line; empty if there is no such run or it is not finished."""
    for word in arguments:
        try:
            path = RunFolder.read(word).generator_path
            from zeroshift.generators.checkpoints.architectures import architecture_of  # takes seconds

            architecture = architecture_of(path) if path.exists() else None
        except (ZeroshiftError, OSError):
            continue
        from zeroshift.generators.checkpoints.files import export_formats

        return [] if architecture is None else export_formats(architecture)
    return []


def main(arguments: Sequence[str]) -> None:
    formats = _formats(arguments)
    Format: Any = Literal[tuple(formats)] if formats else str

    def command(
        run: Annotated[Path, tyro.conf.Positional],
        format: Format = "safetensors",
        out: Path | None = None,
    ) -> None:
        """Write the adapted generator of a finished run in a format of other programs.

        The formats depend on the family of the generator: safetensors (ours) for all; rosinality-pt for StyleGAN2 (read
        by the published IPL, NADA, e4e and ReStyle programs); nvidia-pkl for StyleGAN2 and StyleGAN3 (read by
        stylegan2-ada-pytorch and stylegan3); onnx and torch-export for StyleGANs and the diffusion autoencoder (folders
        of networks, for onnxruntime and for PyTorch without zeroshift);
        diffusers for diffusion models (a folder for DDIMPipeline.from_pretrained, or LDMPipeline for latent
        diffusion). `zeroshift export RUN --help` lists those of a run.

        Examples:
          zeroshift export runs/disney --format nvidia-pkl --out disney.pkl
          zeroshift export runs/disney --format onnx
          zeroshift export runs/disney --format rosinality-pt
          zeroshift export runs/disney --format safetensors --out disney.safetensors

        Args:
            run: Run folder that `zeroshift adapt` wrote.
            format: Format to write.
            out: File or folder to write. Default: RUN/export with the suffix of the format, such as
                RUN/export.safetensors.
        """
        folder = RunFolder.read(run)
        from zeroshift.api.sharing import export  # after the check: takes seconds

        path = export(folder, format, out)
        show_result(str(path), path=path)

    call(command, "export", arguments)
