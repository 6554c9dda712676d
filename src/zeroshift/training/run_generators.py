"""The source and adapted generators of finished runs."""

from collections.abc import Sequence
from dataclasses import replace

from zeroshift.config.settings import Sampling
from zeroshift.core.distributed import Distributed
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.training.run_folder import RunFolder

__all__ = ["load_source_and_target", "require_one_source"]


def load_source_and_target(
    run: RunFolder, sampling: Sampling | None = None, steps: int | None = None
) -> tuple[Generator, Generator]:
    """The generator that a finished run started from and the one that it delivered, on the best device there is.

    Args:
        sampling: how a diffusion model makes images; as in the run if None.
        steps: its steps from t0 to the image, if they are to be others.
    Raises:
        ZeroshiftError: if the run is not finished, a file of it cannot be read, or its generator takes no steps.
    """
    run.require_generator()
    device = Distributed(run.config.device).device
    source, target = (load_generator(name, device=device) for name in (run.config.generator, run.generator_path))
    sampling = sampling or run.config.diffusion
    if steps is not None:
        if "sampling" not in source.config:
            raise ZeroshiftError(f"A {source.architecture} generator makes an image in one step. Leave --steps out.")
        sampling = replace(sampling, steps=steps)
    for generator in (source, target):
        generator.set_sampling(sampling)
    return source, target


def require_one_source(runs: Sequence[RunFolder]) -> None:
    """Raises ZeroshiftError unless all runs started from one generator."""
    if len({run.config.generator for run in runs}) > 1:
        raise ZeroshiftError(
            "These runs started from different generators; only targets of one source can be shown together."
        )
