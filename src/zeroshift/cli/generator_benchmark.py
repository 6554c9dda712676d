"""`zeroshift benchmark --generator ...` and `--paper`: compares methods on any generator."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zeroshift.cli.allocator import keep_freed_memory
from zeroshift.cli.arguments import call
from zeroshift.cli.execution import ExecutionOptions, run_work
from zeroshift.cli.output import show_result
from zeroshift.config.schema import field_docs
from zeroshift.errors import ZeroshiftError
from zeroshift.io.outputs import require_outputs, require_writable

if TYPE_CHECKING:
    from zeroshift.benchmark.plan import DomainPair, GeneratorPlan

__all__ = ["GeneratorBenchmarkOptions", "benchmark_generator", "main"]

_METHODS = ("nada", "ipl")  # compared by default
_DESCRIPTION = """Compare methods on your own generator, with the measures that need no truth.

Every method adapts the generator to every target with every seed, each in a run folder below OUT/trials. The same
command resumes: finished trials are kept. Writes a page with pictures, and its tables as JSON, CSV and LaTeX
(booktabs). The unadapted source is a row of every table. Measures whose network or reference images are missing are
left out, with the reason.

--paper repeats the protocol of IPL's paper (Guo et al., 2023): ten domain pairs on FFHQ (1024 pixels) and AFHQ-Dog
(512), NADA and IPL with the published settings, Inception Score, SIFID, SCS and ID. It downloads both generators and
the networks, and needs a GPU. SIFID needs --references. Each other option replaces its part of the protocol.

Methods: {methods}. Changed settings follow a colon: ipl:adapt.steps=240.

Examples:
  zeroshift benchmark --generator ffhq.pkl --targets sketch human:werewolf --seeds 0 1 2
  zeroshift benchmark --generator ffhq.pkl --targets sketch --methods nada ipl svl --references real/sketches
  zeroshift benchmark --generator miniature --targets zombie --metrics diversity scs --num 64
  zeroshift benchmark --paper --references real --out runs/paper
"""


@dataclass(frozen=True)
class _Compared:
    """What is compared."""

    generator: str | None = None
    """Source generator, as for `zeroshift adapt`. With --paper, it replaces both generators."""
    targets: tuple[str, ...] = ()
    """Target labels, or SOURCE:TARGET for another source label than photo."""
    paper: bool = False
    """Repeat the protocol of IPL's paper."""
    methods: tuple[str, ...] = ()
    """Methods, as listed above. Default: nada ipl."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the adaptations."""
    metrics: tuple[str, ...] = ()
    """Measures, as for `zeroshift evaluate`. Default: all that are available."""
    references: Path | None = None
    """Folder of real images of the target; for several targets, a folder with one subfolder per target."""
    num: int | None = None
    """Number of samples. Default: that of each measure's protocol."""
    preset: str = ""
    """Preset of all methods. Default: the generator's."""
    steps: int | None = None
    """Steps of adaptation for all methods. Default: those of the preset."""
    set: tuple[str, ...] = ()
    """Settings changed for all methods, such as adapt.lr=0.005."""
    out: Path = Path("runs/generator-benchmark")
    """Folder of the trials."""
    baseline: str | None = None
    """Method that the others are compared with, as in --methods. Default: nada, or else the first."""
    again: bool = False
    """Measure finished trials again, for example after a missing network was installed."""


@dataclass(frozen=True)
class GeneratorBenchmarkOptions(ExecutionOptions, _Compared):
    """Compare methods on your own generator."""


def benchmark_generator(options: GeneratorBenchmarkOptions) -> None:
    """Runs the trials that are missing, and writes the page.

    Raises:
        ZeroshiftError: for conflicting options, and after writing the page if a trial failed.
    """
    from zeroshift.benchmark.page import page_files, page_text, write_page
    from zeroshift.benchmark.trials import work

    conclusion = options.introduction()
    plan = _plan(options)
    baseline = plan.baseline(options.baseline)
    page = plan.out / "benchmark.md" if options.page is None else options.page
    require_writable(plan.out)
    require_outputs(*page_files(plan, page))

    def write() -> None:
        try:
            write_page(plan, page, baseline, conclusion)
        except ZeroshiftError:
            print(page_text(plan, page, baseline, conclusion))  # the results are worth more than their file
            raise
        tables = [page.with_suffix(suffix) for suffix in (".json", ".csv", ".tex")]
        show_result(f"Page:   {page}", page=page)
        show_result(f"Tables: {', '.join(map(str, tables))}", tables=tables)

    run_work(work(plan, keep_freed_memory), options, plan.out, write, on_gpus=True)


def _plan(options: GeneratorBenchmarkOptions) -> "GeneratorPlan":
    """The plan of these options.

    Raises:
        ZeroshiftError: for missing or unknown generators, targets, methods, measures or settings.
    """
    from zeroshift.benchmark import paper
    from zeroshift.benchmark.plan import GeneratorPlan
    from zeroshift.benchmark.variants import method_variant, parse_changes

    methods = options.methods or (paper.METHODS if options.paper else _METHODS)
    steps = [] if options.steps is None else [f"adapt.steps={options.steps}"]
    return GeneratorPlan(
        out=options.out,
        pairs=_pairs(options),
        variants=tuple(map(method_variant, methods)),
        seeds=options.seeds,
        metrics=options.metrics or (paper.METRICS if options.paper else None),
        references=options.references,
        num=options.num,
        preset=options.preset or (paper.PRESET if options.paper else ""),
        changes=parse_changes((*options.set, *steps)),
        again=options.again,
    ).validate()


def _pairs(options: GeneratorBenchmarkOptions) -> "tuple[DomainPair, ...]":
    from dataclasses import replace

    from zeroshift.benchmark import paper
    from zeroshift.benchmark.plan import parse_pair

    if options.generator is None and options.targets:
        raise ZeroshiftError("Name the generator of these targets: --generator ffhq.pkl")
    if options.generator is not None and options.targets:
        return tuple(parse_pair(options.generator, text) for text in options.targets)
    if not options.paper:
        raise ZeroshiftError("Name the targets, such as: --targets sketch human:werewolf")
    if options.generator is None:
        return paper.PAIRS
    return tuple(replace(pair, generator=options.generator) for pair in paper.PAIRS)


def main(arguments: Sequence[str]) -> None:
    """Runs the command; its help lists the methods that are registered now."""
    from zeroshift.methods.registry import METHODS

    docs = [f"    {name}: {' '.join(doc.split())}" for name, doc in field_docs(GeneratorBenchmarkOptions).items()]
    description = _DESCRIPTION.format(methods=", ".join(METHODS))
    GeneratorBenchmarkOptions.__doc__ = "\n".join([description, "Args:", *docs])
    benchmark_generator(call(GeneratorBenchmarkOptions, "benchmark", arguments))
