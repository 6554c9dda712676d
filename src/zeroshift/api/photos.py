"""Photos in the domain of runs: `zeroshift.invert` and `zeroshift.translate`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zeroshift.api.pictures import Output, Photos, as_pil, output_scale, pictures
from zeroshift.api.runs import Runs, load_for_photos, open_runs
from zeroshift.core.distributed import Distributed
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.inversion.faces import Faces
from zeroshift.inversion.inverted import Inverted
from zeroshift.inversion.inverter import InversionProgress, Inverter
from zeroshift.inversion.options import Space
from zeroshift.inversion.portraits import make_inverter
from zeroshift.inversion.translate import Translator
from zeroshift.io.scaling import Resample
from zeroshift.methods.configure import default_config

__all__ = ["Progress", "invert", "invert_into", "result_shares", "silent", "translate"]

Progress = Callable[[InversionProgress], None]
_INVERT_STEPS = 40  # DDIM steps of diffusion models


def silent(progress: InversionProgress) -> None:
    """Shows nothing."""


def invert(
    photos: Photos,
    generator: str | Path = "miniature",
    *,
    space: Space | None = None,
    steps: int | None = None,
    tune_steps: int | None = None,
    encoder: str | Path = "auto",
    distance: str | None = None,
    align: str | None = None,
    faces: Faces = "largest",
    seed: int = 0,
    device: Literal["auto", "cpu"] = "auto",
    progress: Progress = silent,
) -> list[Inverted]:
    """Inverts photos into a generator, as `zeroshift invert` does. Finished ones are kept in the cache.

    Args:
        photos: one or more: files, folders, PIL images, or tensors [3, H, W] in [-1, 1].
        generator: name or file of the source generator.
        space, steps, tune_steps, encoder, distance: see `zeroshift invert --help`; None: its defaults.
        align: "auto" (faces), "none" (the middle) or "LEFT,TOP,SIDE"; None: the default of the generator.
        faces: "largest" or "all", of each photo.
        seed: seed of the noise of the optimization.
        progress: called after each step.

    Returns:
        The inverted photos, on the CPU. `Inverted.save` writes one; `translate` takes them.

    Raises:
        ZeroshiftError: photos that cannot be read or show no face, invalid settings, or an encoder that does not fit.

    Examples:
        >>> (me,) = invert("me.png", "miniature", tune_steps=2)
        >>> me.save(Path("me.safetensors"))
    """
    name = str(generator)
    loaded = load_generator(name, device=Distributed(device).device)
    sampling = default_config(name).sampling  # with the t0 of its runs
    if isinstance(sampling, DDIMOptions):
        loaded.configure(replace(sampling, invert_steps=steps or _INVERT_STEPS))
    squares = pictures(photos, loaded.resolution, align=align, faces=faces, generator=name)
    inverter = make_inverter(
        loaded, name, space=space, steps=steps, tune_steps=tune_steps, distance=distance, encoder=str(encoder),
        seed=seed,
    )  # fmt: skip
    return _inverted(inverter, squares, progress)


def translate(
    runs: Runs,
    photos: Photos,
    *,
    strength: float = 1.0,
    mix: Sequence[float] | None = None,
    separate: bool = False,
    steps: int | None = None,
    invert_steps: int | None = None,
    space: Space | None = None,
    tune_steps: int | None = None,
    encoder: str | Path = "auto",
    distance: str | None = None,
    align: str | None = None,
    faces: Faces = "largest",
    progress: Progress = silent,
    output: Output = "pil",
    scale: int | str = 1,
    resample: Resample = "auto",
) -> Any:
    """Photos in the domain of one or more runs, as `zeroshift translate` makes them.

    Args:
        runs: a finished run, or several of one source: folders or `RunFolder`.
        photos: see `invert`; inverted photos as well.
        strength: strength of adaptation, from 0 (source) to 1 (target).
        mix: one share per run; None: equal shares.
        separate: the result of each run, instead of a mixture.
        steps, invert_steps, space, tune_steps, encoder, distance, align, faces: see `zeroshift translate --help`.
        progress: called after each step of the inversion.
        output: "pil" or "tensor".
        scale: enlarges PIL images: a whole factor, such as 4, or a height, such as "1024px".
        resample: "nearest" repeats pixels, "lanczos" is smooth; "auto": nearest for whole factors, otherwise lanczos.

    Returns:
        A list with one PIL image per photo, or with `separate` one list per photo with an image for each run. As a
        tensor: [N, 3, R, R] in [-1, 1] on the CPU, with `separate` [N, runs, 3, R, R].

    Raises:
        ZeroshiftError: as `invert`, and for runs that are not finished or have different sources.

    Examples:
        >>> (result,) = translate("runs/zombie", "me.png", strength=0.8, tune_steps=2, scale="512px")
        >>> result.size
        (512, 512)
    """
    folders = open_runs(runs)
    shares = result_shares(len(folders), strength, mix, separate)
    chosen = output_scale(scale, resample, output)
    source, targets = load_for_photos(folders, steps, invert_steps)
    name = folders[0].source
    squares = pictures(photos, source.resolution, align=align, faces=faces, generator=name)
    used = str(encoder) if any(isinstance(one, Tensor) for one in squares) else "none"
    inverter = make_inverter(
        source, name, space=space, steps=invert_steps, tune_steps=tune_steps, distance=distance, encoder=used
    )
    translators = [Translator(inverter, targets, share) for share in shares]
    rows = torch.stack(
        [torch.cat([one.draw(photo) for one in translators]) for photo in _inverted(inverter, squares, progress)]
    )
    if output == "tensor":
        return rows if separate else rows[:, 0]
    images = [as_pil(row, chosen) for row in rows]
    return images if separate else [row[0] for row in images]


def result_shares(runs: int, strength: float, mix: Sequence[float] | None, separate: bool) -> list[list[float]]:
    """For each result of a photo, the share of each run.

    Raises:
        ZeroshiftError: if the numbers do not fit the runs.
    """
    if not math.isfinite(strength):
        raise ZeroshiftError(f"--strength is {strength}; it must be a number.")
    if separate:
        if mix is not None:
            raise ZeroshiftError("--separate shows every run alone, so there is nothing to mix: leave --mix out.")
        return [[strength * (run == column) for run in range(runs)] for column in range(runs)]
    shares = [1 / runs] * runs if mix is None else list(mix)
    if len(shares) != runs:
        raise ZeroshiftError(f"{len(shares)} shares of a mix for {runs} runs: give one share per run.")
    return [[strength * share for share in shares]]


def invert_into(
    generator: Generator, name: str, squares: Sequence[Tensor | Inverted], progress: Progress = silent
) -> list[Inverted]:
    """Photos inverted into a loaded generator of this name with default settings; see `pictures` for the squares."""
    encoder = "auto" if any(isinstance(one, Tensor) for one in squares) else "none"
    return _inverted(make_inverter(generator, name, encoder=encoder), squares, progress)


def _inverted(inverter: Inverter, squares: Sequence[Tensor | Inverted], progress: Progress) -> list[Inverted]:
    """All photos inverted, in order, on the CPU."""
    waiting = [one for one in squares if isinstance(one, Tensor)]
    results = iter(inverter(torch.stack(waiting), progress) if waiting else [])
    return [(next(results) if isinstance(one, Tensor) else one).to("cpu") for one in squares]
