"""`zeroshift benchmark`: methods against each other, and against the truth, in the miniature world."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ..errors import ZeroshiftError
from . import call, tracked

__all__ = ["benchmark", "main"]

# What the sizes stand for where nothing else is said.
SIZES: dict[str, dict[str, Any]] = {
    "full": {"seeds": (0, 1, 2), "people": 512, "fit_steps": 300, "set": ()},
    "smoke": {
        "targets": ("zombie",),
        "seeds": (0,),
        "people": 32,
        "fit_steps": 8,
        "set": ("adapt.steps=6", "prompts.steps=4", "prompts.batch=8", "latents=8"),
    },
}


def benchmark(
    out: Path = Path("runs/benchmark"),
    methods: tuple[str, ...] = (),
    targets: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (),
    size: Literal["full", "smoke"] = "full",
    steps: int | None = None,
    set: tuple[str, ...] = (),
    people: int | None = None,
    fit_steps: int | None = None,
    processes: int | None = None,
    baseline: str | None = None,
    page: Path | None = None,
    conclusion: Path | None = None,
    known: Path | None = None,
    pages_only: bool = False,
) -> None:
    """Compare methods with each other and with the truth, over targets and seeds, in the miniature world.

    Every finished adaptation is kept, so that the same command on the same folder makes only what is missing. Writes a
    page with tables and pictures, and the same as JSON.

    Examples:
      zeroshift benchmark --size smoke
      zeroshift benchmark --methods nada ipl --targets zombie "pencil sketch" --seeds 0 1
      zeroshift benchmark --methods ipl ipl-label ipl:adapt.views=0 --baseline ipl
      zeroshift benchmark --methods diffusionclip diff-ipl --baseline diffusionclip
      zeroshift benchmark --page docs/benchmark.md
      zeroshift benchmark --page docs/benchmark.md --known docs/benchmark.json

    Args:
        out: Folder of the finished adaptations.
        methods: Names of methods, with changes behind a colon if wanted; all methods if none.
        targets: Domains such as zombie "pencil sketch" "mosaic of an elf"; 13 of them if none.
        seeds: Of the adaptations.
        size: full takes a night, smoke two minutes and means nothing.
        steps: Of the adaptation, in every row.
        set: Settings that differ in every row, such as adapt.lr=0.005.
        people: In the exam.
        fit_steps: Of the upper bound, which is fitted to true images; 0: no such bound.
        processes: Adaptations at a time; one a processor core if None.
        baseline: The method that the others are compared with, as in --methods; nada, or else the first, if None.
        page: Where the page goes; OUT/benchmark.md if None.
        conclusion: Markdown file that the page begins with, of what somebody concludes from it.
        known: JSON of a page: what it tells of adaptations with the same settings and weights is not made again.
        pages_only: Adapt nothing, write the page from what is there.
    """
    from ..miniature.benchmark import (
        ROWS,
        SOURCES,
        TARGETS,
        Plan,
        Row,
        cores,
        missing,
        parse_changes,
        parse_row,
        read_known,
        run,
    )
    from ..miniature.benchmark_page import write_page

    words = "" if conclusion is None else _read(conclusion)
    usual = SIZES[size]
    bound_steps: int = usual["fit_steps"] if fit_steps is None else fit_steps
    rows = [parse_row(name) for name in methods] or list(ROWS)
    names = [row.name for row in rows]
    chosen = baseline or ("nada" if "nada" in names else names[0])
    if chosen not in names:
        raise ZeroshiftError(f"{chosen!r} cannot be the baseline: it is not among the methods {', '.join(names)}.")
    generators = dict.fromkeys(row.generator for row in rows)
    fitted = [Row("fitted")] if bound_steps and "miniature" in generators else []
    plan = Plan(
        out=out,
        rows=(*(SOURCES[generator] for generator in generators), *rows, *fitted, Row("truth")),
        targets=targets or usual.get("targets", TARGETS),
        seeds=seeds or usual["seeds"],
        people=usual["people"] if people is None else people,
        changes=parse_changes((*usual["set"], *set, *([] if steps is None else [f"adapt.steps={steps}"]))),
        fit_steps=bound_steps,
        processes=cores() if processes is None else processes,
        known={} if known is None else read_known(known),
    ).validate()
    failed = []
    if not pages_only:
        cells = missing(plan)
        for cell, problem in tracked(run(plan, cells), len(cells), "Adapting"):
            if problem is not None:
                failed.append(f"{cell.row.name}, {cell.target}, seed {cell.seed}: {problem}")
    page = out / "benchmark.md" if page is None else page
    write_page(plan, page, chosen, words)
    print(f"Page: {page}")
    if failed:
        raise ZeroshiftError(f"{len(failed)} adaptations failed; the others are kept. " + " ".join(failed))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ZeroshiftError(f"The conclusion {path} cannot be read ({error}). Give a Markdown file.") from error


def main(arguments: Sequence[str]) -> None:
    call(benchmark, "benchmark", arguments)
