"""Measures the inversion of photos: reconstructions, and translations next to those of the true latents."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.metrics.pairs import paired_distance
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.inversion.inverted import Inverted, render
from zeroshift.inversion.inverter import Inverter
from zeroshift.inversion.options import InversionOptions
from zeroshift.io.atomic import atomic_write
from zeroshift.io.images import eight_bit, labeled_rows, save_png
from zeroshift.io.outputs import require_outputs
from zeroshift.methods.configure import default_config
from zeroshift.miniature.exams.measure import in_chunks
from zeroshift.miniature.exams.pixels import psnr
from zeroshift.miniature.networks.encoders import load_evaluator
from zeroshift.miniature.networks.photo_encoder import load_photo_encoder
from zeroshift.miniature.world.domains import parse_domain
from zeroshift.miniature.world.renderer import render as draw
from zeroshift.miniature.world.renderer import sample_latents
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.trainer import adapt

__all__ = ["MODES", "PEOPLE", "TARGETS", "Mode", "photo_report"]

TARGETS = ("zombie", "robot", "pencil sketch", "marble statue")
PEOPLE = {"people of the benchmark": 1_000_003, "new people": 95_001}  # seeds that no training uses
_SHOWN = 8  # people in the sheet


@dataclass(frozen=True)
class Mode:
    """A way to invert photos."""

    options: InversionOptions
    encoder: bool


_BASE = InversionOptions(distance="pyramid")
MODES = {
    "encoder": Mode(replace(_BASE, steps=0, tuning_steps=0), encoder=True),
    "W": Mode(replace(_BASE, space="w", tuning_steps=0), encoder=False),
    "W+": Mode(replace(_BASE, tuning_steps=0), encoder=False),
    "W+ from the encoder": Mode(replace(_BASE, steps=100, tuning_steps=0), encoder=True),
    "PTI from the encoder": Mode(replace(_BASE, steps=100), encoder=True),
}


def photo_report(out: Path, runs: Path, num: int, show: Callable[[str], None] = print) -> Path:
    """Inverts photos of people in every mode, translates them, and writes OUT/report.md, report.json and photos.png.

    Args:
        runs: folder of the adapted generators; missing ones are made by IPL with its default settings.
        num: people of each kind.
        show: called with a line about each result.
    """
    files = [out / name for name in ("report.md", "report.json", "photos.png")]
    require_outputs(*files)
    source = load_generator("miniature").eval().requires_grad_(False)
    targets = {target: _adapted(target, runs, show) for target in TARGETS}
    evaluator = load_evaluator()
    results: dict[str, dict[str, dict[str, float]]] = {}
    rows: dict[str, Tensor] = {}
    for kind, seed in PEOPLE.items():
        latents = sample_latents(seed, range(num))
        exam = _Exam(source, targets, evaluator, latents)
        results[kind] = {"true latent": exam.measure([Inverted(codes) for codes in exam.codes])}
        show(f"{kind}, true latent: {results[kind]['true latent']}")
        for name, mode in MODES.items():
            encoder = load_photo_encoder() if mode.encoder else None
            inverted = Inverter(source, mode.options, encoder, out / "cache")(exam.photos)
            results[kind][name] = exam.measure(inverted)
            show(f"{kind}, {name}: {results[kind][name]}")
            if kind == next(iter(PEOPLE)):
                rows |= exam.rows(name, inverted)
        if kind == next(iter(PEOPLE)):
            rows = {"photo": exam.photos[:_SHOWN], **rows, **exam.truth_rows()}
    save_png(files[2], labeled_rows(rows))
    for file, text in ((files[0], _table(results, num)), (files[1], json.dumps(results, indent=1) + "\n")):
        with atomic_write(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return files[0]


def _adapted(target: str, runs: Path, show: Callable[[str], None]) -> Generator:
    """The generator of a finished run of IPL, which is made if it is missing."""
    folder = runs / target.replace(" ", "-")
    show(f"{target}: {folder}")
    try:
        run = RunFolder.read(folder)
        run.require_generator()
    except ZeroshiftError:
        config = replace(default_config("miniature", method="ipl"), target=target, device="cpu")
        run = RunFolder.open(folder, config)
        adapt(config, run)
    return load_generator(run.generator_path).eval().requires_grad_(False)


class _Exam:
    """Photos of people with known latents, and the generators that they are translated by."""

    def __init__(self, source: Generator, targets: Mapping[str, Generator], evaluator: Encoder, latents: Tensor):
        self.source, self.targets, self.evaluator = source, targets, evaluator
        self.latents, self.photos = latents, eight_bit(draw(latents))
        with torch.no_grad():
            self.codes = source.codes(latents)
        self.truth = {target: draw(latents, parse_domain(target)) for target in targets}

    @torch.no_grad()
    def measure(self, inverted: Sequence[Inverted]) -> dict[str, float]:
        """PSNR and the evaluator's cosine of reconstructions, and the distance to the truth of each target."""
        images = self._drawn(self.source, inverted)
        result = {
            "psnr": psnr(images, self.photos).item(),
            "cosine": 1 - paired_distance(self._features(images), self._features(self.photos)),
        }
        for target, generator in self.targets.items():
            drawn = self._drawn(generator, inverted)
            result[target] = paired_distance(self._features(drawn), self._features(self.truth[target]))
        return {name: round(float(value), 4) for name, value in result.items()}

    def rows(self, name: str, inverted: Sequence[Inverted]) -> dict[str, Tensor]:
        """Some reconstructions and translations, for the sheet."""
        target = next(iter(self.targets))
        return {
            name: self._drawn(self.source, inverted[:_SHOWN]),
            f"{name}: {target}": self._drawn(self.targets[target], inverted[:_SHOWN]),
        }

    def truth_rows(self) -> dict[str, Tensor]:
        """The true latents' images and the true images of the same people."""
        target = next(iter(self.targets))
        true = [Inverted(codes) for codes in self.codes[:_SHOWN]]
        return {
            f"true latent: {target}": self._drawn(self.targets[target], true),
            f"truth: {target}": self.truth[target][:_SHOWN],
        }

    @torch.no_grad()
    def _drawn(self, generator: Generator, inverted: Sequence[Inverted]) -> Tensor:
        return eight_bit(torch.cat([render(generator, one.codes[None], one.changes) for one in inverted]))

    def _features(self, images: Tensor) -> Tensor:
        return in_chunks(self.evaluator.encode_image, images)


def _table(results: Mapping[str, Mapping[str, Mapping[str, float]]], num: int) -> str:
    """The results in Markdown. Distances stand beside their ratio to those of the true latents."""
    lines = []
    for kind, modes in results.items():
        lines += [f"{num} {kind}:", "", f"| inversion | PSNR | cosine | {' | '.join(TARGETS)} |"]
        lines.append(f"| --- | {' | '.join(['---:'] * (2 + len(TARGETS)))} |")
        true = modes["true latent"]
        for name, values in modes.items():
            distances = [f"{values[target]:.3f} ({values[target] / true[target]:.2f})" for target in TARGETS]
            lines.append(f"| {name} | {values['psnr']:.1f} | {values['cosine']:.3f} | {' | '.join(distances)} |")
        lines.append("")
    return "\n".join(lines)
