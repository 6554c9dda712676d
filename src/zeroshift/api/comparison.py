"""A benchmark on any generator: `zeroshift.compare_methods`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from zeroshift.benchmark.executors import Executor, run_shared
from zeroshift.benchmark.page import page_files, picture_path, summary_text, write_page
from zeroshift.benchmark.plan import GeneratorPlan, parse_pair
from zeroshift.benchmark.processes import local_pool
from zeroshift.benchmark.trials import finished_records, work
from zeroshift.benchmark.variants import method_variant
from zeroshift.core.batching import Track, untracked
from zeroshift.errors import ZeroshiftError
from zeroshift.io.outputs import require_outputs, require_writable

__all__ = ["Comparison", "compare_methods"]


@dataclass(frozen=True)
class Comparison:
    """The results of a benchmark. A notebook shows its tables.

    Attributes:
        plan: what was compared.
        baseline: the method that the others are compared with.
        page: the Markdown page; tables as .json, .csv and .tex stand beside it.
    """

    plan: GeneratorPlan
    baseline: str
    page: Path

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records of all finished trials, as in the JSON file."""
        return finished_records(self.plan)

    @property
    def latex(self) -> str:
        """The table for `booktabs`."""
        return self.page.with_suffix(".tex").read_text(encoding="utf-8")

    def picture(self, target: str | None = None) -> Image.Image:
        """The same samples of the source and of every method; target None: the first one.

        Raises:
            ZeroshiftError: if there is no such target.
        """
        pairs = [pair for pair in self.plan.pairs if target in (None, pair.target)]
        if not pairs:
            raise ZeroshiftError(f"{target!r} is not among the targets {', '.join(p.target for p in self.plan.pairs)}.")
        with Image.open(picture_path(self.page, pairs[0])) as picture:
            copy: Image.Image = picture.copy()
        return copy

    def __repr__(self) -> str:
        return f"<Comparison: {len(self.records)} of {len(self.plan.trials())} trials, {self.page}>"

    def _repr_markdown_(self) -> str:
        return summary_text(self.plan, self.baseline)


def compare_methods(
    generator: str | Path,
    targets: str | Sequence[str],
    methods: Sequence[str] = ("nada", "ipl"),
    seeds: Sequence[int] = (0,),
    *,
    out: str | Path = "runs/generator-benchmark",
    changes: Mapping[str, Any] | None = None,
    preset: str = "",
    metrics: Sequence[str] | None = None,
    references: str | Path | None = None,
    num: int | None = None,
    baseline: str | None = None,
    processes: int | None = None,
    executor: Executor | None = None,
    pack: int = 1,
    again: bool = False,
    track: Track[Any] = untracked,
) -> Comparison:
    """Compares methods on any generator, as `zeroshift benchmark --generator` does. The same call resumes.

    Trials run in processes of their own. These know methods of installed packages, but not those that were registered
    in a running program or a notebook.

    Args:
        generator: name, file or "package.module:function" of the source generator.
        targets: labels of the target domains, or "SOURCE:TARGET" for another source label than "photo".
        methods: names, or with changed settings "ipl:adapt.steps=240".
        seeds: seeds of the adaptations.
        out: folder of the trials, the page and the tables.
        changes: settings by dotted name that are changed for all methods, such as {"adapt.steps": 100}.
        preset: preset of all methods; empty: that of the generator.
        metrics: measures, as for `evaluate`; None: all that are available.
        references: folder of real target images; for several targets with a subfolder per target.
        num: number of samples; None: that of each measure's protocol.
        baseline: method that the others are compared with; None: nada, or else the first.
        processes: trials at the same time; None: one per GPU, without GPUs one per processor core.
        executor: runs the trials, such as `zeroshift.benchmark.ray_executor.RayExecutor()`; None: processes on this
            machine.
        pack: trials of one method and seed that a process trains in lockstep, with common source images.
        again: measure finished trials once more.
        track: progress, such as `LiveView().track`.

    Raises:
        ZeroshiftError: for names or numbers that do not fit, and after writing the page if a trial failed.

    Examples:
        >>> few = {"adapt.steps": 1}
        >>> zeroshift.compare_methods("miniature", "zombie", ["nada"], changes=few, metrics=["scs"], num=10, out="few")
        <Comparison: 1 of 1 trials, few/benchmark.md>
    """
    plan = GeneratorPlan(
        out=Path(out),
        pairs=tuple(parse_pair(str(generator), each) for each in ([targets] if isinstance(targets, str) else targets)),
        variants=tuple(map(method_variant, methods)),
        seeds=tuple(seeds),
        metrics=None if metrics is None else tuple(metrics),
        references=None if references is None else Path(references),
        num=num,
        preset=preset,
        changes=dict(changes or {}),
        again=again,
    ).validate()
    result = Comparison(plan, plan.baseline(baseline), plan.out / "benchmark.md")
    require_writable(plan.out)
    require_outputs(*page_files(plan, result.page))
    outcome = run_shared(work(plan), executor or local_pool(processes), plan.out, track=track, pack=pack)
    if not outcome.elsewhere:  # otherwise the last call or command to end writes the page
        write_page(plan, result.page, result.baseline)
    outcome.require_success()
    return result
