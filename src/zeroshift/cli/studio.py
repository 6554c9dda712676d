"""`zeroshift studio`: the web interface."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from zeroshift.cli.allocator import share_arenas
from zeroshift.cli.arguments import call
from zeroshift.errors import ZeroshiftError
from zeroshift.training.run_folder import RunFolder

__all__ = ["main", "studio"]


def studio(
    shared: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(name="run")] = (),
    runs: Path = Path("runs"),
    models: tuple[Path, ...] = (),
    host: str = "127.0.0.1",
    port: int = 0,
    password: str = "",
    browser: bool = True,
    share_folder: Path | None = None,
) -> None:
    """Open the studio in the browser: explore runs, adapt generators, translate photos, compare, share.

    It listens on this machine only. Adaptations run in processes of their own, one after another: closing the page
    does not stop them. Ctrl-C stops the running one after a checkpoint; "Resume" continues it in the next studio.

    Examples:
      zeroshift studio
      zeroshift studio --runs experiments --models checkpoints    # offers the generator files in that folder
      zeroshift studio --host 0.0.0.0 --password WORD --no-browser
      zeroshift studio runs/zombie --share-folder space           # writes a Hugging Face Space, opens nothing

    Args:
        shared: With --share-folder: the runs that the Space shows.
        runs: Folder of the runs. Nothing outside this folder and those of --models is read or written.
        models: Folders of generator and encoder files that runs may use.
        host: Address to listen on. Others than 127.0.0.1 can be reached from the network and need --password.
        port: Port to listen on. 0: the first free one from 7860 on.
        password: Password of the user "studio". Default: the environment variable ZEROSHIFT_STUDIO_PASSWORD.
        browser: Open the browser.
        share_folder: Write a folder for a Hugging Face Space with the runs, and end.
    """
    missing = [name for name in ("gradio",) if importlib.util.find_spec(name) is None]
    if missing:
        raise ZeroshiftError("The studio needs packages that are not installed: pip install 'zeroshift[studio]'.")
    if shared and share_folder is None:
        raise ZeroshiftError("Runs are named only with --share-folder. The studio finds those in the folder --runs.")
    if share_folder is not None:
        folders = [RunFolder.read(run) for run in shared]
        from zeroshift.studio.engine.space import write_space  # after the check: takes seconds

        files = write_space(folders, share_folder)
        print(f"{share_folder}: {', '.join(file.name for file in files)}")
        print(f"Try it:    python {share_folder / 'app.py'}")
        print(f"Upload it: hf upload OWNER/NAME {share_folder} --repo-type space")
        return
    print("The studio starts ...", flush=True)  # its imports take seconds
    _share_processor()
    share_arenas()
    from zeroshift.studio.engine.studio import opened_studio
    from zeroshift.studio.pages.app import serve

    with opened_studio(runs, models) as opened:
        word = password or os.environ.get("ZEROSHIFT_STUDIO_PASSWORD", "")
        serve(opened, host=host, port=port, password=word, browser=browser)


def _share_processor() -> None:
    """Leaves half of the processor to the adaptation and the browser. Pictures of small generators need one core."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // 2))


def main(arguments: Sequence[str]) -> None:
    call(studio, "studio", arguments)
