"""report.html: one self-contained page about a run, without scripts or external resources."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, select_autoescape

from zeroshift.evaluation.compare import ARROWS, YARDSTICK, number
from zeroshift.evaluation.truth import load_truth
from zeroshift.generators.checkpoints.catalogue import find_entry
from zeroshift.io.atomic import atomic_write
from zeroshift.io.figures import Figure
from zeroshift.io.images import data_uri, labeled_rows, save_png, to_uint8
from zeroshift.methods.configure import flat
from zeroshift.methods.registry import METHODS, STAGES
from zeroshift.report.charts import HEIGHT, LEFT, RIGHT, WIDTH, charts, layer_shares
from zeroshift.report.command import run_command
from zeroshift.sampling.generate import render_batches
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.run_generators import load_source_and_target

__all__ = ["draw_figures", "result_rows", "write_report"]

_MIN_PIXELS = 128  # smaller images are enlarged in pairs.png


def draw_figures(run: RunFolder, num: int = 8) -> list[Figure]:
    """The same `num` samples from source and adapted generator, and their true target images if these are known.

    Raises:
        ZeroshiftError: if the run is not finished, or a file of it cannot be read.
    """
    config = run.source_config
    source, target = load_source_and_target(run)
    truth = load_truth(find_entry(config.generator))
    figures = truth.figures(config, source, target, num) if truth else None
    if figures is not None:
        return figures
    latents = source.sample_latents(config.seed, range(num))
    batches = render_batches(
        [source, target], latents, truncation_psi=config.truncation_psi, class_index=config.class_index
    )
    before, after = (torch.cat(images) for images in zip(*batches, strict=True))
    figures = [Figure(config.source, "source generator", before), Figure(config.target, "adapted generator", after)]
    true_images = truth.images(config.target, latents) if truth else None
    return figures if true_images is None else [*figures, Figure("truth", "true images", true_images.cpu())]


def write_report(run: RunFolder | str | Path, command: str | None = None) -> None:
    """Writes RUN/pairs.png and RUN/report.html.

    Args:
        run: a finished run, or its folder.
        command: the command that repeats the run, shown in the report. Default: that of its settings.

    Raises:
        ZeroshiftError: if the run is not finished, or a file cannot be read or written.

    Examples:
        >>> write_report("runs/zombie")
    """
    run = run if isinstance(run, RunFolder) else RunFolder.read(run)
    figures = draw_figures(run)
    scale = max(1, _MIN_PIXELS // figures[0].images.shape[-1])
    save_png(run.pairs_path, labeled_rows({figure.label: figure.images for figure in figures}, scale))
    records = run.records()
    environment = Environment(
        loader=PackageLoader("zeroshift.report"), autoescape=select_autoescape(), trim_blocks=True
    )
    page = environment.get_template("report.html").render(
        config=run.config,
        figures=[
            {"label": figure.label, "note": figure.note, "images": [data_uri(one) for one in to_uint8(figure.images)]}
            for figure in figures
        ],
        stages=_stages(records, run.config.method),
        layers=layer_shares(records),
        results=result_rows(run),
        yardstick=YARDSTICK,
        settings=_settings(run),
        command=run_command(run) if command is None else command,
        version=version("zeroshift"),
        chart={"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT},
    )
    with atomic_write(run.report_path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _stages(records: Sequence[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    """The stages of metrics.jsonl in order of first appearance, with title, steps, charts and seconds."""
    stages = []
    for name in dict.fromkeys(record["stage"] for record in records):
        logged = [record for record in records if record["stage"] == name]
        seconds = [record["seconds"] for record in logged if "seconds" in record]
        meanings = {**METHODS[method].curves, **(STAGES[name].curves if name in STAGES else {})}
        stages.append(
            {
                "title": _title(name),
                "steps": len(logged),
                "charts": charts(logged, meanings),
                "seconds": sum(seconds) if seconds else None,
            }
        )
    return stages


def _title(stage: str) -> str:
    """The registered title of a stage, or else its name with a capital letter."""
    title = STAGES[stage].title if stage in STAGES else ""
    return title or stage[:1].upper() + stage[1:]


def _settings(run: RunFolder) -> list[tuple[str, list[tuple[str, str]]]]:
    """The settings of config.json in groups, as JSON strings, and what the run was made with."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, value in flat(run.config).items():
        group, _, last = name.rpartition(".")
        groups.setdefault(group, []).append((last, json.dumps(value, ensure_ascii=False)))
    made_with = list(run.made_with.items())
    return [*groups.items(), *([("made with", made_with)] if made_with else [])]


def result_rows(run: RunFolder) -> list[dict[str, Any]]:
    """The results of `zeroshift evaluate` so far, as strings."""
    if not any(run.path.glob("metrics-*.jsonl")):
        return []
    from zeroshift.evaluation.evaluate import read_results

    return [
        {
            **asdict(result),
            "arrow": ARROWS[result.better],
            **{
                name: "–" if value is None else number(value)
                for name, value in (
                    ("value", result.value),
                    ("source_value", result.source_value),
                    ("truth_value", result.truth_value),
                )
            },
            "spread": "" if result.spread is None else f" ± {number(result.spread)}",
        }
        for result in read_results(run)
    ]
