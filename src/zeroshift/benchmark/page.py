"""The page of a benchmark on any generator: Markdown with pictures, and the tables as JSON, CSV and LaTeX."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from torch import Tensor

from zeroshift.benchmark.exports import csv_table, latex_table
from zeroshift.benchmark.measures import Metric, Records, compare_variants
from zeroshift.benchmark.plan import BOUNDS, DomainPair, GeneratorPlan
from zeroshift.benchmark.provenance import slug
from zeroshift.benchmark.statistics import Difference
from zeroshift.benchmark.tables import comparison_table, legend, mean_table, packed_note, target_table
from zeroshift.benchmark.trials import NUM_SHOWN, finished_records, read_pictures
from zeroshift.evaluation.compare import left_out_notes
from zeroshift.evaluation.metrics.registry import MEASURES
from zeroshift.io.atomic import atomic_write
from zeroshift.io.images import labeled_rows, save_png
from zeroshift.io.outputs import MARKDOWN_MARK

__all__ = ["columns", "page_files", "page_text", "picture_path", "summary_text", "with_bounds", "write_page"]

_SUFFIXES = (".md", ".json", ".csv", ".tex")
_COST = (
    Metric("seconds", "seconds", 0, 0, "time of all steps of the adaptation"),
    Metric("memory", "MiB", 0, 0, "peak memory of the process that adapted"),
    Metric("gpu_memory", "GPU MiB", 0, 0, "peak memory of PyTorch on the GPU"),
)
_BOUNDS = {
    "source": "`source` is the unadapted generator. Measures that compare with it, such as scs and id, are 1 there.",
    "truth": "`truth` is a renderer's true images of the same samples: what a perfect method would score.",
}


def page_files(plan: GeneratorPlan, page: Path) -> list[Path]:
    """The files that `write_page` writes."""
    return [*(page.with_suffix(suffix) for suffix in _SUFFIXES), *(picture_path(page, pair) for pair in plan.pairs)]


def picture_path(page: Path, pair: DomainPair) -> Path:
    """The image of a target."""
    return page.with_suffix("") / f"{slug(pair.name)}.png"


def with_bounds(records: Records) -> list[Mapping[str, Any]]:
    """The records, and one of the source and of the truth per target, from the first record that has their values."""
    added: dict[tuple[str, str], dict[str, Any]] = {}
    for record in records:
        for side in BOUNDS:
            if record[side]:
                bound = {"variant": side, "target": record["target"], "seed": record["seed"]}
                added.setdefault((side, record["target"]), {**bound, "measures": record[side]})
    return [*records, *added.values()]


def columns(records: Records) -> list[Metric]:
    """The measures of the records in the order of `MEASURES`, then time and memory."""
    first: dict[tuple[str, str], Mapping[str, Any]] = {}
    for record in records:
        for result in record["results"]:
            first.setdefault((result["measure"], result["network"]), result)
    order = list(MEASURES)
    keys = sorted(first, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), key))
    metrics = [_column(records, measure, network, first[measure, network], keys) for measure, network in keys]
    return [*metrics, *(m for m in _COST if any(m.key in record for record in records))]


def _column(
    records: Records, measure: str, network: str, result: Mapping[str, Any], keys: Sequence[tuple[str, str]]
) -> Metric:
    key = f"{measure}:{network}"
    alone = sum(name == measure for name, _ in keys) == 1
    doc = (MEASURES[measure].protocol.__doc__ if measure in MEASURES else "") or ""
    source = [record["source"][key] for record in records if key in record["source"]]
    compared = f"; the unadapted source has {mean(source):.3f}" if source else ""
    numbers = f"{result['samples']:,} samples" + (f", {result['references']:,} references" * bool(result["references"]))
    meaning = f"{doc.strip().splitlines()[0].rstrip('.') if doc.strip() else measure}; {network}, {numbers}{compared}"
    return Metric(key, measure if alone else key, 1 if result["better"] == "higher" else -1, 3, meaning)


def write_page(plan: GeneratorPlan, page: Path, baseline: str, conclusion: str = "") -> None:
    """Writes PAGE (Markdown), the tables next to it, and an image per target in a folder named after the page.

    Args: see `page_text`.
    """
    records = finished_records(plan)
    rows, measures = with_bounds(records), columns(records)
    names, targets = _row_names(plan, rows), [pair.name for pair in plan.pairs]
    compared = {name: {key: vars(each) for key, each in by.items()} for name, by in _compared(plan, rows, baseline)}
    data = {"command": _command(plan, baseline), "baseline": baseline, "compared": compared, "trials": records}
    contents = {
        page: page_text(plan, page, baseline, conclusion) + MARKDOWN_MARK,
        page.with_suffix(".json"): json.dumps(data, indent=1) + "\n",
        page.with_suffix(".csv"): csv_table(records),
        page.with_suffix(".tex"): latex_table(rows, names, targets, [m for m in measures if m.better]),
    }
    for pair in plan.pairs:
        _save_picture(plan, pair, picture_path(page, pair))
    for path, content in contents.items():
        with atomic_write(path) as temporary:
            temporary.write_text(content, encoding="utf-8")


def _save_picture(plan: GeneratorPlan, pair: DomainPair, path: Path) -> None:
    """Draws the same samples by the source and by every variant with the first seed."""
    images: dict[str, Tensor] = {}
    for trial in plan.trials():
        if trial.pair == pair and trial.seed == plan.seeds[0] and (sides := read_pictures(plan, trial)):
            images.setdefault("source", sides[0])
            images[trial.variant.name] = sides[1]
    if images:
        save_png(path, labeled_rows(images))


def page_text(plan: GeneratorPlan, page: Path, baseline: str, conclusion: str = "") -> str:
    """The page in Markdown.

    Args:
        plan: the benchmark. Trials that have not run are left out, and the page states their number.
        page: the Markdown file.
        baseline: name of the variant with which all others are compared.
        conclusion: Markdown for the beginning of the page. A title ("# ...") in it replaces the default title.
    """
    records = finished_records(plan)
    rows, measures = with_bounds(records), columns(records)
    names = _row_names(plan, rows)
    generators = ", ".join(dict.fromkeys(Path(pair.generator).name for pair in plan.pairs))
    parts = [] if conclusion.startswith("# ") else [f"# Benchmark on {generators}"]
    parts += [conclusion.strip()] if conclusion else []
    parts += _introduction(plan, records, names, baseline)
    parts += _tables(plan, records, baseline)
    deviation = "Means over seeds ± standard deviation." if len(plan.seeds) > 1 else "One seed."
    parts += ["## By target", f"{deviation} Images show the first seed and the same {NUM_SHOWN} samples in each row."]
    for pair in plan.pairs:
        picture = picture_path(page, pair)
        parts += [f"### {pair.name}", f"![{pair.name}: source, methods]({picture.parent.name}/{picture.name})"]
        parts += [target_table(rows, names, pair.name, measures)]
    return "\n\n".join(parts) + "\n"


def summary_text(plan: GeneratorPlan, baseline: str) -> str:
    """The tables over all targets in Markdown, without pictures, for notebooks."""
    records = finished_records(plan)
    return "\n\n".join([*_tables(plan, records, baseline), *_notes(records)]) + "\n"


def _tables(plan: GeneratorPlan, records: Records, baseline: str) -> list[str]:
    """Means of all variants, and the comparison with the baseline."""
    rows, measures = with_bounds(records), columns(records)
    parts = []
    if records:
        parts += ["## All targets", mean_table(rows, _row_names(plan, rows), measures), legend(measures)]
    if compared := dict(_compared(plan, rows, baseline)):
        parts += [f"## Comparison with {baseline}", comparison_table(compared, baseline, measures)]
    return parts


def _row_names(plan: GeneratorPlan, rows: Records) -> list[str]:
    """The rows of the tables: source, methods, and the truth if it is known."""
    present = {row["variant"] for row in rows}
    return ["source", *(variant.name for variant in plan.variants), *(["truth"] if "truth" in present else [])]


def _compared(plan: GeneratorPlan, rows: Records, baseline: str) -> list[tuple[str, Mapping[str, Difference]]]:
    """Each method that is not the baseline with its comparisons by measure."""
    names = [variant.name for variant in plan.variants if variant.name != baseline]
    measures = columns([row for row in rows if row["variant"] not in BOUNDS])
    by_name = [(name, compare_variants(rows, name, baseline, measures)) for name in names]
    return [(name, by) for name, by in by_name if by]


def _introduction(plan: GeneratorPlan, records: Records, names: Sequence[str], baseline: str) -> list[str]:
    machines = " and ".join(dict.fromkeys(record["machine"] for record in records))
    seeds = f"seed{'s' if len(plan.seeds) > 1 else ''} {', '.join(map(str, plan.seeds))}"
    targets = f"{len(plan.pairs)} target{'s' if len(plan.pairs) > 1 else ''}"
    changes = ", ".join(f"{name} = {value}" for name, value in plan.changes.items())
    preset = f"the preset {plan.preset}" if plan.preset else "the preset of the generator"
    parts = [
        f"Measured{f' on {machines}' if machines else ''} with",
        f"    {_command(plan, baseline)}",
        f"{targets}, {seeds}, {preset}{f' with {changes}' if changes else ''}. All rows show the same "
        f"samples. {' '.join(text for name, text in _BOUNDS.items() if name in names)}",
    ]
    if missing := len(plan.trials()) - len(records):
        parts.append(f"**Not finished: {missing} of {len(plan.trials())} trials.**")
    return [*parts, *packed_note(records), *_notes(records)]


def _notes(records: Records) -> list[str]:
    """A list of the measures that were left out, and of warnings."""
    notes = left_out_notes([record["left_out"] for record in records])
    notes += dict.fromkeys(note for record in records for note in record["notes"])
    return ["\n".join(f"- {note}" for note in notes)] if notes else []


def _command(plan: GeneratorPlan, baseline: str) -> str:
    """The command that repeats the benchmark."""
    generators = list(dict.fromkeys(pair.generator for pair in plan.pairs))
    words: list[object] = ["zeroshift", "benchmark"]
    if len(generators) > 1:
        words += ["--paper"]
    else:
        words += ["--generator", generators[0]]
        words += ["--targets", *(f"{pair.source}:{pair.target}" for pair in plan.pairs)]
    words += ["--methods", *(variant.name for variant in plan.variants), "--seeds", *plan.seeds]
    words += ["--metrics", *plan.metrics] if plan.metrics else []
    words += ["--references", plan.references] if plan.references else []
    words += ["--num", plan.num] if plan.num else []
    words += ["--preset", plan.preset] if plan.preset else []
    words += ["--baseline", baseline]
    if plan.changes:
        words += ["--set", *(f"{name}={json.dumps(value)}" for name, value in plan.changes.items())]
    return shlex.join(map(str, words))
