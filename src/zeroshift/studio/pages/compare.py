"""The Compare tab: runs on the same latents, their measures, and in the miniature world the truth."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from zeroshift.api.drawing import Drawing
from zeroshift.studio.engine.studio import Studio
from zeroshift.studio.pages.common import QUIET, choose_sentence, guarded, items, kept_choices, notify, run_choices

__all__ = ["compare_tab"]

_EVERY = 3.0  # seconds between looks for new results


def compare_tab(studio: Studio, *, measures: bool) -> None:
    """Builds the tab.

    Args:
        measures: whether new measurements can be started.
    """
    with gr.Tab("Compare", id="compare") as tab:
        with gr.Row():
            runs = gr.Dropdown(
                run_choices(studio), multiselect=True, label="Runs", elem_id="compare-runs", scale=3, value=[],
                info="Runs of one generator. Each is a row of pictures of the same people.",
            )  # fmt: skip
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=100)
            number = gr.Slider(2, 8, 5, step=1, label="Pictures in a row")
        gallery = gr.Gallery(
            label="Rows: source, each run, and the truth where it is known", format="png", columns=5,
            object_fit="contain", height="auto", interactive=False, elem_id="compare-gallery",
            elem_classes="pictures", buttons=["download"],
        )  # fmt: skip
        table = gr.Dataframe(
            [], label="Measures", interactive=False, datatype="str", wrap=True, elem_id="measures", type="array"
        )
        note = gr.Textbox(show_label=False, label="About the measures", interactive=False, lines=2)
        measure = gr.Button("Measure the chosen runs", visible=measures, elem_id="measure")
        seen, timer = gr.State(""), gr.Timer(_EVERY, active=measures)
    inputs = [runs, seed, number]

    @guarded
    def draw(names: Sequence[str], first: int | None, count: int) -> Any:
        if not names:
            return gr.update(value=[])
        drawing = Drawing(seed=int(first or 0), samples=tuple(range(int(count))))
        sheet = studio.explorer.draw(names, drawing, truth=True)
        return gr.update(value=items(studio, [one for column in sheet.columns for one in column]), columns=int(count))

    @guarded
    def results(names: Sequence[str], before: str) -> tuple[Any, ...]:
        found = studio.measures(names or [])
        text = found.note or ("No measures of these runs yet." if names else choose_sentence(studio))
        waiting = studio.queue.waiting
        number = sum(job.kind == "evaluate" for job in waiting)
        if number:
            text = f"{number} measurements are in the queue, of some minutes each. Now: {waiting[0].title}.\n{text}"
        now = repr((found, text))
        if now == before:
            return gr.skip(), gr.skip(), gr.skip()
        head = found.head or ["measure"]
        widths = ["30%", *[f"{70 // (len(head) - 1)}%"] * (len(head) - 1)] if len(head) > 1 else None
        return gr.update(value=found.rows, headers=head, column_widths=widths), text, now

    @guarded
    def start(names: Sequence[str]) -> None:
        jobs = studio.measure(names or [])
        notify(f"{len(jobs)} measurements are in the queue (see Adapt). The table shows them when they end.")

    gr.on([seed.input, number.input], draw, inputs, gallery, trigger_mode="always_last", **QUIET)
    runs.change(draw, inputs, gallery, **QUIET).then(results, [runs, seen], [table, note, seen], **QUIET)
    measure.click(start, runs, None, **QUIET)
    timer.tick(results, [runs, seen], [table, note, seen], **QUIET)
    tab.select(lambda names: kept_choices(studio, names), runs, runs, **QUIET)
