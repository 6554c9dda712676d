"""The page of a benchmark: Markdown for readers, JSON with all records, and images."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zeroshift.benchmark.measures import Records, compare_variants
from zeroshift.benchmark.provenance import machine
from zeroshift.benchmark.statistics import Difference
from zeroshift.benchmark.tables import (
    Comparisons,
    comparison_table,
    legend,
    mean_table,
    packed_note,
    summary,
    target_table,
)
from zeroshift.benchmark.variants import Variant
from zeroshift.config.settings import AdaptConfig
from zeroshift.io.atomic import atomic_write
from zeroshift.io.outputs import MARKDOWN_MARK
from zeroshift.methods.configure import flat
from zeroshift.miniature.benchmark.measures import MEASURES, comparable, machines, unrecognized
from zeroshift.miniature.benchmark.plan import BenchmarkPlan, Trial
from zeroshift.miniature.benchmark.records import finished_records
from zeroshift.miniature.benchmark.sheets import NUM_SHOWN, comparison_path, save_comparison
from zeroshift.miniature.world.domains import HELD_OUT, parse_domain

__all__ = ["page_files", "page_text", "write_page"]

_TITLE = "# Benchmark in the miniature world"
_SUMMARY = {
    "accuracy": "{:.1%} in the domain",
    "distance": "{:.3f} from the truth",
    "psnr": "PSNR {:.1f}",
    "kept": "{:.2f} of the variance between people kept",
    "processor_seconds": "{:.0f} seconds",
}
_BOUNDS = {
    "source": "`source` is the unadapted generator.",
    "source-diffusion": "`source-diffusion` is the unadapted diffusion model. It and its adaptations start from photos "
    "of the people, inverted by the source.",
    "source-autoencoder": "`source-autoencoder` is the unadapted diffusion autoencoder, which also starts from photos.",
    "fitted": "`fitted` is the source network trained on true target images ({steps} steps), which the methods never "
    "see.",
    "fitted-diffusion": "`fitted-diffusion` is the diffusion model trained to turn photos of people into their true "
    "target images ({steps} steps), which the methods never see.",
    "fitted-autoencoder": "`fitted-autoencoder` is the diffusion autoencoder trained in the same way.",
    "truth": "`truth` is the renderer with another noise seed: what a perfect method would score.",
}


def page_files(plan: BenchmarkPlan, page: Path) -> list[Path]:
    """The files that `write_page` writes."""
    return [page, page.with_suffix(".json"), *(comparison_path(page.with_suffix(""), one) for one in plan.targets)]


def write_page(plan: BenchmarkPlan, page: Path, baseline: str, conclusion: str = "") -> None:
    """Writes PAGE (Markdown), PAGE.json with all records, and an image per target in a folder named after the page.

    Args: see `page_text`.
    """
    records = finished_records(plan)
    text = page_text(plan, page, baseline, conclusion)
    details = {name: {key: vars(value) for key, value in by.items()} for name, by in _compared(plan, records, baseline)}
    data = {"command": _command(plan, baseline), "baseline": baseline, "compared": details, "trials": records}
    contents = {page: text + MARKDOWN_MARK, page.with_suffix(".json"): json.dumps(data, indent=1) + "\n"}
    for target in plan.targets:
        save_comparison(plan, target, page.with_suffix(""))
    for path, content in contents.items():
        with atomic_write(path) as temporary:
            temporary.write_text(content, encoding="utf-8")


def page_text(plan: BenchmarkPlan, page: Path, baseline: str, conclusion: str = "") -> str:
    """The page in Markdown.

    Args:
        plan: the benchmark. Trials that have not run are left out, and the page states their number.
        page: the Markdown file.
        baseline: name of the variant with which all others are compared.
        conclusion: Markdown for the beginning of the page. A title ("# ...") in it replaces the default title.
    """
    records = finished_records(plan)
    folder = page.with_suffix("")
    pictures = {target: f"{folder.name}/{comparison_path(folder, target).name}" for target in plan.targets}
    return (
        _markdown(
            plan, records, dict(_compared(plan, records, baseline)), pictures,
            baseline=baseline, command=_command(plan, baseline), conclusion=conclusion,
        ) + "\n"
    )  # fmt: skip


def _compared(plan: BenchmarkPlan, records: Records, baseline: str) -> list[tuple[str, Mapping[str, Difference]]]:
    """Each method that is not the baseline with its comparisons by measure."""
    names = [variant.name for variant in _adapted(plan) if variant.name != baseline]
    return [(name, compare_variants(comparable(records), name, baseline, MEASURES)) for name in names]


def _markdown(
    plan: BenchmarkPlan, records: Records, compared: Comparisons, pictures: Mapping[str, str], *,
    baseline: str, command: str, conclusion: str,
) -> str:  # fmt: skip
    """The whole page."""
    counted = comparable(records)
    variants, methods = ([each.name for each in group] for group in (plan.variants, _adapted(plan)))
    parts = [] if conclusion.startswith("# ") else [_TITLE]
    if conclusion:
        parts += [conclusion.strip()]
    if records:
        parts += ["## Summary", summary(counted, methods, compared, baseline, MEASURES, _SUMMARY)]
    parts += ["## What was measured", _introduction(plan, records, command), _settings(plan, baseline)]
    parts += ["## All targets", mean_table(counted, variants, MEASURES), legend(MEASURES)]
    if compared:
        parts += [f"## Comparison with {baseline}", comparison_table(compared, baseline, MEASURES)]
    deviation = "Means over seeds ± standard deviation." if len(plan.seeds) > 1 else "One seed."
    parts += [
        "## By target",
        f"{deviation} Images show the first seed and the same {NUM_SHOWN} people throughout, one method per row.",
    ]
    for target, picture in pictures.items():
        held_out = " (a held-out pair)" if parse_domain(target) in HELD_OUT else ""
        parts += [f"### {target}{held_out}", f"![{target}: source, truth, methods]({picture})"]
        parts += [target_table(counted, variants, target, MEASURES)]
    return "\n\n".join(parts)


def _adapted(plan: BenchmarkPlan) -> list[Variant]:
    """The variants that are adaptations."""
    return [variant for variant in plan.variants if not variant.bound]


def _command(plan: BenchmarkPlan, baseline: str) -> str:
    """The command that repeats the benchmark."""
    methods = [variant.name for variant in _adapted(plan)]
    words: list[object] = ["zeroshift", "benchmark", "--methods", *methods, "--targets", *plan.targets]
    words += ["--seeds", *plan.seeds, "--people", plan.people, "--fit-steps", plan.fit_steps, "--baseline", baseline]
    if plan.changes:
        words += ["--set", *(f"{name}={json.dumps(value)}" for name, value in plan.changes.items())]
    return shlex.join(map(str, words))


def _introduction(plan: BenchmarkPlan, records: Records, command: str) -> str:
    total = len(plan.trials())
    changes = ", ".join(f"{name} = {value}" for name, value in plan.changes.items())
    used = machines(records) or [machine()]
    note = " (seconds and MiB are those of the first; results from others have none)" if len(used) > 1 else ""
    excluded = [
        f"The held-out evaluator recognizes only {100 * share:.0f} % of the true images of '{target}', so *domain* is "
        "left out there."
        for target, share in unrecognized(records).items()
    ]
    bounds = [_BOUNDS[each.name].format(steps=plan.fit_steps) for each in plan.variants if each.bound]
    seeds = f"seed{'s' if len(plan.seeds) > 1 else ''} {', '.join(map(str, plan.seeds))}"
    paragraphs = [
        f"Measured on {' and '.join(used)}{note}, with",
        f"    {command}",
        f"{len(plan.targets)} targets, {seeds}, the preset of each generator{f' with {changes}' if changes else ''}. "
        f"All methods are measured on the same {plan.people} people, who are in no training data. The renderer "
        f"provides the true images; the held-out evaluator and the probe guide no adaptation. "
        f"{' '.join([*excluded, *bounds])}",
    ]
    if len(records) < total:
        paragraphs.append(f"**Not finished: {total - len(records)} of {total} trials.**")
    return "\n\n".join([*paragraphs, *packed_note(records)])


def _settings(plan: BenchmarkPlan, baseline: str) -> str:
    """How the baseline's settings differ from the program's defaults, and those of the others from the baseline's."""
    configs = {
        variant.name: Trial(variant, plan.targets[0], plan.seeds[0]).config(plan.changes) for variant in _adapted(plan)
    }
    lines = ["Settings:", ""]
    for name, config in configs.items():
        reference = _defaults(config) | (
            {"method": AdaptConfig.method} if name == baseline else flat(configs[baseline])
        )
        different = [
            f"{key} = {value}"
            for key, value in flat(config).items()
            if value != reference[key] and key not in ("target", "seed", "device", "encoders", "family")
        ]
        start = "" if name == baseline else f"as {baseline}, but "
        lines.append(f"- **{name}**: {start}{', '.join(different) or 'nothing'}.")
    return "\n".join(lines)


def _defaults(config: AdaptConfig) -> dict[str, Any]:
    """The default settings of a configuration's method and generator family."""
    options, sampling = type(config.options)(), type(config.sampling)()
    return flat(AdaptConfig(target="", family=config.family, method=config.method, options=options, sampling=sampling))
