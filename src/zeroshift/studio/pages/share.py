"""The Share tab: a folder for a Hugging Face Space, exports, and the commands that publish a run."""

import shlex
from collections.abc import Sequence
from typing import Any

import gradio as gr

from zeroshift.api.sharing import export
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import export_formats
from zeroshift.studio.engine.space import write_space
from zeroshift.studio.engine.studio import Studio
from zeroshift.studio.pages.common import QUIET, choose_sentence, guarded, kept_choices, run_choices

__all__ = ["share_tab"]


def share_tab(studio: Studio) -> None:
    """Builds the tab."""
    with gr.Tab("Share", id="share") as tab:
        gr.Markdown("### A web page for others\nA folder for a Hugging Face Space, or for `python app.py` anywhere.")
        runs = gr.Dropdown(
            run_choices(studio), value=[], multiselect=True, label="Runs on the page", elem_id="share-runs",
            info="All from one source generator. Photos and the settings of your machine are not part of it.",
        )  # fmt: skip
        make = gr.Button("Write the folder", variant="primary", elem_id="share-write")
        written = gr.Textbox(label="Result", interactive=False, lines=6, elem_id="share-result")
        gr.Markdown("### The generator as a file\nFor other programs.")
        with gr.Row():
            run = gr.Dropdown(run_choices(studio), value=None, label="Run", elem_id="export-run")
            format = gr.Dropdown(["safetensors"], value="safetensors", label="Format")
        write = gr.Button("Export", elem_id="export-write")
        exported = gr.Textbox(label="Result", interactive=False, lines=2, elem_id="export-result")
        push = gr.Textbox(
            label="To publish the run on the Hugging Face Hub, on the command line", interactive=False,
            elem_classes="command",
        )  # fmt: skip

    @guarded
    def space(names: Sequence[str]) -> str:
        if not names:
            raise ZeroshiftError(choose_sentence(studio))
        folder = (studio.workspace.runs / f"{names[0]}-space").absolute()
        write_space(studio.workspace.finished(names), folder)
        upload = shlex.join(["hf", "upload", "OWNER/NAME", str(folder), "--repo-type", "space"])
        return (
            f"Written: {folder}\n1. Try it on this machine: python {shlex.quote(str(folder / 'app.py'))}\n"
            "2. Make an account at huggingface.co, log in with: hf auth login\n"
            f"3. Upload it: {upload}\nThe web page is then https://huggingface.co/spaces/OWNER/NAME, for everybody."
        )

    @guarded
    def choose(name: str | None) -> tuple[Any, str]:
        if not name:
            return gr.update(choices=["safetensors"], value="safetensors"), ""
        (found,) = studio.workspace.finished([name])
        formats = export_formats(found.config.family) if found.config.family else ["safetensors"]
        command = shlex.join(["zeroshift", "push", str(found.path), f"OWNER/{name}"])
        return gr.update(choices=formats, value=formats[0]), command

    @guarded
    def save(name: str | None, chosen: str) -> str:
        if not name:
            raise ZeroshiftError(choose_sentence(studio))
        (found,) = studio.workspace.finished([name])
        return f"Written: {export(found, chosen)}"

    def single(chosen: str | None) -> Any:
        choices = run_choices(studio)
        if chosen in [name for _, name in choices]:
            return gr.update(choices=choices)
        return gr.update(choices=choices, value=choices[0][1] if choices else None)

    make.click(space, runs, written, show_progress="minimal", api_visibility="private")
    run.change(choose, run, [format, push], **QUIET)
    write.click(save, [run, format], exported, show_progress="minimal", api_visibility="private")
    tab.select(lambda names: kept_choices(studio, names), runs, runs, **QUIET)
    tab.select(single, run, run, **QUIET)
