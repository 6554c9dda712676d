"""Preview grids of a run: the same samples from source and target."""

import torch
from torch import Tensor

from zeroshift.config.settings import AdaptConfig
from zeroshift.generators.base import Codes, Generator
from zeroshift.io.numbering import numbered
from zeroshift.methods.base import Stage
from zeroshift.sampling.generate import decode, source_codes
from zeroshift.training.run_folder import RunFolder

__all__ = ["Samples", "save_preview", "save_stage_preview"]

_BATCH = 8


class Samples:
    """Samples of the run's seed from the source, and from generators that are adapted from it.

    Codes and source images are computed once and kept, until another number of samples is requested. For a diffusion
    model they are most of the work: the codes take `sampling.noise_steps` evaluations of the U-Net per sample.
    """

    def __init__(self, config: AdaptConfig, source: Generator) -> None:
        self._config, self._source = config, source
        self._num = 0
        self._codes: list[Codes] = []
        self._images = torch.empty(0)

    def source(self, num: int) -> Tensor:
        """Source images of samples 0 to num - 1, [num, 3, R, R] in [-1, 1] on the CPU."""
        if num != self._num:
            config, source = self._config, self._source
            batches = torch.arange(num).split(_BATCH)
            self._codes = [
                source_codes(
                    source,
                    source.sample_latents(config.seed, batch.tolist()),
                    truncation_psi=config.truncation_psi,
                    class_index=config.class_index,
                ).clone()  # a CUDA graph would overwrite them (`compilation`)
                for batch in batches
            ]
            self._images = torch.cat([decode(source, codes, "The source generator") for codes in self._codes])
            self._num = num
        return self._images

    def adapted(self, generator: Generator, num: int) -> Tensor:
        """Images of a generator adapted from the source, of the same samples."""
        self.source(num)
        return torch.cat([decode(generator, codes, "An adapted generator") for codes in self._codes])


def save_preview(run: RunFolder, samples: Samples, num: int, target: Generator | None, *, step: int) -> None:
    """Writes previews/STEP.png: samples of the source above those of the target; None: the target equals the source."""
    source = samples.source(num)
    row = source if target is None else samples.adapted(target, num)
    run.save_image(numbered(step), torch.cat([source, row]), columns=num)


def save_stage_preview(run: RunFolder, config: AdaptConfig, stage: Stage, *, step: int) -> None:
    """Writes previews/STAGE-STEP.png, if the stage has something to show."""
    found = stage.preview(config.preview_samples)
    if found is not None:
        tiles, columns = found
        run.save_image(f"{stage.name}-{numbered(step)}", tiles, columns=columns)
