"""What the tabs share: messages, choices of runs, pictures for the page, downloads."""

import functools
import html
import io
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import gradio as gr
from PIL import Image

from zeroshift.errors import ZeroshiftError
from zeroshift.studio.engine.explorer import Picture, to_png
from zeroshift.studio.engine.studio import Studio

__all__ = [
    "QUIET", "alert", "choose_sentence", "command_box", "download", "enlarged", "guarded", "items", "kept_choices",
    "latest_choice", "notify", "run_choices", "session_key", "shown",
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
    if kept and kept == chosen:
        return gr.update(choices=choices)  # no value: the user may have chosen others meanwhile
    return gr.update(choices=choices, value=kept or names[:1])


def choose_sentence(studio: Studio) -> str:
    """What to do where no run is chosen."""
    if studio.workspace.finished_names():
        return "Choose one or more runs."
    return "There are no finished runs yet. Start one in the Adapt tab."


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


def shown(studio: Studio, image: Image.Image | None) -> str | None:
    """The path of an image for the page. Gradio would write the file of an equal image again while it is read."""
    if image is None:
        return None
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return studio.files.put(buffer.getvalue(), "image.png")


def download(studio: Studio, picture: Picture, name: str) -> str:
    """The path of a picture with its settings, for the download button."""
    plain = re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-")[:60]
    return studio.files.put(to_png(picture), f"{plain or 'picture'}.png")


def items(studio: Studio, pictures: Sequence[Picture]) -> list[tuple[str, str]]:
    """Pictures for a gallery."""
    return [(studio.files.put(to_png(picture), "image.png"), picture.label) for picture in pictures]
