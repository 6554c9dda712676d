"""Preview grids of a run: the same samples from source and target."""

from collections.abc import Sequence

import torch
from torch import Tensor

from zeroshift.config.settings import AdaptConfig
from zeroshift.generators.base import Generator
from zeroshift.io.numbering import numbered
from zeroshift.methods.base import Stage
from zeroshift.sampling.generate import generate
from zeroshift.training.run_folder import RunFolder

__all__ = ["draw_rows", "save_preview", "save_stage_preview"]


def draw_rows(config: AdaptConfig, generators: Sequence[Generator], num: int) -> list[Tensor]:
    """Samples 0 to num - 1 of the run's seed from each generator, [num, 3, R, R] in [-1, 1] on the CPU."""
    batches = generate(
        generators, num, seed=config.seed, truncation_psi=config.truncation_psi, class_index=config.class_index
    )
    return [torch.cat(images) for images in zip(*batches, strict=True)]


def save_preview(
    run: RunFolder, config: AdaptConfig, source: Generator, target: Generator | None, *, step: int
) -> None:
    """Writes previews/STEP.png: samples of the source above those of the target; None: the target equals the source."""
    rows = draw_rows(config, [source] if target is None else [source, target], config.preview_samples)
    run.save_image(numbered(step), torch.cat([rows[0], rows[-1]]), columns=config.preview_samples)


def save_stage_preview(run: RunFolder, config: AdaptConfig, stage: Stage, *, step: int) -> None:
    """Writes previews/STAGE-STEP.png, if the stage has something to show."""
    found = stage.preview(config.preview_samples)
    if found is not None:
        tiles, columns = found
        run.save_image(f"{stage.name}-{numbered(step)}", tiles, columns=columns)
