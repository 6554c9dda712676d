"""The Photo tab: a photo is received, cut, inverted, and shown in the domains of runs."""

import html
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from zeroshift.errors import ZeroshiftError
from zeroshift.studio.engine.jobs import ENDED, FunctionJob
from zeroshift.studio.engine.photos import MAX_BYTES
from zeroshift.studio.engine.sessions import Session
from zeroshift.studio.engine.studio import Studio
from zeroshift.studio.pages.common import (
    QUIET,
    alert,
    choose_sentence,
    command_box,
    download,
    enlarged,
    guarded,
    items,
    kept_choices,
    run_choices,
    session_key,
    shown,
)  # fmt: skip

__all__ = ["photo_tab"]

_EVERY = 0.4  # seconds between looks at the inversion
_MODES = [("The middle", "middle"), ("The face (found automatically)", "face"), ("A square of my choice", "square")]


def photo_tab(studio: Studio) -> None:
    """Builds the tab."""
    with gr.Tab("Your photo", id="photo") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            upload = gr.Image(
                label=f"1. Photo (up to {MAX_BYTES >> 20} MB)",
                sources=["upload", "webcam", "clipboard"], type="filepath", height=200, elem_id="photo-upload",
                buttons=[],
            )  # fmt: skip
            gr.Markdown("The studio forgets the photo when you close this page, and its pictures half an hour later.")
            with gr.Row():
                outline = gr.Image(
                    label="Part that is used", type="pil", format="png", interactive=False, elem_id="photo-outline",
                    buttons=[], min_width=130, alt_text="The photo with a square around the part that is used",
                )  # fmt: skip
                cut = gr.Image(
                    label="Cut out", type="pil", format="png", interactive=False, buttons=[], min_width=130,
                    elem_id="photo-cut", alt_text="The part that is used",
                )  # fmt: skip
            modes = [mode for mode in _MODES if mode[1] != "face" or studio.photos.can_find_faces()]
            mode = gr.Radio(modes, value="middle", label="2. Part of the photo", elem_id="photo-mode")
            with gr.Group(visible=False) as square:
                left = gr.Slider(-20, 100, 0, step=0.5, label="Left edge, % of the width")
                top = gr.Slider(-20, 100, 0, step=0.5, label="Upper edge, % of the height")
                side = gr.Slider(10, 150, 100, step=0.5, label="Size, % of the shorter side")
            runs = gr.Dropdown(
                run_choices(studio),
                value=[],
                multiselect=True,
                label="3. Runs: the domains to show it in",
                elem_id="photo-runs",
            )
            start = gr.Button("Translate the photo", variant="primary", elem_id="photo-start")
            cancel = gr.Button("Stop", visible=False, elem_id="photo-stop")
        with gr.Column(scale=3, min_width=300):
            state = gr.Textbox(
                "Choose a photo first.", label="State", interactive=False, elem_id="photo-state", lines=1
            )
            strength = gr.Slider(0, 1.5, 1, step=0.05, label="Strength", elem_id="photo-strength")
            mixed = gr.Checkbox(False, label="Mix the chosen runs in equal shares")
            slider = gr.ImageSlider(
                label="Photo and result", type="pil", format="png", interactive=False, elem_id="photo-slider",
                buttons=["fullscreen"], max_height=420,
            )  # fmt: skip
            gallery = gr.Gallery(
                label="Results: redrawn by the source generator, then each domain", format="png", columns=4,
                object_fit="contain", height="auto", interactive=False, allow_preview=False, buttons=[],
                elem_id="photo-gallery", elem_classes="pictures",
            )  # fmt: skip
            save = gr.DownloadButton("Download the result with its settings", visible=False, elem_id="photo-download")
            command = command_box()
    views = [outline, cut]
    results = [slider, gallery, save, command]

    def parts(session: Session) -> tuple[str | None, ...]:
        return tuple(shown(studio, view) for view in studio.photos.views(session))

    def session_of(request: gr.Request) -> Session:
        return studio.sessions.get(session_key(request))

    @guarded
    def receive(payload: dict[str, Any] | None, names: Sequence[str], request: gr.Request) -> tuple[Any, ...]:
        if payload is None:
            return (gr.skip(),) * 5
        session = session_of(request)
        studio.photos.receive(session, payload["path"], payload.get("orig_name") or "photo.png")
        chosen = _mode_for(studio, names)
        try:
            studio.photos.align(session, chosen)
        except ZeroshiftError:  # no face: the middle is a start
            chosen = "middle"
        ready = 'Ready. Press "Translate the photo".' if names else choose_sentence(studio)
        return (None, *parts(session), chosen, ready)

    # Without preprocessing: gradio would decode the file and keep another copy of it.
    # A photo that arrives during the event of another one must not be dropped.
    upload.input(
        receive, [upload, runs], [upload, *views, mode, state], preprocess=False, trigger_mode="always_last", **QUIET
    )

    @guarded
    def align(how: str, x: float, y: float, size: float, request: gr.Request) -> tuple[Any, ...]:
        session = session_of(request)
        studio.photos.align(session, how, x, y, size)
        return (*parts(session), 'The part has changed. Press "Translate the photo".')

    @guarded
    def choose_mode(how: str, request: gr.Request) -> tuple[Any, ...]:
        session = session_of(request)
        sliders = [gr.skip()] * 3
        if how == "square":
            sliders = [round(value, 1) for value in studio.photos.square(session)]
        else:
            studio.photos.align(session, how)
        return (gr.update(visible=how == "square"), *sliders, *parts(session))

    mode.input(choose_mode, mode, [square, left, top, side, *views], **QUIET)
    live = {**QUIET, "trigger_mode": "always_last"}
    gr.on([left.input, top.input, side.input], align, [mode, left, top, side], [*views, state], **live)

    def drawn(session: Session, names: Sequence[str], amount: float, mix: bool) -> tuple[Any, ...]:
        shares = [1 / len(names)] * len(names) if mix and len(names) > 1 else None
        pictures = studio.photos.results(session, names, amount, shares)
        number = min(session.result, len(pictures) - 1)
        result = pictures[number]
        file = download(studio, result, f"photo-{result.label}")
        _, photo = studio.photos.views(session)
        after = enlarged(result.image)
        return (
            (shown(studio, photo.resize(after.size)), shown(studio, after)),
            gr.update(value=items(studio, pictures), selected_index=number),
            gr.update(value=file, label=f"Download with its settings: {result.label}", visible=True), result.command,
        )  # fmt: skip

    @guarded
    def redraw(names: Sequence[str], amount: float, mix: bool, request: gr.Request) -> tuple[Any, ...]:
        session = session_of(request)
        found = studio.workspace.finished(names or [])
        if not found or session.photo is None or studio.photos.inverted(session, found) is None:
            return (gr.skip(),) * 4
        return drawn(session, names, amount, mix)

    chosen = [runs, strength, mixed]
    gr.on([strength.input, mixed.input, runs.change], redraw, chosen, results, **live)

    def translate(names: Sequence[str], request: gr.Request) -> Iterator[tuple[Any, ...]]:
        session = session_of(request)
        hidden, subject = gr.update(visible=False), (session.photos, session.align)
        try:
            found = studio.workspace.finished(names or [])
            if not found or studio.photos.inverted(session, found) is None:
                job = studio.photos.invert(session, names or [])
                try:
                    for text, image in _followed(studio, job):
                        if (session.photos, session.align) != subject:  # another photo or part by now
                            yield gr.skip(), hidden, gr.skip()
                            return
                        picture = gr.skip() if image is None else shown(studio, enlarged(image))
                        yield text, gr.update(visible=True), picture
                finally:
                    studio.queue.stop(job)  # also if the page was closed
                if job.state != "done":
                    yield _end(job), hidden, gr.skip()
                    return
            yield "Finished.", hidden, parts(session)[1]
        except Exception as error:
            message = alert(error)
            yield html.unescape(str(message.message)), hidden, gr.skip()
            raise message from None

    @guarded
    def select(
        event: gr.SelectData, names: Sequence[str], amount: float, mix: bool, request: gr.Request
    ) -> tuple[Any, ...]:
        session = session_of(request)
        if session.result == int(event.index):  # the page has marked what is shown
            return (gr.skip(),) * 4
        session.result = int(event.index)
        return redraw(names, amount, mix, request)

    gallery.select(select, chosen, results, **QUIET)

    # The pictures are drawn with the strength that is set when the inversion ends.
    start.click(
        translate, runs, [state, cancel, cut], show_progress="hidden", api_visibility="private",
        concurrency_limit=None, trigger_mode="always_last",  # a click during the work counts after it
    ).then(redraw, chosen, results, **QUIET)  # fmt: skip

    @guarded
    def stop(request: gr.Request) -> None:
        studio.photos.cancel(session_of(request))

    cancel.click(stop, None, None, **QUIET)
    tab.select(lambda names: kept_choices(studio, names), runs, runs, **QUIET)


def _mode_for(studio: Studio, names: Sequence[str]) -> str:
    """How photos for these runs are aligned at first."""
    found = studio.workspace.finished(names or [])
    return studio.photos.default_mode(found[0].source) if found else "middle"


def _followed(studio: Studio, job: FunctionJob) -> Iterator[tuple[str, Any]]:
    """The state of an inversion in words, and its current picture, until it ends."""
    while job.state not in ENDED:
        waiting = studio.queue.waiting
        if job.state == "waiting" and job in waiting:
            yield f"Waiting: {waiting.index(job)} before it in the queue, now {waiting[0].title}.", None
        else:
            step, steps, what = job.progress
            yield f"{what}: step {step} of {steps}." if steps else "The models are being loaded.", job.shown
        studio.queue.wait(job, _EVERY)


def _end(job: FunctionJob) -> str:
    return "Stopped." if job.state == "stopped" else f"Failed. {job.message}"
