"""`zeroshift push`: shares the adapted generator of a run on the Hugging Face Hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from zeroshift.cli.arguments import call
from zeroshift.cli.output import show_result
from zeroshift.training.run_folder import RunFolder

__all__ = ["main", "push"]


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
    folder = RunFolder.read(run)
    from zeroshift.api import sharing  # after the check: takes seconds

    pushed = sharing.push(folder, repository, private=private, dry_run=dry_run, out=out)
    if isinstance(pushed, str):
        show_result(pushed, address=pushed)
    else:
        show_result(
            f"{pushed[0].parent}: {', '.join(file.name for file in pushed)}", folder=pushed[0].parent, files=pushed
        )


def main(arguments: Sequence[str]) -> None:
    call(push, "push", arguments)
