"""Opens finished runs for the other functions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.run_generators import load_source_and_target, require_one_source

__all__ = ["Run", "Runs", "load_for_photos", "load_generators", "open_runs"]

Run = str | Path | RunFolder
Runs = Run | Sequence[Run]

_PHOTO_STEPS = 40  # DDIM steps of diffusion models, each way


def open_runs(runs: Runs) -> list[RunFolder]:
    """The folders of one or more finished runs of one source generator.

    Raises:
        ZeroshiftError: if there is none, one is no run folder, or their sources differ.
    """
    several = [runs] if isinstance(runs, str | Path | RunFolder) else list(runs)
    if not several:
        raise ZeroshiftError("Name at least one run folder, such as runs/disney.")
    folders = [run if isinstance(run, RunFolder) else RunFolder.read(run) for run in several]
    require_one_source(folders)
    return folders


def load_generators(runs: Sequence[RunFolder], steps: int | None = None) -> tuple[Generator, list[Generator]]:
    """The source of all runs and the target of each, with the sampling settings of the first run.

    Args:
        steps: number of sampling steps of diffusion models that replaces the run's.
    """
    loaded = [load_source_and_target(run, runs[0].config.sampling, steps=steps) for run in runs]
    return loaded[0][0], [target for _, target in loaded]


def load_for_photos(
    runs: Sequence[RunFolder], steps: int | None = None, invert_steps: int | None = None
) -> tuple[Generator, list[Generator]]:
    """As `load_generators`, with as many DDIM steps of diffusion models as photos need.

    Args:
        steps: DDIM steps from noise to the image; None: 40.
        invert_steps: DDIM steps from the image to noise; None: 40. StyleGANs have other settings.

    Raises:
        ZeroshiftError: if a number is not positive, or the generator has no sampling steps.
    """
    source, targets = load_generators(runs)
    for generator in (source, *targets):
        if isinstance(generator.options, DDIMOptions):
            for name, number in (("steps", steps), ("invert_steps", invert_steps)):
                if number is not None and number <= 0:
                    raise ZeroshiftError(f"--{name.replace('_', '-')} is {number}; it must be positive.")
            options = replace(generator.options, steps=steps or _PHOTO_STEPS, invert_steps=invert_steps or _PHOTO_STEPS)
            generator.configure(options)
        elif steps is not None:
            raise ZeroshiftError(f"A {source.architecture} generator has no sampling steps. Leave --steps out.")
    return source, targets
