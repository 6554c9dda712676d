"""report.html: one self-contained page that shows what a run did. No script, nothing loaded from elsewhere."""

import json
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, select_autoescape

from zeroshift.evaluation.compare import ARROWS, number
from zeroshift.io.atomic import atomic_write
from zeroshift.io.figures import Figure
from zeroshift.io.images import data_uri, labelled_rows, make_grid, save_png
from zeroshift.miniature.truth_figures import _of_known_people, true_images
from zeroshift.report.charts import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, _charts, layer_shares
from zeroshift.sampling.generate import render_batches
from zeroshift.training.run_folder import STAGES, RunFolder
from zeroshift.training.run_generators import load_source_and_target

__all__ = ["draw_figures", "write_report"]

STAGE_TITLES = {"prompts": "Learning a prompt for each image", "adapt": "Adapting the generator"}


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
    from zeroshift.evaluation.evaluate import read_results

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
    batches = render_batches(
        [source, target], latents, truncation_psi=config.truncation_psi, class_index=config.class_index
    )
    before, after = (torch.cat(images) for images in zip(*batches, strict=True))
    figures = [Figure(config.source, "source generator", before), Figure(config.target, "adapted generator", after)]
    truth = true_images(config, latents.cpu())
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
    environment = Environment(
        loader=PackageLoader("zeroshift.report"), autoescape=select_autoescape(), trim_blocks=True
    )
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
