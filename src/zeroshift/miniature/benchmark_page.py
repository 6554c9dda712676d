"""The outcome of a benchmark as one page that a person can read to choose a method: Markdown, JSON, pictures."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from ..generators import load_generator
from ..images import labelled_rows, save_png
from ..runs import atomic_write
from .benchmark import EXAM_SEED, Plan, Row, finished, machine, read_cell, read_people, slug
from .benchmark_bounds import BOUNDS
from .benchmark_statistics import LEAST_TARGETS, Difference, compare
from .domains import KEPT_OUT, parse_domain
from .renderer import render, sample_latents

__all__ = ["MEASURES", "Measure", "differences", "write_page"]

Records = Sequence[Mapping[str, Any]]
_PICTURED = 8  # people in a sheet


@dataclass(frozen=True)
class Measure:
    """A column: where its number stands, which way is better (1 up, -1 down, 0 neither), digits, and what it means."""

    key: str
    title: str
    better: int
    digits: int
    meaning: str

    def of(self, record: Mapping[str, Any]) -> float:
        """Its value in the record of a cell."""
        return record[self.key] if self.key in record else record["measures"][self.key]


MEASURES = (
    Measure("accuracy", "domain", 1, 3, "share that the judge takes for the target, among 84 domains"),
    Measure(
        "distance", "distance", -1, 3, "cosine distance, for the judge, to the true target image of the same person"
    ),
    Measure("map_distance", "maps", -1, 3, "the same in the judge's feature maps (LPIPS without learned weights)"),
    Measure("psnr", "PSNR", 1, 2, "to the same true image, in dB, over all pixels"),
    Measure("fd", "FD", -1, 3, "Fréchet distance to the true images in the judge's embedding"),
    Measure("classes", "classes", 1, 3, "visible class factors that the probe reads rightly"),
    Measure("scalars", "scalars", 1, 3, "visible scalar factors: correlation of what the probe reads with the truth"),
    Measure("kept", "kept", 1, 3, "variance between people that is left where true people differ; 0 is collapse"),
    Measure("diversity", "diversity", 0, 3, "mean distance between different people, relative to the truth's"),
    Measure("processor_seconds", "seconds", -1, 0, "of one processor core, for all stages of the adaptation"),
    Measure("memory", "MiB", -1, 0, "peak memory of its process"),
)


def differences(records: Records, row: str, other: str, measure: Measure) -> list[list[float]]:
    """What `row` has more than `other`, a list a target, an entry a seed that both have."""
    values = {(r["row"], r["target"], r["seed"]): measure.of(r) for r in records}
    paired: dict[str, list[float]] = {}
    for (name, target, seed), value in values.items():
        if name == row and (other, target, seed) in values:
            paired.setdefault(target, []).append(value - values[other, target, seed])
    return list(paired.values())


def write_page(plan: Plan, page: Path, baseline: str) -> None:
    """Writes PAGE (Markdown), PAGE.json with every record, and a sheet a target in the folder PAGE without its suffix.

    Args:
        plan: what was measured; cells that are not done are left out, and said to be missing.
        page: where to.
        baseline: the row that all others are compared with.
    """
    records, command = finished(plan), _command(plan, baseline)
    folder = page.with_suffix("")
    pictures = {target: _picture(plan, target, folder) for target in plan.targets}
    methods = [row.name for row in _adapted(plan)]
    compared = {
        row: {m.key: compare(d) for m in MEASURES if m.better and (d := differences(records, row, baseline, m))}
        for row in methods
        if row != baseline
    }
    text = "\n\n".join(
        part
        for part in (
            "# Benchmark in the miniature world",
            _introduction(plan, records, command),
            "## All targets",
            _table(records, [row.name for row in plan.rows]),
            "\n".join(f"- **{m.title}**{_arrow(m)}: {m.meaning}." for m in MEASURES),
            *([f"## Against {baseline}", _comparison(compared, baseline)] if compared else []),
            "## Target by target",
            *(_target(records, plan, target, f"{folder.name}/{pictures[target].name}") for target in plan.targets),
        )
    )
    details = {row: {key: vars(value) for key, value in by.items()} for row, by in compared.items()}
    data = {"command": command, "baseline": baseline, "compared": details, "cells": records}
    for path, content in ((page, text + "\n"), (page.with_suffix(".json"), json.dumps(data, indent=1) + "\n")):
        with atomic_write(path) as temporary:
            temporary.write_text(content, encoding="utf-8")


def _adapted(plan: Plan) -> list[Row]:
    """The rows that a method made."""
    return [row for row in plan.rows if row.name not in BOUNDS]


def _command(plan: Plan, baseline: str) -> str:
    """What repeats a benchmark."""
    methods = [row.name for row in _adapted(plan)]
    words: list[object] = ["zeroshift", "benchmark", "--methods", *methods, "--targets", *plan.targets]
    words += ["--seeds", *plan.seeds, "--people", plan.people, "--fit-steps", plan.fit_steps, "--baseline", baseline]
    if plan.changes:
        words += ["--set", *(f"{name}={json.dumps(value)}" for name, value in plan.changes.items())]
    return shlex.join(map(str, words))


def _introduction(plan: Plan, records: Records, command: str) -> str:
    left = len(plan.cells()) - len(records)
    changes = ", ".join(f"{name} = {value}" for name, value in plan.changes.items())
    machines = sorted({record["machine"] for record in records if record["row"] not in BOUNDS}) or [machine()]
    return (
        f"Made on {' and on '.join(machines)}, by\n\n    {command}\n\n"
        f"{len(plan.targets)} targets, seeds {', '.join(map(str, plan.seeds))}, {plan.people} people that no training "
        f"saw (the same for all), the preset of each generator{f' with {changes}' if changes else ''}. What an image "
        f"should show is known from the renderer; judge and probe never guided anything. {' '.join(_bounds(plan))}"
        f"{f'{chr(10) * 2}**Not done yet: {left} of {len(plan.cells())} adaptations.**' if left else ''}"
    )


def _bounds(plan: Plan) -> list[str]:
    """What the rows are that no method made."""
    meanings = {
        "source": "`source` is the generator as it is.",
        "source-diffusion": "`source-diffusion` is the diffusion model as it is; it and those made of it get the "
        "people's photos, invert them with the source, and go on from there.",
        "source-autoencoder": "`source-autoencoder` is the diffusion autoencoder as it is, which gets photos, too.",
        "fitted": f"`fitted` is the source network trained on true target images ({plan.fit_steps} steps).",
        "truth": "`truth` is the renderer with another grain.",
    }
    return [meanings[row.name] for row in plan.rows if row.name in BOUNDS]


def _arrow(measure: Measure) -> str:
    return {1: " (more is better)", -1: " (less is better)", 0: ""}[measure.better]


def _rows(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *body)]
    return "\n".join([lines[0], "| --- " * len(head) + "|", *lines[1:]])


def _table(records: Records, rows: Sequence[str]) -> str:
    """A line a row: means over targets of means over seeds, of the targets that all rows have."""
    by_row = {row: {r["target"] for r in records if r["row"] == row} for row in rows}
    common = set.intersection(*by_row.values()) if by_row else set()
    body = []
    for row in rows:
        groups = [[r for r in records if r["row"] == row and r["target"] == target] for target in sorted(common)]
        values = [mean(mean(m.of(r) for r in group) for group in groups) if groups else None for m in MEASURES]
        cells = ["" if v is None else f"{v:.{m.digits}f}" for m, v in zip(MEASURES, values, strict=True)]
        body.append([row, *cells])
    return _rows(["method", *(m.title for m in MEASURES)], body)


def _comparison(compared: Mapping[str, Mapping[str, Difference]], baseline: str) -> str:
    columns = [m for m in MEASURES if m.better]
    body = []
    for row, by in compared.items():
        cells = []
        for measure in columns:
            d, digits = by.get(measure.key), measure.digits
            mark = "**" if d and d.decided else ""
            cells.append(f"{mark}{d.mean:+.{digits}f}{mark} [{d.low:+.{digits}f}, {d.high:+.{digits}f}]" if d else "")
        body.append([row, *cells])
    return (
        f"Mean difference to `{baseline}` at the same target and seed, with the 95 % interval of a bootstrap over "
        f"targets and their seeds. Bold where the interval, of at least {LEAST_TARGETS} targets, excludes zero; "
        "everything else is not decided. Each interval stands for itself: of "
        f"{len(columns) * len(compared)} comparisons, one in twenty would be bold by chance where there is no "
        "difference.\n\n"
        + _rows(["method", *(m.title for m in columns)], body)
        + "\n\n"
        + "\n".join(_sentence(row, by, baseline) for row, by in compared.items())
    )


def _sentence(row: str, by: Mapping[str, Difference], baseline: str) -> str:
    """What the intervals carry, in words."""
    found: dict[str, list[str]] = {"better": [], "worse": [], "not decided": []}
    for measure in MEASURES:
        if difference := by.get(measure.key):
            better = difference.mean * measure.better > 0
            found["not decided" if not difference.decided else "better" if better else "worse"].append(measure.title)
    parts = [f"{verdict}: {', '.join(names)}" for verdict, names in found.items() if names]
    return f"- **{row}** against {baseline} — {'; '.join(parts) or 'nothing to compare yet'}."


def _target(records: Records, plan: Plan, target: str, picture: str) -> str:
    seen = "" if parse_domain(target) not in KEPT_OUT else " (a pair that the encoders never saw)"
    body = []
    for row in plan.rows:
        mine = [r for r in records if r["row"] == row.name and r["target"] == target]
        if mine:
            body.append([row.name, *(_mean_and_spread(m, [m.of(r) for r in mine]) for m in MEASURES)])
    return (
        f"### {target}{seen}\n\n![{target}: source, truth, methods]({picture})\n\n"
        f"{_rows(['method', *(m.title for m in MEASURES)], body)}\n\n"
        "Means over seeds, ± half the range."
    )


def _mean_and_spread(measure: Measure, values: Sequence[float]) -> str:
    spread = f" ± {(max(values) - min(values)) / 2:.{measure.digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{measure.digits}f}{spread}"


def _picture(plan: Plan, target: str, folder: Path) -> Path:
    """The same people by the source generator, in truth, and by every row at the first seed.

    A picture that is there stays where cells are known by their measures alone.
    """
    path = folder / f"{slug(target)}.png"
    cells = [cell for cell in plan.cells() if cell.target == target and cell.seed == plan.seeds[0]]
    done = [cell for cell in cells if read_cell(plan, cell) is not None]
    drawn = [cell for cell in done if cell.path(plan.out).with_suffix(".png").exists()]
    if path.exists() and len(drawn) < len(done):
        return path
    latents = sample_latents(EXAM_SEED, range(_PICTURED))
    rows = {"photo": render(latents)} if all(row.generator != "miniature" for row in _adapted(plan)) else {}
    with torch.inference_mode():
        rows = rows or {"source": load_generator("miniature")(latents)}
    rows["truth"] = render(latents, parse_domain(target))
    for cell in drawn:
        if cell.row.name not in rows:
            rows[cell.row.name] = read_people(cell.path(plan.out).with_suffix(".png"), _PICTURED)
    return save_png(path, labelled_rows(rows))
