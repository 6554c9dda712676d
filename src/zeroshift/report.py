"""report.html: one self-contained page that shows what a run did. No script, nothing loaded from elsewhere."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, select_autoescape
from torch import Tensor

from .comparison import ARROWS, number
from .config import AdaptConfig
from .errors import ZeroshiftError
from .generators.base import Generator
from .images import data_uri, labelled_rows, make_grid, save_png
from .runs import STAGES, RunFolder, atomic_write
from .sampling import load_source_and_target, render_batches

__all__ = ["Curve", "Figure", "curve", "draw_figures", "layer_shares", "people_of", "true_images", "write_report"]

STAGE_TITLES = {"prompts": "Learning a prompt for each image", "adapt": "Adapting the generator"}
_KNOWN_PEOPLE = 81000  # first of the seeds of people shown to miniature diffusion models; no training saw them
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 220, 52, 26, 12  # of a chart, in its own units


@dataclass(frozen=True)
class Curve:
    """A line chart, ready to draw: SVG paths, and ticks as (position, text)."""

    name: str
    path: str
    smooth: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    first: float
    last: float


@dataclass(frozen=True)
class Figure:
    """A row of equally large pictures with what they show."""

    label: str
    note: str
    images: Tensor  # [N, C, H, W] in [-1, 1]


def curve(name: str, steps: Sequence[int], values: Sequence[float], smoothing: float = 0.9) -> Curve:
    """The chart of values over steps, with their bias-corrected exponential moving average as the strong line."""
    smooth, average = [], 0.0
    for i, value in enumerate(values, start=1):
        average = smoothing * average + (1 - smoothing) * value
        smooth.append(average / (1 - smoothing**i))
    low, high, y_marks = _scale(min(values), max(values))
    x_low, x_high, x_marks = _scale(min(steps), max(steps))

    def x(step: float) -> float:
        return LEFT + (step - x_low) / (x_high - x_low) * (WIDTH - LEFT - 12)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    def path(ys: Sequence[float]) -> str:
        return "M" + " L".join(f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, ys, strict=True))

    return Curve(
        name=name,
        path=path(values),
        smooth=path(smooth),
        x_ticks=[(x(mark), f"{mark:g}") for mark in x_marks],
        y_ticks=[(y(mark), f"{mark:g}") for mark in y_marks],
        first=smooth[0],
        last=smooth[-1],
    )


def _scale(low: float, high: float) -> tuple[float, float, list[float]]:
    """The ends of an axis and its round marks (1, 2 or 5 times a power of ten apart) for values from low to high."""
    if high <= low:
        low, high = low - 0.5, low + 0.5
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, last * step, [round(i * step, 12) for i in range(first, last + 1)]


def layer_shares(records: Sequence[dict[str, Any]]) -> list[tuple[str, float]]:
    """(layer, share of the logged steps in which it was trained), from input to output of the generator."""
    logged = [record["layers"] for record in records if record.get("layers")]
    counts = Counter(layer for layers in logged for layer in layers)
    return [(layer, counts[layer] / len(logged)) for layer in sorted(counts, key=_depth)]


def _depth(layer: str) -> tuple[int, str]:
    """Sorts "synthesis.b8.conv0" by its size, then by name."""
    digits = "".join(character for character in layer.split(".")[1] if character.isdigit()) if "." in layer else ""
    return int(digits or 0), layer


def _charts(records: Sequence[dict[str, Any]]) -> list[Curve]:
    """One chart per number that was logged at every step and is finite, the loss first."""
    if not records:
        return []
    names = [name for name, value in records[-1].items() if isinstance(value, int | float) and name not in _NO_CURVE]
    steps = [record["step"] for record in records]
    drawn: dict[str, list[float]] = {}
    for name in sorted(names, key=lambda name: (name != "loss", name)):
        values = [record.get(name, math.nan) for record in records]
        if all(map(math.isfinite, values)) and values not in drawn.values():  # a single term is the loss itself
            drawn[name] = values
    return [curve(name, steps, values) for name, values in drawn.items()]


_NO_CURVE = ("step", "seconds")


def _settings(run: RunFolder) -> list[tuple[str, list[tuple[str, str]]]]:
    """The settings in groups, as texts."""
    groups: dict[str, list[tuple[str, str]]] = {"": []}
    for name, value in asdict(run.config).items():
        if isinstance(value, dict):
            groups[name] = [(key, json.dumps(inner, ensure_ascii=False)) for key, inner in value.items()]
        else:
            groups[""].append((name, json.dumps(value, ensure_ascii=False)))
    return list(groups.items())


def _measured(run: RunFolder) -> list[dict[str, Any]]:
    """What `zeroshift evaluate` has measured so far, ready to be shown."""
    if not any(run.path.glob("metrics-*.jsonl")):
        return []
    from .evaluation import read_results

    return [
        {
            **asdict(result),
            "arrow": ARROWS[result.better],
            "value": "–" if result.value is None else number(result.value),
            "spread": "" if result.spread is None else f" ± {number(result.spread)}",
        }
        for result in read_results(run)
    ]


def draw_figures(run: RunFolder, num: int = 8) -> list[Figure]:
    """The same samples of the run's seed by source and target; in the miniature world also what is true of them.

    The miniature diffusion models' own latents show people whom nobody knows, so they get photos of known ones.

    Raises:
        ZeroshiftError: if the run is not finished, or a file of it cannot be read.
    """
    config = run.config
    source, target = load_source_and_target(run)
    if config.generator in ("miniature-diffusion", "miniature-autoencoder"):
        return _of_known_people(config, source, target, num)
    latents = source.sample_latents(config.seed, range(num))
    batches = render_batches([source, target], latents, truncation=config.truncation, class_index=config.class_index)
    before, after = (torch.cat(images) for images in zip(*batches, strict=True))
    figures = [Figure(config.source, "source generator", before), Figure(config.target, "adapted generator", after)]
    truth = true_images(config, latents.cpu())
    return figures if truth is None else [*figures, Figure("truth", "the renderer's own picture", truth)]


def true_images(config: AdaptConfig, latents: Tensor) -> Tensor | None:
    """What the samples look like in the target domain, if the generator is the embedded one and knows the domain."""
    return people_of(config.target, latents) if config.generator == "miniature" else None


def people_of(target: str, latents: Tensor) -> Tensor | None:
    """The renderer's pictures of people of the miniature world in a domain; None for a label that it has none of."""
    from .miniature.domains import parse_domain
    from .miniature.renderer import render

    try:
        return render(latents, parse_domain(target))
    except ZeroshiftError:
        return None


@torch.inference_mode()
def _of_known_people(config: AdaptConfig, source: Generator, target: Generator, num: int) -> list[Figure]:
    """Photos of people of the miniature world, and what the adapted generator and the renderer make of them."""
    from .miniature.renderer import render, sample_latents

    latents = sample_latents(_KNOWN_PEOPLE + config.seed, range(num))
    photos = render(latents)
    target.set_sampling(replace(config.diffusion, steps=config.diffusion.invert_steps))  # fewer would leave halos
    translated = target.synthesize(source.invert(photos.to(source.device))).cpu()
    figures = [
        Figure(config.source, "photos, which the source generator inverts", photos),
        Figure(config.target, "the adapted generator, from there", translated),
    ]
    truth = people_of(config.target, latents)
    return figures if truth is None else [*figures, Figure("truth", "the renderer's own picture", truth)]


def write_report(run: RunFolder, command: str | None = None) -> None:
    """Draws the samples of a finished run into RUN/pairs.png and writes RUN/report.html.

    Args:
        run: a finished run.
        command: what repeats the run, to be shown.
    Raises:
        ZeroshiftError: if the run is not finished, or a file cannot be read or written.
    """
    figures = draw_figures(run)
    scale = max(1, 128 // figures[0].images.shape[-1])
    save_png(run.pairs_path, labelled_rows({figure.label: figure.images for figure in figures}, scale))
    records = run.records()
    stages = []
    for stage in STAGES:
        mine = [record for record in records if record["stage"] == stage]
        seconds = [record["seconds"] for record in mine if "seconds" in record]
        if mine:
            stages.append(
                {
                    "title": STAGE_TITLES[stage],
                    "steps": len(mine),
                    "charts": _charts(mine),
                    "seconds": sum(seconds) if seconds else None,
                }
            )
    environment = Environment(loader=PackageLoader("zeroshift"), autoescape=select_autoescape(), trim_blocks=True)
    page = environment.get_template("report.html").render(
        config=run.config,
        figures=[
            {"label": figure.label, "note": figure.note, "src": data_uri(make_grid(figure.images, len(figure.images)))}
            for figure in figures
        ],
        stages=stages,
        layers=layer_shares(records),
        results=_measured(run),
        settings=_settings(run),
        command=command,
        version=version("zeroshift"),
        chart={"width": WIDTH, "height": HEIGHT, "left": LEFT, "bottom": BOTTOM, "top": TOP},
    )
    with atomic_write(run.report_path) as temporary:
        temporary.write_text(page, encoding="utf-8")
