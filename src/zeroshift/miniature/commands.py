"""The commands of `zeroshift miniature` as plain functions. Those named `train_…` are the recipes of the models."""

from pathlib import Path

import torch

from zeroshift.errors import ZeroshiftError
from zeroshift.io.images import require_picture_name, save_picture, save_png, to_uint8
from zeroshift.io.numbering import numbered
from zeroshift.io.outputs import require_outputs
from zeroshift.io.titles import with_heading
from zeroshift.miniature.training.autoencoder import train_autoencoder
from zeroshift.miniature.training.bridge import train_bridge
from zeroshift.miniature.training.diffusion import train_diffusion
from zeroshift.miniature.training.evaluator import train_evaluator
from zeroshift.miniature.training.generator import train_generator
from zeroshift.miniature.training.guidance_encoder import train_guidance_encoder
from zeroshift.miniature.training.photo_encoder import train_photo_encoder
from zeroshift.miniature.training.probe import train_probe
from zeroshift.miniature.world.domains import BEINGS, MEDIA, SOURCE, Domain, parse_domain
from zeroshift.miniature.world.renderer import render, sample_latents
from zeroshift.miniature.world.sheet import domain_sheet, factor_sheet

__all__ = [
    "factors", "photo_report", "photos", "report", "sheet", "train_autoencoder", "train_bridge", "train_diffusion",
    "train_evaluator", "train_generator", "train_guidance_encoder", "train_photo_encoder", "train_probe",
]  # fmt: skip


def sheet(
    out: Path = Path("miniature-sheet.png"),
    *,
    domains: tuple[str, ...] = (),
    num: int = 10,
    seed: int = 0,
    scale: int = 1,
    title: str = "",
) -> None:
    """Write one image with the same people in several domains, one row per domain.

    Examples:
      zeroshift miniature sheet
      zeroshift miniature sheet --domains zombie "pencil sketch" "mosaic of an elf" --num 6 --scale 2

    Args:
        out: Image file to write: .png, .webp or .jpg.
        domains: Labels of domains, such as zombie "pencil sketch" "mosaic of an elf". Default: every medium, and every
            being as a photo.
        num: Number of people.
        seed: Seed of the people.
        scale: Factor that enlarges the images.
        title: Heading of the sheet.

    Raises:
        ZeroshiftError: If a number is below 1, a domain does not exist, or the title cannot be drawn.
    """
    if num < 1 or scale < 1:
        raise ZeroshiftError(f"--num and --scale must be at least 1, not {num} and {scale}.")
    beings = (Domain(SOURCE.medium, being) for being in BEINGS if being != SOURCE.being)
    default = (*(Domain(medium, SOURCE.being) for medium in MEDIA), *beings)
    chosen = tuple(parse_domain(label) for label in domains) or default
    require_picture_name(out)
    require_outputs(out)
    print(save_picture(out, with_heading(domain_sheet(chosen, num, seed, scale), title)))


def factors(
    out: Path = Path("miniature-factors.png"), *, domain: str = "photo", scale: int = 1, title: str = ""
) -> None:
    """Write one image of one person, one row per factor: the factor varies, all others stay the same.

    The rows are the factors that are visible in the domain.

    Examples:
      zeroshift miniature factors
      zeroshift miniature factors --domain "marble statue" --out statue.png

    Args:
        out: Image file to write: .png, .webp or .jpg.
        domain: Label of the domain.
        scale: Factor that enlarges the images.
        title: Heading of the sheet.

    Raises:
        ZeroshiftError: If the scale is below 1, the domain does not exist, or the title cannot be drawn.
    """
    if scale < 1:
        raise ZeroshiftError(f"--scale must be at least 1, not {scale}.")
    parsed = parse_domain(domain)
    require_picture_name(out)
    require_outputs(out)
    print(save_picture(out, with_heading(factor_sheet(parsed, scale=scale), title)))


def photos(out: Path = Path("miniature-photos"), *, domain: str = "photo", num: int = 48, seed: int = 80100) -> None:
    """Write rendered portraits of random people as 00000000.png, 00000001.png, ...

    They serve as source images of a diffusion run or as reference images of an evaluation.

    Examples:
      zeroshift miniature photos
      zeroshift adapt --generator miniature-diffusion --target zombie --source-images-dir miniature-photos
      zeroshift miniature photos --domain zombie --num 1000 --out zombies
      zeroshift evaluate RUN --reference zombies

    Args:
        out: Folder to write to.
        domain: Label of the domain, such as zombie "pencil sketch" "mosaic of an elf".
        num: Number of people.
        seed: Seed of the people. The models were trained on people of other seeds.

    Raises:
        ZeroshiftError: If the number is below 1 or the domain does not exist.
    """
    if num < 1:
        raise ZeroshiftError(f"--num must be at least 1, not {num}.")
    parsed = parse_domain(domain)
    files = [out / f"{numbered(number)}.png" for number in range(num)]
    require_outputs(*files)
    for numbers in torch.split(torch.arange(num), 64):
        samples = numbers.tolist()
        images = render(sample_latents(seed, samples), parsed, seed, samples)
        for number, image in zip(samples, images, strict=True):
            save_png(files[number], to_uint8(image[None])[0])
    print(out)


def report(out: Path = Path("docs/miniature-report"), *, seed: int = 90001) -> None:
    """Measure the shipped models, compare with their requirements, and write report.md and its images.

    Examples:
      zeroshift miniature report --out miniature-report

    Args:
        out: Folder to write to.
        seed: Seed of the people. Small seeds were used in training.
    """
    from zeroshift.miniature.exams.report import report as write_report

    write_report(out, seed=seed)


def photo_report(
    out: Path = Path("miniature-photo-report"), *, runs: Path = Path("runs/photo-report"), num: int = 64
) -> None:
    """Measure the inversion of photos into the miniature StyleGAN2: reconstructions, and translations of four targets.

    Adapts the generator to the targets first, which takes some minutes; photos take about 25 s each on one core. The
    same command continues after an interruption.

    Examples:
      zeroshift miniature photo-report --num 16

    Args:
        out: Folder to write report.md, report.json and photos.png to.
        runs: Folder of the adapted generators.
        num: Number of people, of each of two kinds.

    Raises:
        ZeroshiftError: If the number is below 1.
    """
    from zeroshift.miniature.exams.photo_exam import photo_report as write_report

    if num < 1:
        raise ZeroshiftError(f"--num must be at least 1, not {num}.")
    print(write_report(out, runs, num))
