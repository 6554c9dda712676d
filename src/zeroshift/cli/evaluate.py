"""`zeroshift evaluate`: measures finished runs and compares them."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from zeroshift.cli.arguments import call, require_positive, require_seed, tracked, warn_no_truncation
from zeroshift.cli.output import record, show_result, wants_json
from zeroshift.errors import NotFiniteError, ZeroshiftError
from zeroshift.io.atomic import atomic_write
from zeroshift.io.outputs import MARKDOWN_MARK, require_outputs
from zeroshift.training.run_folder import RunFolder

if TYPE_CHECKING:
    from rich.console import Console

    from zeroshift.evaluation.compare import Column, Row
    from zeroshift.evaluation.evaluate import Evaluation

__all__ = ["evaluate", "main"]


def evaluate(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    metrics: tuple[str, ...] = (),
    reference: Path | None = None,
    num: int | None = None,
    seed: int = 0,
    truncation_psi: float | None = None,
    out: Path | None = None,
) -> None:
    """Measure finished runs: quality, diversity, structure, identity, agreement with the text.

    Samples are drawn once and shared by all measures. Results are appended to RUN/metrics-MEASURE.jsonl and shown in
    RUN/report.html. Runs that differ only in their seed form one row with mean and standard deviation over seeds.

    Measures: @MEASURES@. fid, kid, fd and kd compare with many real images of the target domain (--reference), sifid
    and intra-... with the first 10 of them.

    MEASURE:NETWORK uses another feature network, MEASURE:NETWORK:FILE reads its weights from a file, and
    MEASURE:open_clip:MODEL/WEIGHTS uses any model of open_clip. Networks: @NETWORKS@.

    Examples:
      zeroshift evaluate runs/miniature-zombie-compass              # about a minute, without downloads
      zeroshift evaluate runs/disney --metrics fid kid id --reference real/disney
      zeroshift evaluate runs/disney --metrics fd:open_clip:ViT-L-14/openai scs:hed:network-bsds500.pytorch \\
          --reference real/disney --num 1000
      zeroshift evaluate runs/*-seed-* --out table                  table.json and table.md

    docs/evaluation.md explains each measure.

    Args:
        runs: Run folders of `zeroshift adapt`.
        metrics: Measures; default: all that are available.
        reference: Folder of real images of the target domain; default: the true images, if these are known.
        num: Number of samples; default: the generator's number if it has one, or else that of each measure's protocol.
        seed: Seed of the samples. Only runs measured with the same seed are comparable.
        truncation_psi: Truncation of the samples (1: none); default: that of the run.
        out: Path without suffix of a table of all runs: OUT.json and OUT.md.
    """
    from rich.console import Console

    if not runs:
        raise ZeroshiftError("Name at least one run folder, such as: zeroshift evaluate runs/disney")
    if truncation_psi is not None:
        require_positive(truncation_psi=truncation_psi)
    require_seed(seed)
    folders = [RunFolder.read(run) for run in {os.path.realpath(run): run for run in runs}.values()]
    from zeroshift.evaluation.compare import as_json, compare, markdown  # after the checks: takes seconds
    from zeroshift.evaluation.evaluate import References
    from zeroshift.evaluation.evaluate import evaluate as measure
    from zeroshift.evaluation.results import require_writable_results
    from zeroshift.report.page import write_report

    for folder in folders:
        folder.require_generator()
        warn_no_truncation(folder, truncation_psi)
        require_writable_results(folder)
    tables = [] if out is None else [Path(f"{out}{suffix}") for suffix in (".json", ".md")]
    require_outputs(*tables)
    real = None if reference is None else References.from_folder(reference)
    console = Console(highlight=False, quiet=wants_json())
    measured: list[tuple[RunFolder, Evaluation]] = []
    problems: list[str] = []  # told at the end: results are shown even if they cannot be saved
    for folder in folders:
        try:
            evaluation = measure(
                folder,
                metrics or None,
                references=real or References.from_truth(folder.source_config, num, seed),
                num=num,
                seed=seed,
                truncation_psi=truncation_psi,
                track=tracked,
            )
            measured.append((folder, evaluation))
            problems += evaluation.unsaved
            write_report(folder)
        except ZeroshiftError as error:
            diverged = isinstance(error, NotFiniteError) and len(folders) > 1  # does not end a comparison
            if not (measured or diverged):
                raise
            problems.append(f"{folder.path}: {error}" if diverged else str(error))
    if not measured:
        raise ZeroshiftError(" ".join(problems))
    if real is not None:
        console.print(f"Reference images: {len(real)} in {reference}", markup=False, soft_wrap=True)
    _show_results(measured, console)
    columns, rows = compare((folder, evaluation.results) for folder, evaluation in measured)
    if len(folders) > 1:
        _show_comparison(columns, rows, console)
    for table, text in zip(tables, (as_json(columns, rows), markdown(columns, rows) + MARKDOWN_MARK), strict=False):
        with atomic_write(table) as temporary:
            temporary.write_text(text, encoding="utf-8")
        show_result(str(table), tables=[table])
    for folder, found in measured:
        results = [asdict(one) for one in found.results]
        record(runs=[{"run": folder.path, "results": results, "left_out": found.left_out}])
    if problems:
        raise ZeroshiftError(" ".join(dict.fromkeys(problems)))


def _show_results(measured: "list[tuple[RunFolder, Evaluation]]", console: "Console") -> None:
    """Prints a table for each run, then the measures that were left out, grouped by reason."""
    from rich.markup import escape
    from rich.table import Table

    from zeroshift.evaluation.compare import YARDSTICK, left_out_notes, result_table

    for folder, evaluation in measured:
        table = Table(title=escape(str(folder.path)), title_justify="left", box=None, padding=(0, 2, 0, 0))
        columns, rows = result_table(evaluation.results)
        for name in columns:
            right = name in ("value", "source", "truth", "samples")
            table.add_column(name, justify="right" if right else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
    if any(evaluation.results for _, evaluation in measured):
        console.print(YARDSTICK, style="dim", markup=False, soft_wrap=True)
    for note in left_out_notes([evaluation.left_out for _, evaluation in measured]):
        console.print(note, style="dim", markup=False, soft_wrap=True)


def _show_comparison(columns: "list[Column]", rows: "list[Row]", console: "Console") -> None:
    from rich.markup import escape
    from rich.table import Table

    from zeroshift.evaluation.compare import headings, yardsticks

    table = Table(title="Mean ± standard deviation over seeds", title_justify="left")
    table.add_column("runs")
    table.add_column("seeds", justify="right")
    for text in headings(columns):
        table.add_column(escape(text), justify="right")
    for row in rows:
        table.add_row(escape(row.label), str(row.num_seeds), *map(row.cell, columns))
    for label, cells in yardsticks(columns, rows):
        table.add_row(label, "", *cells, style="dim")
    console.print(table)


def main(arguments: Sequence[str]) -> None:
    """Runs `zeroshift evaluate`. The help lists all registered measures and networks, including those of plug-ins."""
    from zeroshift.evaluation.metrics.registry import MEASURES
    from zeroshift.networks.registry import NETWORKS

    call(evaluate, "evaluate", arguments, {"@MEASURES@": ", ".join(MEASURES), "@NETWORKS@": ", ".join(NETWORKS)})
