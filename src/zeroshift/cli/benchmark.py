"""`zeroshift benchmark`: methods against each other, and against the truth, in the miniature world."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zeroshift.cli.arguments import call, tracked
from zeroshift.errors import ZeroshiftError

if TYPE_CHECKING:
    from zeroshift.miniature.benchmark.trials import Plan

__all__ = ["benchmark", "main"]

# What the sizes stand for where nothing else is said.
SIZES: dict[str, dict[str, Any]] = {
    "full": {"out": Path("runs/benchmark"), "seeds": (0, 1, 2), "people": 128, "fit_steps": 600, "set": ()},
    "smoke": {
        "out": Path("runs/benchmark-smoke"),
        "targets": ("zombie",),
        "seeds": (0,),
        "people": 32,
        "fit_steps": 8,
        "set": ("adapt.steps=6", "prompts.steps=4", "prompts.batch_size=8", "latents=8"),
    },
}


def benchmark(
    out: Path | None = None,
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

    Methods of the embedded StyleGAN2: nada, ipl, ipl-label and ipl-published (IPL with the base text of
    prompts.base_text label or published), air, svl, domain-vector. Of the embedded diffusion models, a DDPM and an
    autoencoder: diffusionclip, diff-ipl, diffusionclip-autoencoder, diff-ipl-autoencoder. Each has its preset; a colon
    introduces changed settings, as of `zeroshift adapt`: ipl:adapt.steps=240,adapt.augmentations=1. The source
    generator, the same network fitted to true images (--fit-steps) and the truth are shown beside them.

    Examples:
      zeroshift benchmark --size smoke
      zeroshift benchmark --methods nada ipl --targets zombie "pencil sketch" --seeds 0 1
      zeroshift benchmark --methods ipl ipl-label ipl:adapt.augmentations=0 --baseline ipl
      zeroshift benchmark --methods diffusionclip diff-ipl --baseline diffusionclip
      zeroshift benchmark --methods nada ipl --known docs/benchmark.json --page mine/benchmark.md

    Args:
        out: Folder of the finished adaptations; runs/benchmark if not given, runs/benchmark-smoke for that size.
        methods: Methods, as above; all of them if not given.
        targets: Domains such as zombie "pencil sketch" "mosaic of an elf" (`zeroshift miniature sheet` shows them).
            If not given, thirteen: five beings, four media, four pairs, three of which the encoders never saw.
        seeds: Seeds of the adaptations; 0 1 2 if not given (smoke: 0).
        size: full takes a night; smoke takes two minutes, and its numbers mean nothing.
        steps: Steps of adaptation in every row; those of each preset if not given.
        set: Settings that differ in every row, such as adapt.lr=0.005.
        people: How many people each adaptation is measured on; 128 if not given (smoke: 32).
        fit_steps: Steps of the upper bound, fitted to true images; 600 if not given (smoke: 8). 0: no such bound.
        processes: Adaptations at a time; one a processor core if not given.
        baseline: The method that the others are compared with, as in --methods; nada, or else the first, if not given.
        page: Where the page goes, Markdown; its JSON and pictures lie beside it. OUT/benchmark.md if not given.
        conclusion: Markdown file that the page begins with, of what somebody concludes from it.
        known: JSON of an earlier page: adaptations found there with the same settings and weights are not repeated.
        pages_only: Adapt nothing, write the page from what is there.
    """
    from zeroshift.miniature.benchmark.page import write_page
    from zeroshift.miniature.benchmark.trials import (
        FITTED,
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

    words = "" if conclusion is None else _read(conclusion)
    usual = SIZES[size]
    bound_steps: int = usual["fit_steps"] if fit_steps is None else fit_steps
    rows = [parse_row(name) for name in methods] or list(ROWS)
    names = [row.name for row in rows]
    chosen = baseline or ("nada" if "nada" in names else names[0])
    if chosen not in names:
        raise ZeroshiftError(f"{chosen!r} cannot be the baseline: it is not among the methods {', '.join(names)}.")
    generators = dict.fromkeys(row.generator for row in rows)
    fitted = [FITTED[generator] for generator in generators if bound_steps]
    out = usual["out"] if out is None else out
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
    page = out / "benchmark.md" if page is None else page
    if known is not None:
        _tell_known(plan, known, page)
    failed = []
    if not pages_only:
        cells = missing(plan)
        for cell, problem in tracked(run(plan, cells), len(cells), "Adapting"):
            if problem is not None:
                failed.append(f"{cell.row.name}, {cell.target}, seed {cell.seed}: {problem}")
    write_page(plan, page, chosen, words)
    print(f"Page: {page}")
    if failed:
        raise ZeroshiftError(f"{len(failed)} adaptations failed; the others are kept. " + " ".join(failed))


def _tell_known(plan: "Plan", known: Path, page: Path) -> None:
    """Says how much of a page's JSON counts here, and sees to it that none of it is lost.

    Raises:
        ZeroshiftError: if the page would go where it came from, and hold less than it.
    """
    from zeroshift.miniature.benchmark.trials import known_cell

    cells = plan.cells()
    fit = sum(known_cell(plan, cell) is not None for cell in cells)
    print(f"{fit} of this benchmark's {len(cells)} adaptations are known from {known}, which has {len(plan.known)}.")
    if page.with_suffix(".json").resolve() == known.resolve() and fit < len(plan.known):
        raise ZeroshiftError(
            f"{known} would lose {len(plan.known) - fit} of its {len(plan.known)} adaptations, of which this benchmark "
            "has none with the same settings. Give --page another name, or the command that stands in that page."
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ZeroshiftError(f"The conclusion {path} cannot be read ({error}). Give a Markdown file.") from error


def main(arguments: Sequence[str]) -> None:
    call(benchmark, "benchmark", arguments)
