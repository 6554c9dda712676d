"""What the miniature world's models must be able to do, measured: a table with thresholds, and pictures."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.io.atomic import atomic_write
from zeroshift.io.images import save_png
from zeroshift.miniature.exams.diffusion_exam import STEPS, examine
from zeroshift.miniature.exams.measure import (
    CLASS,
    R2,
    DomainExam,
    attack_transfer,
    domain_accuracy,
    domain_report,
    label_features,
    probe_report,
    retrieval_report,
)  # fmt: skip
from zeroshift.miniature.networks.encoders import Probe, load_judge, load_probe
from zeroshift.miniature.world.domains import BEINGS, DOMAINS, KEPT_OUT, MEDIA, SEEN, SOURCE, Domain
from zeroshift.miniature.world.renderer import render, sample_latents
from zeroshift.miniature.world.sheet import diffusion_sheet, domain_sheet, factor_sheet, generator_sheet

__all__ = [
    "Figure",
    "diffusion_figures",
    "generator_figures",
    "markdown",
    "measure_all",
    "one_domain_per_medium",
    "report",
]


@dataclass(frozen=True)
class Figure:
    """One measured number. `text` is its form for reading; `bound` what must hold, "" where it is only reported."""

    name: str
    value: float
    text: str
    bound: str = ""
    holds: bool | None = None


def _share(name: str, value: float, at_least: float | None = None, below: float | None = None) -> Figure:
    return _figure(name, value, f"{100 * value:.1f} %", at_least, below, lambda bound: f"{100 * bound:g} %")


def _number(name: str, value: float, unit: str = "", at_least: float | None = None) -> Figure:
    return _figure(name, value, f"{value:.2f}{unit}", at_least, None, lambda bound: f"{bound:g}{unit}")


def _figure(
    name: str, value: float, text: str, at_least: float | None, below: float | None, show: Callable[[float], str]
) -> Figure:
    if at_least is not None:
        return Figure(name, value, text, f"at least {show(at_least)}", value >= at_least)
    if below is not None:
        return Figure(name, value, text, f"below {show(below)}", value < below)
    return Figure(name, value, text)


def one_domain_per_medium() -> tuple[Domain, ...]:
    """Twelve seen domains, one a medium, over all beings in turn: a sample for what is slow to measure."""
    chosen = []
    for offset, medium in enumerate(MEDIA):
        beings = list(BEINGS)[offset % len(BEINGS) :] + list(BEINGS)[: offset % len(BEINGS)]
        chosen.append(next(domain for being in beings if (domain := Domain(medium, being)) not in KEPT_OUT))
    return tuple(chosen)


@torch.no_grad()
def generator_figures(generator: Generator, judge: Encoder, *, seed: int, count: int) -> list[Figure]:
    """The generator against the renderer at the same latents, and what the judge takes its pictures for.

    The judge chooses among the labels of all 84 domains. PSNR is that of all pixels of all images together, peak 2.
    """
    latents = sample_latents(seed, range(count))
    labels = label_features(judge.encode_text, judge.templates, [domain.label for domain in DOMAINS])
    truth = torch.full((count,), DOMAINS.index(SOURCE))
    images, truncated = (
        torch.cat([generator(part, truncation_psi=truncation) for part in latents.split(64)]).clamp(-1, 1)
        for truncation in (1.0, 0.7)
    )
    psnr = 10 * torch.log10(4 / (images - render(latents)).square().mean())

    def judged(pictures: torch.Tensor) -> float:
        features = torch.cat([judge.encode_image(part) for part in pictures.split(64)])
        return domain_accuracy(features, labels, truth).mean().item()

    return [
        _number("generator: PSNR against the renderer", psnr.item(), " dB", at_least=24),
        _share("generator: judged photo of a person", judged(images), at_least=0.99),
        _share("generator: the same, truncated to 0.7", judged(truncated)),
    ]


def diffusion_figures(name: str, generator: Diffusion, judge: Encoder, *, seed: int, count: int) -> list[Figure]:
    """A diffusion model by name: see `examine`."""
    found = examine(generator, judge, seed=seed, count=count)
    return [
        _number(f"{name}: FD of samples to {count} renders, judge's features", found["distance"]),
        _number(f"{name}: the same of {count} other renders", found["floor"]),
        _share(f"{name}: judged photo of a person", found["accuracy"]),
        _number(f"{name}: inverted and regenerated, {STEPS} steps each, PSNR", found["round_trip"], " dB"),
    ]


def measure_all(
    guide: Encoder, judge: Encoder, probe: Probe, generator: Generator, diffusion: Mapping[str, Diffusion],
    *, seed: int, people: int, candidates: int,
) -> Iterator[Figure]:  # fmt: skip
    """All figures, one by one.

    Args:
        diffusion: the diffusion models by name.
        seed: of the people; the trainings used small numbers.
        people: in each of the 84 domains, for the exams of domains and factors.
        candidates: captions to choose from, and photos in the exams of photos; half as many with faint patterns.
    """
    exam = DomainExam.make(seed, people)
    for name, encoder in (("guide", guide), ("judge", judge)):
        accuracy = domain_report(exam, encoder.encode_image, encoder.encode_text, encoder.templates)
        yield _share(f"{name}: zero-shot domain accuracy, seen pairs", accuracy["seen"], at_least=0.98)
        yield _share(f"{name}: zero-shot domain accuracy, kept-out pairs", accuracy["kept_out"], at_least=0.85)
    for name, encoder in (("guide", guide), ("judge", judge)):
        domains = one_domain_per_medium()
        found = retrieval_report(
            encoder.encode_image, encoder.encode_text, seed=seed, domains=domains, candidates=candidates
        )
        photos = found[SOURCE.full_label]
        yield _share(f"{name}: caption of a photo of a person among {candidates}", photos, at_least=0.5)
        yield _share(f"{name}: the same, mean of 12 domains", sum(found.values()) / len(found))
    yield from generator_figures(generator, judge, seed=seed, count=candidates)
    for name, model in diffusion.items():
        yield from diffusion_figures(name, model, judge, seed=seed, count=candidates)
    seen = probe_report(probe, exam, SEEN)
    yield _share("probe: mean class accuracy, visible factors, seen domains", seen[CLASS], at_least=0.95)
    yield _number("probe: mean R2, visible factors, seen domains", seen[R2], at_least=0.85)
    labels = [domain.label for domain in DOMAINS]
    sides = [(e.encode_image, label_features(e.encode_text, e.templates, labels)) for e in (guide, judge)]
    fooled = attack_transfer(sides[0], sides[1], seed=seed, count=candidates // 2)
    yield _share("faint patterns: photos that fool the guide", fooled["fooled"])
    yield _share("faint patterns: share of those that fool the judge, too", fooled["transferred"], below=0.2)


def markdown(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    verdict = {True: "yes", False: "**no**", None: ""}
    rows = [f"| {f.name} | {f.text} | {f.bound or 'reported'} | {verdict[f.holds]} |" for f in figures]
    return "\n".join(["| measure | measured | must be | holds |", "| --- | --- | --- | --- |", *rows]) + "\n"


def report(
    out: str | os.PathLike[str],
    *,
    seed: int,
    people: int = 24,
    candidates: int = 256,
    console: Console | None = None,
) -> list[Figure]:
    """Measures the shipped models, prints the table and writes `report.md` with pictures into `out`.

    `people` and `candidates` are as in `measure_all`.

    Raises:
        ZeroshiftError: if a model's file is missing or damaged, or `out` cannot be written.
    """
    console, out = console or Console(), Path(out)
    guide, judge, probe = load_encoder("miniature"), load_judge(), load_probe()
    generator = load_generator("miniature")
    diffusion = _diffusion_models(console)
    pictures = {
        "domains": (
            "Eight people in every medium and as every being.",
            lambda: domain_sheet(_sampler(), 8, seed),
        ),
        "factors": ("One factor varied a row.", lambda: factor_sheet()),
        "generator": ("The generator beside the renderer.", lambda: generator_sheet(generator, 12, seed)),
    }
    if len(diffusion) == 2:
        pictures["diffusion"] = (
            "Random people of the diffusion models; photos, and what the autoencoder makes of them.",
            lambda: diffusion_sheet(diffusion["diffusion"], diffusion["autoencoder"], 12, seed),
        )
    figures: list[Figure] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as screen:
        task = screen.add_task("measuring", total=_COUNT + 4 * len(diffusion) + len(pictures))
        for figure in measure_all(
            guide, judge, probe, generator, diffusion, seed=seed, people=people, candidates=candidates
        ):
            figures.append(figure)
            screen.update(task, advance=1, description=figure.name)
        for name, (_, draw) in pictures.items():
            save_png(out / f"{name}.png", draw())
            screen.update(task, advance=1, description=f"drawing {name}")
    table = Table("measure", "measured", "must be", "holds")
    for figure in figures:
        style = {True: "green", False: "bold red", None: ""}[figure.holds]
        holds = {True: "yes", False: "no", None: ""}[figure.holds]
        table.add_row(figure.name, figure.text, figure.bound or "reported", holds, style=style)
    console.print(table)
    text = "# The miniature world, measured\n\n`zeroshift miniature report` wrote this page.\n\n" + markdown(figures)
    text += "".join(f"\n{caption}\n\n![{caption}]({name}.png)\n" for name, (caption, _) in pictures.items())
    with atomic_write(out / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return figures


_COUNT = 15  # figures that `measure_all` gives without diffusion models, which have four each


def _diffusion_models(console: Console) -> dict[str, Any]:
    """The diffusion models by name; one that is not there is told and left out: a world in training has not all."""
    models: dict[str, Any] = {}
    for name in ("diffusion", "autoencoder"):
        try:
            models[name] = load_generator(f"miniature-{name}")
        except ZeroshiftError as error:
            console.print(f"Left out: {error}")
    return models


def _sampler() -> tuple[Domain, ...]:
    """Every medium on a person, then every other being as a photo."""
    return (
        *(Domain(medium, SOURCE.being) for medium in MEDIA),
        *(Domain(SOURCE.medium, being) for being in BEINGS if being != SOURCE.being),
    )
