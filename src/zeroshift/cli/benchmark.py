"""`zeroshift benchmark`: compares methods with each other and with the truth, in the miniature world."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zeroshift.cli.allocator import keep_freed_memory
from zeroshift.cli.arguments import call
from zeroshift.cli.execution import ExecutionOptions, run_work
from zeroshift.cli.output import note, show_result
from zeroshift.config.schema import field_docs
from zeroshift.errors import ZeroshiftError
from zeroshift.io.outputs import require_outputs, require_writable

if TYPE_CHECKING:
    from zeroshift.benchmark.variants import Variant
    from zeroshift.miniature.benchmark.plan import BenchmarkPlan

__all__ = ["BenchmarkOptions", "benchmark", "main", "parse"]

# Defaults by size.
_SIZES: dict[str, dict[str, Any]] = {
    "full": {"out": Path("runs/benchmark"), "seeds": (0, 1, 2), "people": 128, "fit_steps": 600, "set": ()},
    "smoke": {
        "out": Path("runs/benchmark-smoke"),
        "targets": ("zombie",),
        "seeds": (0,),
        "people": 32,
        "fit_steps": 8,
        "set": ("adapt.steps=6", "prompts.steps=4", "prompts.batch_size=8", "num_latents=8"),
    },
}
_DESCRIPTION = """Compare methods with each other and with the truth, in the miniature world.

Every variant of a method is adapted to every target with every seed. Finished adaptations are kept: the same command
on the same folder runs only what is missing. Writes a page with tables and images, and all results as JSON.

With --generator FILE or --paper, the command compares methods on your own generator instead, without the truth:
`zeroshift benchmark --generator FILE --help` explains that.

Methods: {methods}.
ipl-label and ipl-published are IPL with another prompts.base_text. diffusionclip, diff-ipl and names that end with
-diffusion adapt the miniature diffusion model, names that end with -autoencoder the miniature autoencoder, all others
the miniature StyleGAN2. Each uses the preset of its generator; changed settings follow a colon, named as for `zeroshift
adapt`: ipl:adapt.steps=240,adapt.augmentations=1. The unadapted generator, the same network trained on true images
(--fit-steps) and the truth are measured as well.

Examples:
  zeroshift benchmark --size smoke
  zeroshift benchmark --methods nada ipl --targets zombie "pencil sketch" --seeds 0 1
  zeroshift benchmark --methods ipl ipl-label ipl:adapt.augmentations=0 --baseline ipl
  zeroshift benchmark --methods diffusionclip diff-ipl --baseline diffusionclip
  zeroshift benchmark --methods nada ipl --previous docs/benchmark.json --page mine/benchmark.md
"""


@dataclass(frozen=True)
class _Compared:
    """What is compared."""

    out: Path | None = None
    """Folder of the finished adaptations. Default: runs/benchmark (smoke: runs/benchmark-smoke)."""
    methods: tuple[str, ...] = ()
    """Methods, as listed above. Default: all that zeroshift ships."""
    targets: tuple[str, ...] = ()
    """Domains such as zombie "pencil sketch" "mosaic of an elf" (`zeroshift miniature sheet` draws examples). Default:
    thirteen; three of them were held out from the training of the encoders."""
    seeds: tuple[int, ...] = ()
    """Seeds of the adaptations. Default: 0 1 2 (smoke: 0)."""
    size: Literal["full", "smoke"] = "full"
    """Size of the benchmark: full runs overnight; smoke takes two minutes and only checks that everything runs."""
    steps: int | None = None
    """Steps of adaptation for all methods. Default: those of each preset."""
    set: tuple[str, ...] = ()
    """Settings changed for all methods, such as adapt.lr=0.005."""
    people: int | None = None
    """Number of people on which each adaptation is measured. Default: 128 (smoke: 32)."""
    fit_steps: int | None = None
    """Training steps of the upper bound, 0 for none. Default: 600 (smoke: 8)."""
    baseline: str | None = None
    """Method that the others are compared with, as in --methods. Default: nada, or else the first."""
    previous: Path | None = None
    """JSON of an earlier page; its results with the same settings and weights are reused."""


@dataclass(frozen=True)
class BenchmarkOptions(ExecutionOptions, _Compared):
    """Compare methods with each other and with the truth, in the miniature world."""


def benchmark(options: BenchmarkOptions) -> None:
    """Runs the trials that are missing, and writes the page.

    Raises:
        ZeroshiftError: for conflicting options, and after writing the page if a trial failed.
    """
    from zeroshift.miniature.benchmark.page import page_files, page_text, write_page
    from zeroshift.miniature.benchmark.run import work

    conclusion = options.introduction()
    plan, baseline = _plan(options)
    page = plan.out / "benchmark.md" if options.page is None else options.page
    if options.previous is not None:
        _check_previous(plan, options.previous, page)
    require_writable(plan.out)
    require_outputs(*page_files(plan, page))

    def write() -> None:
        try:
            write_page(plan, page, baseline, conclusion)
        except ZeroshiftError:
            print(page_text(plan, page, baseline, conclusion))  # the results are worth more than their file
            raise
        show_result(f"Page: {page}", page=page, records=page.with_suffix(".json"))

    run_work(work(plan, keep_freed_memory), options, plan.out, write, on_gpus=False)


def _plan(options: BenchmarkOptions) -> tuple["BenchmarkPlan", str]:
    """The plan of these options, and the name of its baseline.

    Raises:
        ZeroshiftError: for an unknown method, target or setting, or a baseline that is not among the methods.
    """
    from zeroshift.benchmark.variants import parse_changes
    from zeroshift.miniature.benchmark.plan import BenchmarkPlan
    from zeroshift.miniature.benchmark.records import read_previous
    from zeroshift.miniature.benchmark.variants import (
        FITTED,
        SOURCES,
        TARGETS,
        TRUTH,
        VARIANTS,
        parse_variant,
    )

    size = _SIZES[options.size]
    variants = [parse_variant(name) for name in options.methods] or list(VARIANTS)
    names = [variant.name for variant in variants]
    baseline = options.baseline or ("nada" if "nada" in names else names[0])
    if baseline not in names:
        raise ZeroshiftError(f"{baseline!r} cannot be the baseline: it is not among the methods {', '.join(names)}.")
    fit_steps: int = size["fit_steps"] if options.fit_steps is None else options.fit_steps
    generators = dict.fromkeys(variant.generator for variant in variants)
    fitted = [FITTED[generator] for generator in generators if fit_steps]
    steps = [] if options.steps is None else [f"adapt.steps={options.steps}"]
    plan = BenchmarkPlan(
        out=size["out"] if options.out is None else options.out,
        variants=(*(SOURCES[generator] for generator in generators), *variants, *fitted, TRUTH),
        targets=options.targets or size.get("targets", TARGETS),
        seeds=options.seeds or size["seeds"],
        people=size["people"] if options.people is None else options.people,
        changes=_size_changes(size["set"], variants) | parse_changes((*options.set, *steps)),
        fit_steps=fit_steps,
        previous={} if options.previous is None else read_previous(options.previous),
    )
    return plan.validate(), baseline


def _size_changes(texts: Sequence[str], variants: "Sequence[Variant]") -> dict[str, Any]:
    """The settings of a size that at least one of the variants has."""
    from zeroshift.benchmark.variants import parse_changes
    from zeroshift.methods.configure import default_config, flat

    configs = [default_config(variant.generator, method=variant.changes.get("method")) for variant in variants]
    applicable = {name for config in configs for name in flat(config)}
    return {name: value for name, value in parse_changes(texts).items() if name in applicable}


def _check_previous(plan: "BenchmarkPlan", previous: Path, page: Path) -> None:
    """Prints how many previous results are reused, and prevents the new page from losing any of them.

    Raises:
        ZeroshiftError: if the page would overwrite the previous one with fewer of its results.
    """
    from zeroshift.miniature.benchmark.records import previous_record

    trials = plan.trials()
    reused, total = sum(previous_record(plan, trial) is not None for trial in trials), len(plan.previous)
    note(f"{reused} of the {len(trials)} adaptations of this benchmark are taken from {previous}, which has {total}.")
    if os.path.realpath(page.with_suffix(".json")) == os.path.realpath(previous) and reused < total:
        raise ZeroshiftError(
            f"{previous} would lose {total - reused} of its {total} adaptations, which are not part of this benchmark "
            "or were made with other settings. Choose another --page, or use the command printed in that page."
        )


def parse(arguments: Sequence[str]) -> BenchmarkOptions:
    """The options of a command line; the help page lists the methods that are registered now."""
    from zeroshift.miniature.benchmark.variants import available_variants

    docs = [f"    {name}: {' '.join(doc.split())}" for name, doc in field_docs(BenchmarkOptions).items()]
    description = _DESCRIPTION.format(methods=", ".join(available_variants()))
    BenchmarkOptions.__doc__ = "\n".join([description, "Args:", *docs])
    options: BenchmarkOptions = call(BenchmarkOptions, "benchmark", arguments)
    return options


def main(arguments: Sequence[str]) -> None:
    """Runs the benchmark in the miniature world, or with --generator or --paper the one on any generator."""
    if any(argument.partition("=")[0] in ("--generator", "--paper") for argument in arguments):
        from zeroshift.cli import generator_benchmark

        generator_benchmark.main(arguments)
    else:
        benchmark(parse(arguments))
