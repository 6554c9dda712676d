"""The Adapt tab: the form of a run, the queue, and the live view of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.methods.configure import default_config
from zeroshift.methods.registry import METHODS
from zeroshift.studio.engine.form import MAIN, Field, form_fields
from zeroshift.studio.engine.jobs import ProcessJob
from zeroshift.studio.engine.studio import Studio
from zeroshift.studio.pages.common import QUIET, guarded, notify, run_choices, shown
from zeroshift.studio.pages.curves import curves_html, progress_html

__all__ = ["adapt_tab"]

_EVERY = 1.0  # seconds between looks at a run
_SAMPLES = "Preview: source above target"
_TABLE = "Pictures (rows) and the prompts learned from them (columns); a dark diagonal: each prompt fits its picture"
_WORDS = {
    "waiting": "waiting in the queue", "running": "running", "stopping": "stopping after this step",
    "finished": "finished", "stopped": "stopped; Resume continues it", "failed": "failed",
}  # fmt: skip


def adapt_tab(studio: Studio, page: gr.Blocks) -> None:
    """Builds the tab.

    Args:
        page: the page, whose load event finds the runs.
    """
    with gr.Tab("Adapt", id="adapt") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            name, refresh = _form(studio)
        with gr.Column(scale=3, min_width=300):
            run = gr.Dropdown([], label="Run to watch", elem_id="watched-run")
            status = gr.Textbox(label="State", interactive=False, elem_id="run-state", lines=2)
            bar = gr.HTML(elem_id="run-progress")
            with gr.Row():
                stop = gr.Button("Stop", variant="stop", interactive=False)
                resume = gr.Button("Resume", interactive=False)
            preview = gr.Image(
                label=_SAMPLES, format="png", type="pil", interactive=False,
                elem_id="run-preview", alt_text="Samples of the run",
                elem_classes="pictures", buttons=["download", "fullscreen"],
            )  # fmt: skip
            curves = gr.HTML(elem_id="run-curves")
            queue = gr.Dataframe(
                headers=["#", "work", "run", "state"], datatype="str", interactive=False, label="Queue",
                elem_id="queue", type="array",
            )  # fmt: skip
            with gr.Accordion("Output of the command", open=False):
                log = gr.Textbox(show_label=False, label="Output", lines=8, interactive=False, elem_classes="command")
            seen = gr.State("")
            timer = gr.Timer(_EVERY)
    view = [run, status, bar, stop, resume, preview, curves, queue, log, seen]

    @guarded
    def show(chosen: str | None, before: str = "") -> tuple[Any, ...]:
        return _view(studio, chosen, before)

    timer.tick(show, [run, seen], view, **QUIET)
    run.input(show, [run, seen], view, **QUIET)
    refresh.change(lambda new: _view(studio, new or None, listed=False), name, view, **QUIET)
    tab.select(show, [run, seen], view, **QUIET)
    page.load(lambda: _view(studio, None), None, view, **QUIET)

    @guarded
    def stop_run(chosen: str, before: str) -> tuple[Any, ...]:
        job = studio.queue.latest(str(studio.workspace.folder(chosen)))
        if job is not None:
            studio.queue.stop(job)
        return _view(studio, chosen, before)

    @guarded
    def resume_run(chosen: str, before: str) -> tuple[Any, ...]:
        studio.resume(chosen)
        return _view(studio, chosen, before)

    stop.click(stop_run, [run, seen], view, **QUIET)
    resume.click(resume_run, [run, seen], view, **QUIET)


def _form(studio: Studio) -> tuple[gr.State, gr.State]:
    """The form. Returns the name of the run that was started last, and a number that changes with each start."""
    target = gr.Textbox(
        label="Target", info="What the pictures should become, in a few words: zombie, pencil sketch, robot ...",
        elem_id="target", max_length=200,
    )  # fmt: skip
    source = gr.Textbox("photo", label="Source", info="What the generator draws now.", max_length=200)
    generators = studio.workspace.generators()
    generator = gr.Dropdown(generators, value=generators[0][1], label="Generator")
    method = gr.Dropdown(
        **_methods(generators[0][1]), label="Method",
        info="compass: a direction for each picture, from captions. ipl: one from learned prompts. "
        "scaffold: ipl that keeps the layout of each picture. "
        "nada: one direction for all. The others are variants of them.",
    )  # fmt: skip
    generator.input(lambda chosen: gr.update(**_methods(chosen)), generator, method, **QUIET)
    name, started = gr.State(""), gr.State(0)

    @gr.render(inputs=[generator, method], show_progress="hidden")  # type: ignore[untyped-decorator]
    def settings(generator_name: str, method_name: str) -> None:
        try:
            fields = form_fields(generator_name, method_name)
        except ZeroshiftError as error:
            gr.Textbox(str(error), label="This generator cannot be adapted", interactive=False)
            return
        controls = [(field, _control(field, _hint(field, fields))) for field in fields if field.name in MAIN]
        with gr.Accordion("All other settings", open=False):
            gr.Textbox("Every setting of the command line, with its default.", show_label=False, interactive=False)
            for group in dict.fromkeys(field.group for field in fields):
                with gr.Accordion(group.capitalize(), open=False):
                    controls += [
                        (field, _control(field)) for field in fields if field.group == group and field.name not in MAIN
                    ]
        run_name = gr.Textbox(
            label="Name of the run (optional)", info="Empty: made from the generator, the new domain and the method.",
            max_length=100, interactive=True,
        )  # fmt: skip
        start = gr.Button("Start the run", variant="primary", elem_id="run-start")
        # Below the button, which must not move away under the pointer.
        notes = gr.Textbox(label="Before you start", visible=False, interactive=False, elem_id="run-notes", lines=3)
        anyway = gr.Button("Start anyway", visible=False, elem_id="run-start-anyway")
        names = [field.name for field, _ in controls]
        inputs = [target, source, run_name, started, *(control for _, control in controls)]

        def begin(checks: bool, label: str, origin: str, wanted: str, count: int, *values: Any) -> tuple[Any, ...]:
            if not label.strip():
                raise ZeroshiftError('Fill in "Target" at the top: what the pictures should become, such as zombie.')
            chosen = dict(zip(names, values, strict=True))
            config = studio.configure(generator_name, method_name, origin, label, chosen)
            found = studio.check(config) if checks else []
            if found:
                shown = gr.update(value="\n\n".join(found), visible=True)
                return shown, gr.update(visible=True), gr.skip(), gr.skip()
            job = studio.start(config, wanted or "")
            position = studio.queue.waiting.index(job) if job in studio.queue.waiting else 0
            notify("The run has started." if position == 0 else f"The run is number {position + 1} in the queue.")
            return gr.update(visible=False), gr.update(visible=False), Path(job.place).name, count + 1

        @guarded
        def begin_checked(*values: Any) -> tuple[Any, ...]:
            return begin(True, *values)

        @guarded
        def begin_anyway(*values: Any) -> tuple[Any, ...]:
            return begin(False, *values)

        outputs = [notes, anyway, name, started]
        start.click(begin_checked, inputs, outputs, show_progress="minimal", api_visibility="private")
        anyway.click(begin_anyway, inputs, outputs, show_progress="minimal", api_visibility="private")

    return name, started


def _methods(generator: str) -> dict[str, Any]:
    """The choices of methods for a generator, and its default one as the value."""
    try:
        default = default_config(generator).method
    except ZeroshiftError:  # the form then says what is wrong with the generator
        default = AdaptConfig.method
    choices = [(f"{name} (default)" if name == default else name, name) for name in METHODS]
    return {"choices": choices, "value": default}


def _hint(field: Field, fields: Sequence[Field]) -> str:
    """What else there is to know about a main setting."""
    if field.name != "adapt.steps":
        return ""
    before = [one for one in fields if one.name.endswith(".steps") and one.name != field.name]
    texts = [f" Before them: {one.default} steps of another kind (All other settings, {one.group})." for one in before]
    return " With a few, hardly anything changes." + "".join(texts)


def _control(field: Field, hint: str = "") -> Any:
    """The control of a setting; its meaning is the text below the label."""
    shared: dict[str, Any] = {
        "label": field.title[:1].upper() + field.title[1:], "info": field.doc + hint, "interactive": True,
        "elem_id": f"setting-{field.name.replace('.', '-').replace('_', '-')}",
    }  # fmt: skip
    if field.kind == "bool":
        return gr.Checkbox(bool(field.default), **shared)
    if field.kind == "int":
        return gr.Number(int(field.default), precision=0, **shared)
    if field.kind == "choice":
        return gr.Dropdown(list(field.choices), value=str(field.default), **shared)
    return gr.Textbox(str(field.default), max_length=500, **shared)


def _view(studio: Studio, chosen: str | None, before: str = "", *, listed: bool = True) -> tuple[Any, ...]:
    """The live view of a run; nothing, if it is as it was `before`.

    The list is sent only when it has changed, since a list that is drawn again under the pointer loses a click.

    Args:
        listed: whether the list of the page shows `chosen` already. Then it is not sent: a slow answer would undo what
            the user has chosen meanwhile.
    """
    choices = run_choices(studio, finished=False)
    jobs = [(job.title, job.place, job.state) for job in studio.queue.waiting]
    names = [value for _, value in choices]
    if chosen not in names:
        listed = False
        active = [Path(place).name for _, place, _ in jobs if place]
        chosen = next((name for name in [*active, *names] if name in names), None)
    table = [
        [str(number), title, Path(place).name, state] for number, (title, place, state) in enumerate(jobs, start=1)
    ]
    if chosen is None:
        seen = f"{choices!r}\n{jobs!r}"
        empty = (gr.update(choices=[], value=None), "No runs yet. Name a target and start one.", "", gr.update(
            interactive=False), gr.update(interactive=False), None, "", table, "", seen)  # fmt: skip
        return (gr.skip(),) * 10 if seen == before else empty
    run = studio.workspace.run(chosen)
    state, job = studio.state(chosen), studio.queue.latest(str(run.path))
    seen = f"{choices!r}\n{(jobs, chosen, state, studio.watcher.stamp(run))!r}"
    if seen == before:
        return (gr.skip(),) * 10
    listing = gr.update(choices=choices) if listed else gr.update(choices=choices, value=chosen)
    if listed and before.partition("\n")[0] == repr(choices):
        listing = gr.skip()
    progress = studio.watcher.progress(run)
    log = job.output() if isinstance(job, ProcessJob) else ""
    status = _status(state, progress, job.message if job is not None and state == "failed" else "")
    picture = shown(studio, progress.image())
    return (
        listing,
        status,
        progress_html(progress, state),
        gr.update(interactive=state in ("waiting", "running", "stopping")),
        gr.update(interactive=state in ("stopped", "failed")),
        gr.update(value=picture, label=_TABLE if progress.preview_is_table else _SAMPLES),
        curves_html(progress.curves),
        table,
        log,
        seen,
    )


def _status(state: str, progress: Any, message: str) -> str:
    """One or two sentences about a run."""
    sentences = [f"{_WORDS[state].capitalize()}."]
    if message:
        sentences.append(message)
    if progress.stage and state in ("running", "stopping", "stopped"):
        left = progress.seconds_left
        rest = f", about {_duration(left)} left" if left is not None and state == "running" else ""
        part = f" (part {progress.part} of {progress.parts})" if progress.parts > 1 else ""
        of = f" of {progress.steps}" if progress.steps else ""  # unknown for stages of other packages
        sentences.append(f"{progress.stage}{part}: step {progress.step}{of}{rest}.")
    elif state == "running":
        sentences.append("The models are being loaded.")
    return " ".join(sentences)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
