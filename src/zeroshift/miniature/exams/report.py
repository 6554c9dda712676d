"""The report on the shipped models: measurements with their requirements, and images."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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
from zeroshift.io.outputs import MARKDOWN_MARK, require_outputs
from zeroshift.miniature.exams.diffusion_exam import STEPS, examine
from zeroshift.miniature.exams.measure import (
    CLASS,
    R2,
    DomainExam,
    attack_transfer,
    domain_accuracy,
    domain_report,
    in_chunks,
    label_features,
    probe_report,
    retrieval_report,
)
from zeroshift.miniature.exams.pixels import psnr
from zeroshift.miniature.exams.sheets import diffusion_sheet, generator_sheet
from zeroshift.miniature.networks.encoders import Probe, load_evaluator, load_probe
from zeroshift.miniature.world.domains import BEINGS, DOMAINS, HELD_OUT, MEDIA, SOURCE, TRAINED, Domain
from zeroshift.miniature.world.renderer import render, sample_latents
from zeroshift.miniature.world.sheet import domain_sheet, factor_sheet

__all__ = [
    "Measurement", "Models", "diffusion_measurements", "generator_measurements", "markdown", "measure_all",
    "one_domain_per_medium", "report",
]  # fmt: skip

_COUNT = 15  # measurements without diffusion models
_DIFFUSION_COUNT = 4  # further measurements per diffusion model


@dataclass(frozen=True)
class Measurement:
    """One measured number.

    Attributes:
        text: the formatted value.
        bound: the requirement; "" means none.
        holds: whether it is met; None if there is no requirement.
    """

    name: str
    value: float
    text: str
    bound: str = ""
    holds: bool | None = None


@dataclass(frozen=True)
class Models:
    """The models to measure. `diffusion` may contain "diffusion" and "autoencoder"."""

    guidance: Encoder
    evaluator: Encoder
    probe: Probe
    generator: Generator
    diffusion: Mapping[str, Any]


def _percent(name: str, value: float, at_least: float | None = None, below: float | None = None) -> Measurement:
    return _measurement(name, value, f"{100 * value:.1f} %", at_least, below, lambda bound: f"{100 * bound:g} %")


def _number(name: str, value: float, unit: str = "", at_least: float | None = None) -> Measurement:
    return _measurement(name, value, f"{value:.2f}{unit}", at_least, None, lambda bound: f"{bound:g}{unit}")


def _measurement(
    name: str, value: float, text: str, at_least: float | None, below: float | None, show: Callable[[float], str]
) -> Measurement:
    if at_least is not None:
        return Measurement(name, value, text, f"at least {show(at_least)}", value >= at_least)
    if below is not None:
        return Measurement(name, value, text, f"below {show(below)}", value < below)
    return Measurement(name, value, text)


def one_domain_per_medium() -> tuple[Domain, ...]:
    """Twelve training domains, one per medium, with varying beings: a sample for slow measurements."""
    chosen = []
    for offset, medium in enumerate(MEDIA):
        beings = list(BEINGS)[offset % len(BEINGS) :] + list(BEINGS)[: offset % len(BEINGS)]
        chosen.append(next(domain for being in beings if (domain := Domain(medium, being)) not in HELD_OUT))
    return tuple(chosen)


def encoder_measurements(
    encoders: Mapping[str, Encoder], exam: DomainExam, *, seed: int, candidates: int
) -> Iterator[Measurement]:
    """Domain accuracy of encoders by name, then their caption retrieval among `candidates` people."""
    for name, encoder in encoders.items():
        accuracy = domain_report(exam, encoder.encode_image, encoder.encode_text, encoder.templates)
        yield _percent(f"{name}: zero-shot domain accuracy, seen pairs", accuracy["seen"], at_least=0.98)
        yield _percent(f"{name}: zero-shot domain accuracy, held-out pairs", accuracy["held_out"], at_least=0.85)
    for name, encoder in encoders.items():
        retrieval = retrieval_report(
            encoder.encode_image, encoder.encode_text, seed=seed, domains=one_domain_per_medium(), candidates=candidates
        )
        photos = retrieval[SOURCE.full_label]
        yield _percent(f"{name}: caption of a photo of a person among {candidates}", photos, at_least=0.5)
        yield _percent(f"{name}: the same, mean of 12 domains", sum(retrieval.values()) / len(retrieval))


@torch.no_grad()
def generator_measurements(generator: Generator, evaluator: Encoder, *, seed: int, count: int) -> list[Measurement]:
    """The generator against the renderer at the same latents, and the evaluator's classification of its images.

    The evaluator chooses among the labels of all 84 domains. PSNR is over all pixels of all images, with peak 2.
    """
    latents = sample_latents(seed, range(count))
    labels = label_features(evaluator.encode_text, evaluator.templates, [domain.label for domain in DOMAINS])
    truth = torch.full((count,), DOMAINS.index(SOURCE))
    images, truncated = (
        torch.cat([generator(part, truncation_psi=psi) for part in torch.split(latents, 64)]).clamp(-1, 1)
        for psi in (1.0, 0.7)
    )

    def accuracy(images: torch.Tensor) -> float:
        return domain_accuracy(in_chunks(evaluator.encode_image, images), labels, truth).mean().item()

    quality = psnr(images, render(latents)).item()
    return [
        _number("generator: PSNR against the renderer", quality, " dB", at_least=24),
        _percent("generator: classified as a photo of a person", accuracy(images), at_least=0.99),
        _percent("generator: the same, truncated to 0.7", accuracy(truncated)),
    ]


def diffusion_measurements(
    name: str, generator: Diffusion, evaluator: Encoder, *, seed: int, count: int
) -> list[Measurement]:
    """The results of `examine` for a diffusion model by name."""
    results = examine(generator, evaluator, seed=seed, count=count)
    return [
        _number(f"{name}: FD of samples to {count} renders, held-out evaluator's features", results["distance"]),
        _number(f"{name}: the same of {count} other renders", results["floor"]),
        _percent(f"{name}: classified as a photo of a person", results["accuracy"]),
        _number(f"{name}: inverted and regenerated, {STEPS} steps each, PSNR", results["round_trip"], " dB"),
    ]


def measure_all(models: Models, *, seed: int, people: int, candidates: int) -> Iterator[Measurement]:
    """All measurements, one by one.

    Args:
        seed: seed of the people. Small seeds were used in training.
        people: number of people in each of the 84 domains, for the exams of domains and factors.
        candidates: number of captions to choose from, and of photos in the exams of photos; adversarial photos are
            half as many.
    """
    exam = DomainExam.make(seed, people)
    encoders = {"guidance encoder": models.guidance, "held-out evaluator": models.evaluator}
    yield from encoder_measurements(encoders, exam, seed=seed, candidates=candidates)
    yield from generator_measurements(models.generator, models.evaluator, seed=seed, count=candidates)
    for name, model in models.diffusion.items():
        yield from diffusion_measurements(name, model, models.evaluator, seed=seed, count=candidates)
    reading = probe_report(models.probe, exam, TRAINED)
    yield _percent("probe: mean class accuracy, visible factors, seen domains", reading[CLASS], at_least=0.95)
    yield _number("probe: mean R2, visible factors, seen domains", reading[R2], at_least=0.85)
    labels = [domain.label for domain in DOMAINS]
    sides = [(e.encode_image, label_features(e.encode_text, e.templates, labels)) for e in encoders.values()]
    attack = attack_transfer(sides[0], sides[1], seed=seed, count=candidates // 2)
    yield _percent("faint patterns: photos that fool the guidance encoder", attack["fooled"])
    yield _percent(
        "faint patterns: fraction of those that also fool the held-out evaluator", attack["transferred"], below=0.2
    )


def markdown(measurements: Sequence[Measurement]) -> str:
    """The measurements as a Markdown table."""
    verdict = {True: "yes", False: "**no**", None: ""}
    rows = [f"| {m.name} | {m.text} | {m.bound or 'reported'} | {verdict[m.holds]} |" for m in measurements]
    header = ["| measure | measured | required | met |", "| --- | --- | --- | --- |"]
    return "\n".join([*header, *rows]) + "\n"


def report(
    out: str | os.PathLike[str],
    *,
    seed: int,
    people: int = 24,
    candidates: int = 256,
    console: Console | None = None,
) -> list[Measurement]:
    """Measures the shipped models, prints a table and writes `report.md` and its images into `out`.

    `people` and `candidates` are as in `measure_all`.

    Raises:
        ZeroshiftError: if a model's file is missing or damaged, or `out` cannot be written.
    """
    console, out = console or Console(), Path(out)
    models = Models(
        load_encoder("miniature"), load_evaluator(), load_probe(), load_generator("miniature"), _diffusion(console)
    )
    images = _images(models, seed)
    require_outputs(out / "report.md", *(out / f"{name}.png" for name in images))
    measurements: list[Measurement] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as screen:
        total = _COUNT + _DIFFUSION_COUNT * len(models.diffusion) + len(images)
        task = screen.add_task("measuring", total=total)
        for measurement in measure_all(models, seed=seed, people=people, candidates=candidates):
            measurements.append(measurement)
            screen.update(task, advance=1, description=measurement.name)
        console.print(_table(measurements))
        for name, (_, draw) in images.items():
            save_png(out / f"{name}.png", draw())
            screen.update(task, advance=1, description=f"drawing {name}")
    text = "# The miniature world, measured\n\nWritten by `zeroshift miniature report`.\n\n" + markdown(measurements)
    text += "".join(f"\n{caption}\n\n![{caption}]({name}.png)\n" for name, (caption, _) in images.items())
    with atomic_write(out / "report.md") as temporary:
        temporary.write_text(text + MARKDOWN_MARK, encoding="utf-8")
    return measurements


def _table(measurements: Sequence[Measurement]) -> Table:
    table = Table("measure", "measured", "required", "met")
    for m in measurements:
        style = {True: "green", False: "bold red", None: ""}[m.holds]
        met = {True: "yes", False: "no", None: ""}[m.holds]
        table.add_row(m.name, m.text, m.bound or "reported", met, style=style)
    return table


def _images(models: Models, seed: int) -> dict[str, tuple[str, Callable[[], np.ndarray]]]:
    """Name -> caption and drawing function of the images of the report."""
    images: dict[str, tuple[str, Callable[[], np.ndarray]]] = {
        "domains": ("Eight people in every medium and as every being.", lambda: domain_sheet(_sample(), 8, seed)),
        "factors": ("One factor per row.", factor_sheet),
        "generator": ("The generator beside the renderer.", lambda: generator_sheet(models.generator, 12, seed)),
    }
    diffusion = models.diffusion
    if len(diffusion) == 2:
        images["diffusion"] = (
            "Random people of both diffusion models; photos, reconstructed by the autoencoder and from z_sem alone.",
            lambda: diffusion_sheet(diffusion["diffusion"], diffusion["autoencoder"], 12, seed),
        )
    return images


def _diffusion(console: Console) -> dict[str, Any]:
    """The diffusion models by name. Models that are not trained yet are reported and left out."""
    models: dict[str, Any] = {}
    for name in ("diffusion", "autoencoder"):
        try:
            models[name] = load_generator(f"miniature-{name}")
        except ZeroshiftError as error:
            console.print(f"Left out: {error}")
    return models


def _sample() -> tuple[Domain, ...]:
    """Every medium with a person, then every other being in a photo."""
    return (
        *(Domain(medium, SOURCE.being) for medium in MEDIA),
        *(Domain(SOURCE.medium, being) for being in BEINGS if being != SOURCE.being),
    )
