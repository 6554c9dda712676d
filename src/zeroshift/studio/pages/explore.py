"""The Explore tab: samples of a generator or of runs, with strength, mixture, style mixing and random walk."""

import secrets
from collections.abc import Sequence
from typing import Any

import gradio as gr

from zeroshift.api.drawing import Drawing
from zeroshift.studio.engine.explorer import Sheet
from zeroshift.studio.engine.studio import Studio
from zeroshift.studio.pages.common import (
    QUIET,
    command_box,
    download,
    enlarged,
    guarded,
    items,
    latest_choice,
    run_choices,
    session_key,
    shown,
)  # fmt: skip

__all__ = ["explore_tab"]

_FRAME = 0.6  # seconds between positions of a walk
_STRIDE = 0.125  # of the way to the next sample
_LIVE = {**QUIET, "trigger_mode": "always_last"}  # of quick changes only the last one is drawn


def explore_tab(studio: Studio, page: gr.Blocks, tabs: gr.Tabs) -> None:
    """Builds the tab.

    Args:
        page: the page, whose load event fills the tab.
        tabs: all tabs; a walk pauses when another one is opened.
    """
    with gr.Tab("Explore", id="explore") as tab, gr.Row():
        with gr.Column(scale=2, min_width=300):
            runs, generator = _run_lists(studio)
            shares = gr.State([])
            with gr.Row():
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=100)
                shuffle = gr.Button("Random seed", min_width=100)
            strength = gr.Slider(
                0, 1.5, 1, step=0.05, label="Strength", info="0: source. 1: target. Above 1: exaggerated."
            )
            mixed = gr.Checkbox(False, label="Mix the chosen runs into one picture", visible=False)
            _share_sliders(studio, runs, mixed, shares)
            psi = gr.Slider(
                0.1, 1.2, 1, step=0.05, label="Truncation", info="Smaller: more typical pictures with less variety."
            )
            number = gr.Slider(1, 8, 4, step=1, label="Number of samples")
            with gr.Accordion("Style mixing", open=False):
                styled = gr.Checkbox(False, label="Take the later layers from another seed")
                style_seed = gr.Number(1, label="Seed of the later layers", precision=0, minimum=0)
                style_layer = gr.Slider(0, 18, 4, step=1, label="First of these layers")
            with gr.Accordion("Random walk", open=False):
                walk_seed = gr.Number(1, label="Walk to seed", precision=0, minimum=0)
                position = gr.Slider(0, 1, 0, step=0.005, label="Position on the way")
                play = gr.Button("Play", elem_id="walk-play")
                timer = gr.Timer(_FRAME, active=False)
        with gr.Column(scale=3, min_width=300, elem_classes="shown-first"):  # on narrow screens
            slider = gr.ImageSlider(
                label="Source and target", type="pil", format="png", interactive=False, elem_id="before-after",
                buttons=["fullscreen"], max_height=420,
            )  # fmt: skip
            gallery = gr.Gallery(
                label="All pictures. Choose one to compare it with its source above.", format="png", columns=4,
                object_fit="contain", height="auto", interactive=False, allow_preview=False,
                elem_id="explore-gallery", elem_classes="pictures", buttons=[],
            )  # fmt: skip
            save = gr.DownloadButton("Download the chosen picture with its settings", elem_id="explore-download")
            command = command_box()
    settings = [
        runs, generator, seed, number, psi, strength, mixed, shares, styled, style_seed, style_layer, walk_seed,
        position,
    ]  # fmt: skip
    one = [slider, command, save]
    outputs = [gallery, *one, style_layer]

    @guarded
    def redraw(request: gr.Request, *values: Any) -> tuple[Any, ...]:
        session = studio.sessions.get(session_key(request))
        sheet = studio.explorer.draw(values[0] or [], _drawing(*values[2:]), generator=values[1] or "")
        if session.sheet is not None:
            session.chosen = _kept_choice(session.sheet, session.chosen, sheet)
        session.sheet = sheet
        columns = len(sheet.columns)
        pictures = gr.update(
            value=items(studio, sheet.pictures), columns=columns if columns > 2 else 4, selected_index=session.chosen
        )
        layer = gr.update(maximum=max(1, sheet.num_styles))
        return (pictures, *_chosen(studio, sheet, session.chosen), layer)

    # `input` events come from the user alone.
    live: list[Any] = [
        number,
        psi,
        strength,
        mixed,
        styled,
        style_seed,
        style_layer,
        walk_seed,
        position,
        generator,
        seed,
    ]
    gr.on([control.input for control in live], redraw, settings, outputs, **_LIVE)
    shares.change(redraw, settings, outputs, **_LIVE)

    @guarded
    def choose_runs(names: Sequence[str]) -> tuple[Any, ...]:
        found = studio.workspace.finished(names or [])
        equal = [round(1 / len(found), 2)] * len(found) if found else []
        several = gr.update(visible=True) if len(found) > 1 else gr.update(visible=False, value=False)
        truncation = found[0].config.truncation_psi if found else 1.0
        return gr.update(visible=not found), truncation, several, equal

    runs.change(choose_runs, runs, [generator, psi, mixed, shares], **QUIET).then(redraw, settings, outputs, **_LIVE)
    shuffle.click(lambda: (secrets.randbelow(10_000), 0), None, [seed, position], **QUIET).then(
        redraw, settings, outputs, **_LIVE
    )

    @guarded
    def select(event: gr.SelectData, request: gr.Request) -> tuple[Any, ...]:
        session = studio.sessions.get(session_key(request))
        session.chosen = int(event.index)  # also for a drawing that is under way
        return (gr.skip(),) * 3 if session.sheet is None else _chosen(studio, session.sheet, session.chosen)

    gallery.select(select, None, one, **QUIET)

    def toggle(label: str) -> tuple[Any, Any]:
        playing = label == "Play"
        return gr.update(value="Pause" if playing else "Play"), gr.Timer(active=playing)

    def advance(goal: int, place: float) -> tuple[Any, ...]:
        place = round(place + _STRIDE, 3)
        return (gr.skip(), gr.skip(), place) if place < 1 else (goal, secrets.randbelow(10_000), 0.0)

    play.click(toggle, play, [play, timer], **QUIET)
    timer.tick(advance, [walk_seed, position], [seed, walk_seed, position], **QUIET).then(
        redraw, settings, outputs, **_LIVE
    )

    def pause(event: gr.SelectData) -> tuple[Any, Any]:
        return (gr.skip(), gr.skip()) if event.value == "Explore" else (gr.update(value="Play"), gr.Timer(active=False))

    tabs.select(pause, None, [play, timer], **QUIET)
    tab.select(lambda: gr.update(choices=run_choices(studio)), None, runs, **QUIET)
    page.load(lambda: latest_choice(studio), None, runs, **QUIET).then(
        choose_runs, runs, [generator, psi, mixed, shares], **QUIET
    ).then(redraw, settings, outputs, **_LIVE)


def _run_lists(studio: Studio) -> tuple[gr.Dropdown, gr.Dropdown]:
    """The lists of runs and of generators; generators that would be downloaded first are left out."""
    choices = run_choices(studio)
    generators = [(title, name) for title, name in studio.workspace.generators() if not title.endswith("download")]
    runs = gr.Dropdown(
        choices, value=[], multiselect=True, label="Runs", elem_id="explore-runs",
        info="Choose several to compare or mix their domains. Without one, the generator alone is shown.",
    )  # fmt: skip
    generator = gr.Dropdown(generators, value=generators[0][1], label="Generator", visible=not choices)
    return runs, generator


def _share_sliders(studio: Studio, runs: gr.Dropdown, mixed: gr.Checkbox, shares: gr.State) -> None:
    """A slider for the share of each run, while they are mixed."""

    @gr.render(inputs=[runs, mixed], show_progress="hidden")  # type: ignore[untyped-decorator]
    def sliders(names: Sequence[str], on: bool) -> None:
        if not on or len(names) < 2:
            return
        made = [
            gr.Slider(
                0, 1, round(1 / len(names), 2), step=0.01, label=f"Share of {run.config.target}", interactive=True
            )
            for run in studio.workspace.finished(names)
        ]
        for each in made:
            each.input(lambda *values: list(values), made, shares, **_LIVE)


def _drawing(
    seed: int | None, number: int, psi: float, strength: float, mixed: bool, shares: Sequence[float], styled: bool,
    style_seed: int | None, style_layer: int, walk_seed: int | None, position: float,
) -> Drawing:  # fmt: skip
    """The drawing that the controls describe; a control that is switched off adds nothing to it."""
    return Drawing(
        seed=int(seed or 0),
        samples=tuple(range(int(number))),
        truncation_psi=psi,
        strength=strength,
        mix=tuple(shares) if mixed and shares else None,
        style_seed=int(style_seed or 0) if styled else None,
        style_layer=int(style_layer) if styled else 0,
        walk_seed=int(walk_seed or 0) if position else None,
        position=position or 0.0,
    )


def _kept_choice(before: Sheet, chosen: int, sheet: Sheet) -> int:
    """The number of the chosen picture in another sheet: the same sample in the same domain, else in the first one."""
    old, new = (len(one.columns) for one in (before, sheet))
    chosen = min(chosen, len(before.pictures) - 1)
    sample = min(chosen // old, len(sheet.pictures) // new - 1)
    labels = [column[0].label for column in sheet.columns]
    label = before.pictures[chosen].label
    column = labels.index(label) if label in labels else min(1, new - 1)
    return sample * new + column


def _chosen(studio: Studio, sheet: Sheet, index: int) -> tuple[Any, ...]:
    """The chosen picture beside its source, its command and its file."""
    pictures, columns = sheet.pictures, len(sheet.columns)
    index = min(max(0, index), len(pictures) - 1)
    picture, source = pictures[index], pictures[index - index % columns]
    # A source that was chosen is shown beside its first target.
    target = pictures[index + 1] if picture is source and columns > 1 else picture
    file = download(studio, picture, f"{picture.label}-{index // columns}")
    sides = tuple(shown(studio, enlarged(side.image)) for side in (source, target))
    return sides, picture.command, file
