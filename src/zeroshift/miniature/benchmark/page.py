"""The outcome of a benchmark as one page that a person can read to choose a method: Markdown, JSON, pictures."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from zeroshift.config.settings import AdaptConfig, flat
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.io.atomic import atomic_write
from zeroshift.io.images import labelled_rows, save_png
from zeroshift.miniature.benchmark.bounds import BOUNDS
from zeroshift.miniature.benchmark.measures import (
    MEASURES,
    Measure,
    Records,
    against,
    countable,
    machines,
    means,
    unknown,
)
from zeroshift.miniature.benchmark.statistics import LEAST_TARGETS, Difference
from zeroshift.miniature.benchmark.trials import (
    EXAM_SEED,
    Cell,
    Plan,
    Row,
    finished,
    machine,
    read_cell,
    read_people,
    slug,
)
from zeroshift.miniature.world.domains import KEPT_OUT, parse_domain
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["write_page"]

_PICTURED = 8  # people in a sheet
# What a person chooses a method by.
_CHOSEN_BY = {
    "accuracy": "{:.1%} in the domain",
    "distance": "{:.3f} from the truth",
    "psnr": "PSNR {:.1f}",
    "kept": "{:.2f} of the variance between people left",
    "processor_seconds": "{:.0f} seconds",
}


def write_page(plan: Plan, page: Path, baseline: str, conclusion: str = "") -> None:
    """Writes PAGE (Markdown), PAGE.json with every record, and a sheet a target in the folder PAGE without its suffix.

    Args:
        plan: what was measured; cells that are not done are left out, and said to be missing.
        page: where to.
        baseline: the row that all others are compared with.
        conclusion: Markdown that the page begins with, after its usual title or with one of its own ("# ...").
    """
    cells, command = finished(plan), _command(plan, baseline)
    records = countable(cells)
    folder = page.with_suffix("")
    pictures = {target: _picture(plan, target, folder) for target in plan.targets}
    methods = [row.name for row in _adapted(plan)]
    compared = {row: against(records, row, baseline) for row in methods if row != baseline}
    text = "\n\n".join(
        part
        for part in (
            *([] if conclusion.startswith("# ") else ["# Benchmark in the miniature world"]),
            *([conclusion.strip()] if conclusion else []),
            *(["## In short", _in_short(records, methods, compared, baseline)] if records else []),
            "## What was measured",
            _introduction(plan, cells, command),
            _settings(plan, baseline),
            "## All targets",
            _table(records, [row.name for row in plan.rows]),
            "\n".join(f"- **{m.title}**{_arrow(m)}: {m.meaning}." for m in MEASURES),
            *([f"## Against {baseline}", _comparison(compared, baseline)] if compared else []),
            "## Target by target",
            _how_targets_are_shown(plan),
            *(_target(records, plan, target, f"{folder.name}/{pictures[target].name}") for target in plan.targets),
        )
    )
    details = {row: {key: vars(value) for key, value in by.items()} for row, by in compared.items()}
    data = {"command": command, "baseline": baseline, "compared": details, "cells": cells}
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


def _introduction(plan: Plan, cells: Records, command: str) -> str:
    left = len(plan.cells()) - len(cells)
    changes = ", ".join(f"{name} = {value}" for name, value in plan.changes.items())
    where = machines(cells) or [machine()]
    counted = " (seconds and MiB are of the first alone, and blank for what ran elsewhere)" if len(where) > 1 else ""
    strange = [
        f"The judge takes the truth itself for a {target} in {100 * share:.0f} % only, so *domain* is blank there and "
        "averages the other targets."
        for target, share in unknown(cells).items()
    ]
    return (
        f"Made on {' and on '.join(where)}{counted}, by\n\n    {command}\n\n"
        f"{len(plan.targets)} targets, seeds {', '.join(map(str, plan.seeds))}, {plan.people} people that no training "
        f"saw (the same for all), the preset of each generator{f' with {changes}' if changes else ''}. What an image "
        f"should show is known from the renderer; judge and probe never guided anything. "
        f"{' '.join([*strange, *_bounds(plan)])}"
        f"{f'{chr(10) * 2}**Not done yet: {left} of {len(plan.cells())} adaptations.**' if left else ''}"
    )


def _settings(plan: Plan, baseline: str) -> str:
    """The baseline's settings where they are not the program's own, and the other rows' where they are not those."""
    rows = {row.name: flat(Cell(row, plan.targets[0], plan.seeds[0]).config(plan.changes)) for row in _adapted(plan)}
    plain, usual = flat(AdaptConfig(target="")), rows[baseline]
    lines = []
    for row, given in rows.items():
        other = plain if row == baseline else usual
        told = [
            f"{name} = {value}"
            for name, value in given.items()
            if value != other.get(name) and name not in ("target", "seed", "device", "encoders")
        ]
        start = "" if row == baseline else f"as {baseline}, but "
        lines.append(f"- **{row}**: {start}{', '.join(told) or 'nothing'}.")
    return "Settings:\n\n" + "\n".join(lines)


def _bounds(plan: Plan) -> list[str]:
    """What the rows are that no method made."""
    meanings = {
        "source": "`source` is the generator as it is.",
        "source-diffusion": "`source-diffusion` is the diffusion model as it is; it and those made of it get the "
        "people's photos, invert them with the source, and go on from there.",
        "source-autoencoder": "`source-autoencoder` is the diffusion autoencoder as it is, which gets photos, too.",
        "fitted": f"`fitted` is the source network trained on true target images ({plan.fit_steps} steps), which the "
        "methods never see.",
        "fitted-diffusion": f"`fitted-diffusion` is the diffusion model trained to lead photos of people to their true "
        f"target images ({plan.fit_steps} steps), which the methods never see.",
        "fitted-autoencoder": "`fitted-autoencoder` is the same of the diffusion autoencoder.",
        "truth": "`truth` is the renderer again, with another grain: what a perfect method would get.",
    }
    return [meanings[row.name] for row in plan.rows if row.name in BOUNDS]


def _arrow(measure: Measure) -> str:
    return {1: " (more is better)", -1: " (less is better)", 0: ""}[measure.better]


def _rows(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *body)]
    return "\n".join([lines[0], "| --- " * len(head) + "|", *lines[1:]])


def _table(records: Records, rows: Sequence[str]) -> str:
    """A line a row: means over targets of means over seeds, of the targets that all rows have."""
    body = []
    for row in rows:
        values = means(records, row, _common(records, rows))
        made = sum(record["row"] == row for record in records)
        body.append([row, str(made), *(f"{values[m.key]:.{m.digits}f}" if m.key in values else "" for m in MEASURES)])
    return _rows(["method", "cells", *(m.title for m in MEASURES)], body)


def _common(records: Records, rows: Sequence[str]) -> set[str]:
    """The targets that all those rows have which have any."""
    by_row = [those for row in rows if (those := {r["target"] for r in records if r["row"] == row})]
    return set.intersection(*by_row) if by_row else set()


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
        "everything else is not decided. Each interval stands for itself: if there were no difference at all, of "
        f"these {len(columns) * len(compared)} comparisons about {len(columns) * len(compared) / 20:.0f} would be bold "
        "by chance.\n\n" + _rows(["method", *(m.title for m in columns)], body)
    )


def _in_short(records: Records, methods: Sequence[str], compared: Mapping[str, Any], baseline: str) -> str:
    """A line a method: the numbers to choose by, and what its intervals carry."""
    lines = []
    for row in methods:
        values = means(records, row, _common(records, methods))
        told = [text.format(values[key]) for key, text in _CHOSEN_BY.items() if key in values]
        verdict = f"Against {baseline} — {_verdict(compared[row])}." if row in compared else "The baseline."
        lines.append(f"- **{row}**: {', '.join(told) or 'no target in common with all others'}. {verdict}")
    return "\n".join(lines)


def _verdict(by: Mapping[str, Difference]) -> str:
    """What the intervals carry, in words."""
    found: dict[str, list[str]] = {"better": [], "worse": [], "not decided": []}
    for measure in MEASURES:
        if difference := by.get(measure.key):
            better = difference.mean * measure.better > 0
            found["not decided" if not difference.decided else "better" if better else "worse"].append(measure.title)
    return "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in found.items() if names) or "nothing yet"


def _how_targets_are_shown(plan: Plan) -> str:
    spread = "Means over seeds ± standard deviation." if len(plan.seeds) > 1 else "One seed."
    return f"{spread} Pictures show the first seed, and the same {_PICTURED} people everywhere, a method a row."


def _target(records: Records, plan: Plan, target: str, picture: str) -> str:
    seen = "" if parse_domain(target) not in KEPT_OUT else " (a pair that the encoders never saw)"
    body = []
    for row in plan.rows:
        mine = [r for r in records if r["row"] == row.name and r["target"] == target]
        if mine:
            body.append([row.name, *(_mean_and_spread(m, m.of(mine)) for m in MEASURES)])
    return (
        f"### {target}{seen}\n\n![{target}: source, truth, methods]({picture})\n\n"
        f"{_rows(['method', *(m.title for m in MEASURES)], body)}"
    )


def _mean_and_spread(measure: Measure, values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {stdev(values):.{measure.digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{measure.digits}f}{spread}"


def _picture(plan: Plan, target: str, folder: Path) -> Path:
    """The same people by the source generator, in truth, and by every row at the first seed.

    A picture that is there stays where cells are known by their measures alone.
    """
    path = folder / f"{slug(target)}.png"
    cells = [cell for cell in plan.cells() if cell.target == target and cell.seed == plan.seeds[0]]
    done = [cell for cell in cells if read_cell(plan, cell) is not None]
    drawn = [cell for cell in done if plan.path(cell).with_suffix(".png").exists()]
    if path.exists() and len(drawn) < len(done):
        return path
    latents = sample_latents(EXAM_SEED, range(_PICTURED))
    rows = {"photo": render(latents)} if all(row.generator != "miniature" for row in _adapted(plan)) else {}
    with torch.inference_mode():
        rows = rows or {"source": load_generator("miniature")(latents)}
    rows["truth"] = render(latents, parse_domain(target))
    for cell in drawn:
        if cell.row.name not in rows:
            rows[cell.row.name] = read_people(plan.path(cell).with_suffix(".png"), _PICTURED)
    return save_png(path, labelled_rows(rows))
