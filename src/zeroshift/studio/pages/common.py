"""What the tabs share: messages, choices of runs, pictures for the page, downloads."""

import functools
import html
import re
import secrets
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from PIL import Image

from zeroshift.errors import ZeroshiftError
from zeroshift.studio.engine.explorer import Picture, to_png
from zeroshift.studio.engine.studio import Studio

__all__ = [
    "QUIET", "alert", "clear_downloads", "command_box", "download", "enlarged", "guarded", "items", "kept_choices",
    "latest_choice", "notify", "run_choices", "session_key",
]  # fmt: skip

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Arguments of events that are no functions for programs, and so quick that they show no progress."""
_SHOWN_PIXELS = 256  # smaller pictures are enlarged in the before/after view

Function = TypeVar("Function", bound=Callable[..., Any])


def alert(error: Exception) -> gr.Error:
    """An error as a message on the page: a sentence, never HTML of labels or file names, never a stack trace."""
    if isinstance(error, ZeroshiftError):
        sentence = str(error)
    else:
        traceback.print_exception(error, file=sys.stderr)
        sentence = "This failed for a reason that was not expected. The terminal of the studio shows more."
    return gr.Error(html.escape(sentence), title="Not possible", print_exception=False, duration=15)


def notify(sentence: str) -> None:
    """A short message on the page."""
    gr.Info(html.escape(sentence), title="Studio")


def guarded(function: Function) -> Function:
    """The event handler, whose errors become messages on the page."""

    @functools.wraps(function)
    def handler(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            raise alert(error) from None

    return handler  # type: ignore[return-value]


def session_key(request: gr.Request) -> str:
    """The page that sent an event."""
    return str(request.session_hash or "")


def run_choices(studio: Studio, *, finished: bool = True) -> list[tuple[str, str]]:
    """Runs for a list: (title, name)."""
    return [
        (state.name if state.name == state.target else f"{state.target} ({state.name})", state.name)
        for state in studio.workspace.states()
        if state.finished or not finished
    ]


def kept_choices(studio: Studio, chosen: Sequence[str] | None) -> Any:
    """An update of a list of finished runs: new choices, and the chosen runs that still exist, or else the latest."""
    choices = run_choices(studio)
    names = [name for _, name in choices]
    kept = [name for name in chosen or [] if name in names]
    return gr.update(choices=choices, value=kept or names[:1])


def latest_choice(studio: Studio) -> Any:
    """An update of a list of finished runs that chooses the latest."""
    choices = run_choices(studio)
    return gr.update(choices=choices, value=[name for _, name in choices[:1]])


def enlarged(image: Image.Image) -> Image.Image:
    """A small picture, enlarged for the page by a whole factor; downloads keep the original."""
    factor = max(1, _SHOWN_PIXELS // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)


def command_box() -> gr.Textbox:
    """The field with the command that draws a picture again."""
    with gr.Group():
        box = gr.Textbox(label="The same on the command line", lines=2, interactive=False, elem_classes="command")
        copy = gr.Button("Copy the command", size="sm")
    # The copy button of gradio's own text box takes its label away from screen readers.
    copy.click(None, box, None, js="text => { navigator.clipboard.writeText(text) }", api_visibility="private")
    return box


def download(studio: Studio, key: str, picture: Picture, name: str) -> str:
    """Writes a picture with its settings for the download button, and returns the path."""
    clear_downloads(studio, key)
    folder = _download_folder(studio, key) / secrets.token_hex(4)  # a file that a browser reads is never rewritten
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{re.sub(r'[^A-Za-z0-9-]+', '-', name).strip('-')[:60] or 'picture'}.png"
    file.write_bytes(to_png(picture))
    return str(file)


def items(pictures: Sequence[Picture]) -> list[tuple[Image.Image, str]]:
    """Pictures for a gallery."""
    return [(picture.image, picture.label) for picture in pictures]


def clear_downloads(studio: Studio, key: str) -> None:
    """Removes the pictures that a page has downloaded."""
    shutil.rmtree(_download_folder(studio, key), ignore_errors=True)


def _download_folder(studio: Studio, key: str) -> Path:
    return studio.temporary / "downloads" / (re.sub(r"\W", "", key) or "page")
