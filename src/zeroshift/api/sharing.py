"""Results of runs for others: `zeroshift.export` and `zeroshift.push`."""

import re
from pathlib import Path

from zeroshift.api.runs import Run, open_runs
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.architectures import architecture_of
from zeroshift.generators.checkpoints.files import export_generator, export_suffix, load_generator
from zeroshift.io.hub import upload_folder
from zeroshift.io.outputs import require_outputs, require_writable
from zeroshift.report.card import write_hub_folder
from zeroshift.report.command import command_line

__all__ = ["export", "push"]

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def export(run: Run, format: str = "safetensors", out: str | Path | None = None) -> Path:
    """Writes the adapted generator of a finished run for other programs, and returns the path of the result.

    Args:
        run: a run folder.
        format: see `zeroshift.export_generator`.
        out: the file or folder to write. None: "export" with the suffix of the format, in the run folder.

    Raises:
        ZeroshiftError: if the run is not finished, the format does not fit the generator, or `out` holds files that
            zeroshift did not write.

    Examples:
        >>> export("runs/zombie", "nvidia-pkl", "zombie.pkl").name
        'zombie.pkl'
    """
    (folder,) = open_runs(run)
    folder.require_generator()
    architecture = architecture_of(folder.generator_path)
    suffix = "" if architecture is None else export_suffix(architecture, format)
    out = folder.path / f"export{suffix}" if out is None else Path(out)
    if suffix:
        require_outputs(out)
    else:  # a folder
        require_writable(out)
    export_generator(load_generator(folder.generator_path), out, format=format)
    return out


def push(
    run: Run, repository: str, *, private: bool = False, dry_run: bool = False, out: str | Path | None = None
) -> str | list[Path]:
    """Shares the adapted generator of a finished run on the Hugging Face Hub, with a model card and its pictures.

    Others use it as `zeroshift.load_generator("OWNER/NAME")`. Log in first, with `hf auth login`.

    Args:
        run: a run folder.
        repository: "OWNER/NAME"; created if it does not exist.
        private: whether a new repository is private.
        dry_run: only write the folder.
        out: folder to write before the upload; None: "hub" in the run folder.

    Returns:
        The address of the repository; with `dry_run` the files.

    Raises:
        ZeroshiftError: an invalid name, a run that is not finished, a folder with files of others, or a failed upload.

    Examples:
        >>> files = push("runs/zombie", "me/zombie", dry_run=True)
        >>> "README.md" in {file.name for file in files}
        True
    """
    if not _NAME.fullmatch(repository):
        raise ZeroshiftError(f"{repository!r} is no name of a repository. Write OWNER/NAME, such as me/ffhq-zombie.")
    (folder,) = open_runs(run)
    out = folder.path / "hub" if out is None else Path(out)
    files = write_hub_folder(folder, out, repository, command_line(folder.config, Path("runs") / folder.path.name))
    if dry_run:
        return files
    return upload_folder(out, repository, private=private, message=f"{folder.config.target}, by zeroshift")
