"""Samples of runs or generators: `zeroshift.generate`."""

from collections.abc import Iterator, Sequence
from typing import Literal, overload

from PIL import Image
from torch import Tensor

from zeroshift.api.pictures import Output, as_pil, output_scale
from zeroshift.api.runs import Run, load_generators, open_runs
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.io.scaling import Resample, Scale
from zeroshift.sampling import generate as sampling

__all__ = ["generate"]


@overload
def generate(
    source: Run | Sequence[Generator], num: int, *, seed: int = 0, truncation_psi: float | None = None,
    class_index: int | None = None, batch_size: int = 8, steps: int | None = None, output: Literal["tensor"] = "tensor",
    scale: int | str = 1, resample: Resample = "auto",
) -> Iterator[list[Tensor]]: ...  # fmt: skip
@overload
def generate(
    source: Run | Sequence[Generator], num: int, *, seed: int = 0, truncation_psi: float | None = None,
    class_index: int | None = None, batch_size: int = 8, steps: int | None = None, output: Literal["pil"],
    scale: int | str = 1, resample: Resample = "auto",
) -> Iterator[list[Image.Image]]: ...  # fmt: skip
def generate(
    source: Run | Sequence[Generator],
    num: int,
    *,
    seed: int = 0,
    truncation_psi: float | None = None,
    class_index: int | None = None,
    batch_size: int = 8,
    steps: int | None = None,
    output: Output = "tensor",
    scale: int | str = 1,
    resample: Resample = "auto",
) -> Iterator[list[Tensor]] | Iterator[list[Image.Image]]:
    """Samples 0 to num - 1 of a seed: of source and target of a finished run, or of several generators.

    All generators draw the same latents. A sample depends on the seed and its number only.

    Args:
        source: a run (a folder or a `RunFolder`), or generators: the source, then generators adapted from it.
        num: number of samples.
        seed: seed of the latents.
        truncation_psi: 1 keeps the full variety, smaller values move samples toward the mean. None: the setting of the
            run; generators have none, so it must be given for them.
        class_index: class of a class-conditional generator; None: that of the run.
        batch_size: samples per batch; it changes images by rounding only.
        steps: sampling steps of a run of a diffusion model; None: the setting of the run.
        output: "tensor": batches; "pil": one sample at a time.
        scale: enlarges PIL images: a whole factor, such as 4, or a height, such as "1024px".
        resample: "nearest" repeats pixels, "lanczos" is smooth; "auto": nearest for whole factors, otherwise lanczos.

    Yields:
        For "tensor", a batch: one tensor [n, 3, R, R] per generator, about within [-1, 1], on the CPU. For "pil", a
        sample: one image per generator.

    Raises:
        ZeroshiftError: a run that is not finished, a missing truncation, a class that does not fit, an invalid scale,
            or images that are not finite numbers.

    Examples:
        >>> for before, after in generate("runs/zombie", 2, output="pil", scale=4):
        ...     print(after.size)
        (256, 256)
        (256, 256)
    """
    chosen = output_scale(scale, resample, output)
    if isinstance(source, Sequence) and not isinstance(source, str):
        generators = list(source)
        if truncation_psi is None:
            raise ZeroshiftError("Give truncation_psi: a run has a default for it, generators have none.")
        if steps is not None:
            raise ZeroshiftError("Generators have sampling steps of their own (`configure`). Leave `steps` out.")
    else:
        (run,) = open_runs(source)
        before, after = load_generators([run], steps)
        generators = [before, *after]
        truncation_psi = run.config.truncation_psi if truncation_psi is None else truncation_psi
        class_index = run.config.class_index if class_index is None else class_index
    batches = sampling.generate(
        generators, num, seed=seed, truncation_psi=truncation_psi, class_index=class_index, batch_size=batch_size
    )
    return batches if output == "tensor" else _one_by_one(batches, chosen)


def _one_by_one(batches: Iterator[list[Tensor]], scale: Scale) -> Iterator[list[Image.Image]]:
    for batch in batches:
        for row in zip(*(as_pil(images, scale) for images in batch), strict=True):
            yield list(row)
