"""The commands of `zeroshift miniature`, as plain functions: sheet, factors, photos, report, one `train_` a model."""

from pathlib import Path

import torch

from zeroshift.errors import ZeroshiftError
from zeroshift.io.images import save_png, to_uint8
from zeroshift.miniature.training.autoencoder import train_autoencoder
from zeroshift.miniature.training.diffusion import train_diffusion
from zeroshift.miniature.training.generator import train_generator
from zeroshift.miniature.training.guide import train_guide
from zeroshift.miniature.training.judge import train_judge
from zeroshift.miniature.training.probe import train_probe
from zeroshift.miniature.world.domains import BEINGS, MEDIA, SOURCE, Domain, parse_domain
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = [
    "factors", "photos", "report", "sheet", "train_autoencoder", "train_diffusion", "train_generator", "train_guide",
    "train_judge", "train_probe",
]  # fmt: skip


def sheet(
    out: Path = Path("miniature-sheet.png"),
    *,
    domains: tuple[str, ...] = (),
    num: int = 10,
    seed: int = 0,
    scale: int = 1,
) -> None:
    """Draw the same people in several domains, a row a domain.

    Args:
        out: the picture to write.
        domains: labels such as zombie "pencil sketch" "mosaic of an elf"; if none, every medium and every being.
        num: how many people.
        seed: which people.
        scale: enlarges the pictures.
    """
    from zeroshift.miniature.world.sheet import domain_sheet

    if num < 1 or scale < 1:
        raise ZeroshiftError("A sheet needs at least one person (--num) and a scale of at least 1 (--scale).")
    beings = (Domain(SOURCE.medium, being) for being in BEINGS if being != SOURCE.being)
    every = (*(Domain(medium, SOURCE.being) for medium in MEDIA), *beings)
    chosen = tuple(parse_domain(label) for label in domains) or every
    print(save_png(out, domain_sheet(chosen, num, seed, scale)))


def factors(out: Path = Path("miniature-factors.png"), *, domain: str = "photo", scale: int = 1) -> None:
    """Draw one person with one factor varied a row, for all factors that the domain shows.

    Args:
        out: the picture to write.
        domain: its label.
        scale: enlarges the pictures.
    """
    from zeroshift.miniature.world.sheet import factor_sheet

    if scale < 1:
        raise ZeroshiftError("A sheet needs a scale of at least 1 (--scale).")
    print(save_png(out, factor_sheet(parse_domain(domain), scale=scale)))


def photos(out: Path = Path("miniature-photos"), *, domain: str = "photo", num: int = 48, seed: int = 80100) -> None:
    """Write portraits of random people as single files: images to start from, or to hold results against.

    Examples:
      zeroshift miniature photos
      zeroshift adapt --generator miniature-diffusion --target zombie --source-images-dir miniature-photos
      zeroshift miniature photos --domain zombie --num 1000 --out zombies      for `zeroshift evaluate --reference`

    Args:
        out: the folder.
        domain: what they show, such as zombie "pencil sketch" "mosaic of an elf".
        num: how many people.
        seed: which people; the models were trained on those of other seeds.
    """
    if num < 1:
        raise ZeroshiftError("Name at least one person (--num).")
    shown = parse_domain(domain)
    for numbers in torch.arange(num).split(64):
        latents = sample_latents(seed, numbers.tolist())
        for number, image in zip(numbers.tolist(), render(latents, shown, seed, numbers.tolist()), strict=True):
            save_png(out / f"{number:05d}.png", to_uint8(image[None])[0])
    print(out)


def report(out: Path = Path("docs/miniature-report"), *, seed: int = 90001) -> None:
    """Measure the shipped models against what must hold, and write the table and pictures.

    Args:
        out: folder for report.md and its pictures.
        seed: which people the models are examined on; those of small seeds were trained on.
    """
    from zeroshift.miniature.exams.report import report as measure

    measure(out, seed=seed)
