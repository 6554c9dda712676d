"""The source and adapted generators of finished runs."""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from zeroshift.config.settings import GeneratorOptions
from zeroshift.core.distributed import Distributed
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.training.run_folder import RunFolder

__all__ = ["load_source_and_target", "require_one_source"]


def load_source_and_target(
    run: RunFolder,
    sampling: GeneratorOptions | None = None,
    *,
    steps: int | None = None,
    invert_steps: int | None = None,
    module: nn.Module | None = None,
) -> tuple[Generator, Generator]:
    """The source and the adapted generator of a finished run, on the best device, with the run's sampling settings.

    Args:
        sampling: sampling settings that replace the run's, such as those of another run.
        steps: number of sampling steps from t0 to the image that replaces the run's, for diffusion models.
        invert_steps: number of inversion steps that replaces the run's, for diffusion models.
        module: a module like that of the run's generator, if it was wrapped in Python without a factory.

    Raises:
        ZeroshiftError: if the run is not finished, a file of it cannot be read, or its generator has no such steps.
    """
    run.require_generator()
    device = Distributed(run.config.device).device
    try:
        source = load_generator(run.source, device=device, module=module, trust=False)
    except ZeroshiftError as error:
        raise ZeroshiftError(f"The source generator of the run {run.path} cannot be loaded. {error}") from error
    target = load_generator(run.generator_path, device=device, module=module, trust=False)
    sampling = run.config.sampling if sampling is None else sampling
    if type(sampling) is not source.Options:
        sampling = source.Options()
    changes = {"steps": steps, "invert_steps": invert_steps}
    for name, value in changes.items():
        if value is None:
            continue
        if not hasattr(sampling, name):
            option = name.replace("_", "-")
            raise ZeroshiftError(f"A {source.architecture} generator has no sampling steps. Leave --{option} out.")
        sampling = replace(sampling, **{name: value})
    for generator in (source, target):
        generator.configure(sampling)
    return source, target


def require_one_source(runs: Sequence[RunFolder]) -> None:
    """Raises ZeroshiftError unless all runs started from one generator."""
    if len({run.source for run in runs}) > 1:
        raise ZeroshiftError(
            "These runs started from different generators. Only targets of one source can be shown together."
        )
