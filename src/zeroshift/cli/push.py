"""`zeroshift push`: shares the adapted generator of a run on the Hugging Face Hub."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from zeroshift.cli.arguments import call
from zeroshift.errors import ZeroshiftError
from zeroshift.training.run_folder import RunFolder

__all__ = ["main", "push"]

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def push(
    run: Annotated[Path, tyro.conf.Positional],
    repository: Annotated[str, tyro.conf.Positional],
    private: bool = False,
    dry_run: bool = False,
    out: Path | None = None,
) -> None:
    """Share the adapted generator of a finished run on the Hugging Face Hub, with a model card and its pictures.

    Others then use it as `--generator OWNER/NAME`. Log in first, with `hf auth login`. The card names the license of
    the source generator: check that it lets you share what was made from it. Folders of this machine are left out.

    Examples:
      zeroshift push runs/zombie me/ffhq-zombie --dry-run       # writes the folder, uploads nothing
      zeroshift push runs/zombie me/ffhq-zombie

    Args:
        run: Run folder that `zeroshift adapt` wrote.
        repository: Name on the Hub, as OWNER/NAME. It is created if it does not exist.
        private: Create the repository as a private one.
        dry_run: Write the folder only.
        out: Folder to write before the upload. Default: RUN/hub.
    """
    from zeroshift.io.hub import upload_folder
    from zeroshift.report.card import write_hub_folder
    from zeroshift.report.command import command_line

    if not _NAME.fullmatch(repository):
        raise ZeroshiftError(f"{repository!r} is no name of a repository. Write OWNER/NAME, such as me/ffhq-zombie.")
    folder = RunFolder.read(run)
    out = folder.path / "hub" if out is None else out
    files = write_hub_folder(folder, out, repository, command_line(folder.config, Path("runs") / folder.path.name))
    if dry_run:
        print(f"{out}: {', '.join(file.name for file in files)}")
        return
    print(upload_folder(out, repository, private=private, message=f"{folder.config.target}, by zeroshift"))


def main(arguments: Sequence[str]) -> None:
    call(push, "push", arguments)
