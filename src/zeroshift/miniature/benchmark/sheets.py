"""Images of a benchmark: the people of its test set, a trial's sheet of them, and the comparison of all variants."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zeroshift.benchmark.provenance import slug
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.io.images import labeled_rows, make_grid, save_png
from zeroshift.miniature.benchmark.plan import BenchmarkPlan
from zeroshift.miniature.benchmark.records import image_path, read_record
from zeroshift.miniature.world.domains import parse_domain
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = ["NUM_SHOWN", "comparison_path", "held_out_people", "read_people", "save_comparison", "save_people"]

NUM_SHOWN = 8  # people in the comparison of a target
_TEST_SEED = 1_000_003  # of people that are used in neither training nor adaptation
_COLUMNS = 16  # of a trial's sheet


def held_out_people(num: int) -> Tensor:
    """Latents [num, 32] of the first people of the test set."""
    return sample_latents(_TEST_SEED, range(num))


def save_people(path: Path, images: Tensor) -> None:
    """Writes images [N, 3, 64, 64] in [-1, 1] as one sheet without gaps."""
    save_png(path, make_grid(images, _COLUMNS, gap=0))


def read_people(path: Path, num: int) -> Tensor:
    """The first `num` images [num, 3, 64, 64] in [-1, 1] of such a sheet."""
    with Image.open(path) as sheet:
        pixels = torch.from_numpy(np.array(sheet.convert("RGB")))
    size = pixels.shape[1] // _COLUMNS
    tiles: Tensor = pixels.unflatten(0, (-1, size)).unflatten(2, (-1, size))  # [rows, size, columns, size, 3]
    return tiles.permute(0, 2, 4, 1, 3).flatten(0, 1)[:num].float() / 127.5 - 1


def comparison_path(folder: Path, target: str) -> Path:
    """The image of a target that `save_comparison` draws."""
    return folder / f"{slug(target)}.png"


def save_comparison(plan: BenchmarkPlan, target: str, folder: Path) -> Path:
    """Draws the same people as input, as true images, and by every variant with the first seed.

    An existing file is kept if some trials have a record but no images.
    """
    path = comparison_path(folder, target)
    trials = [trial for trial in plan.trials() if trial.target == target and trial.seed == plan.seeds[0]]
    finished = [trial for trial in trials if read_record(plan, trial) is not None]
    drawn = [trial for trial in finished if image_path(plan, trial).exists()]
    if path.exists() and len(drawn) < len(finished):
        return path
    latents = held_out_people(NUM_SHOWN)
    rows = _inputs(plan, latents)
    rows["truth"] = render(latents, parse_domain(target))
    for trial in drawn:
        if trial.variant.name not in rows:
            rows[trial.variant.name] = read_people(image_path(plan, trial), NUM_SHOWN)
    return save_png(path, labeled_rows(rows))


@torch.inference_mode()
def _inputs(plan: BenchmarkPlan, latents: Tensor) -> dict[str, Tensor]:
    """The source generator's images; the photos if all variants adapt models that start from photos."""
    if any(variant.generator == "miniature" for variant in plan.variants if not variant.bound):
        return {"source": load_generator("miniature")(latents)}
    return {"photo": render(latents)}
