"""Films of runs: `zeroshift.interpolate`."""

from collections.abc import Iterator, Sequence

import numpy as np

from zeroshift.api.photos import Progress, invert_into, silent
from zeroshift.api.pictures import Photos, pictures
from zeroshift.api.runs import Runs, load_generators, open_runs
from zeroshift.errors import ZeroshiftError
from zeroshift.inversion.film import photo_walk
from zeroshift.io.scaling import Resample, Scale
from zeroshift.sampling.film import SampleKey, walk

__all__ = ["interpolate"]


def interpolate(
    runs: Runs,
    *,
    seeds: Sequence[int | SampleKey] = (0, 1, 2),
    photos: Photos | None = None,
    strengths: Sequence[float] = (1.0,),
    mix: Sequence[float] | None = None,
    frames: int = 60,
    truncation_psi: float | None = None,
    steps: int | None = None,
    batch_size: int = 8,
    scale: int | str = 1,
    resample: Resample = "auto",
    progress: Progress = silent,
) -> Iterator[np.ndarray]:
    """Frames of an endless film of one or more runs, as `zeroshift interpolate` makes it.

    Args:
        runs: a finished run, or several of one source: folders or `RunFolder`.
        seeds: samples to visit: seeds, or (seed, number) pairs.
        photos: photos to visit instead, see `invert`; inverted with its default settings.
        strengths: strengths of adaptation that the film passes through: 0 is the source, 1 the target.
        mix: one share per run: blends the targets into one column.
        frames: frames from one sample or photo to the next.
        truncation_psi: truncation of samples; None: the setting of the first run.
        steps: sampling steps of diffusion models; None: the setting of the first run.
        batch_size: frames per batch, of samples.
        scale: enlarges the frames: a whole factor, such as 4, or a height, such as "512px". `save_film` can do it too,
            and records it in the file.
        resample: "nearest" repeats pixels, "lanczos" is smooth; "auto": nearest for whole factors, otherwise lanczos.
        progress: called after each step of the inversion of photos.

    Returns:
        The frames, uint8 [R, columns * R, 3]: the source on the left, the targets next to it.

    Raises:
        ZeroshiftError: numbers that do not fit, runs that are not finished, or photos that cannot be inverted.

    Examples:
        >>> film = interpolate("runs/zombie", seeds=(1, 2), strengths=(0, 1), frames=3)
        >>> save_film("walk.webp", film, fps=30, scale=4, title="photo -> zombie").name
        'walk.webp'
    """
    if frames < 1:
        raise ZeroshiftError(f"`frames` is {frames}; it must be at least 1.")
    chosen = Scale.parse(scale, resample)
    folders = open_runs(runs)
    source, targets = load_generators(folders, steps)
    if mix is not None and len(mix) != len(targets):
        raise ZeroshiftError(f"{len(mix)} shares of a mix for {len(targets)} targets: give one share per target.")
    if photos is not None:
        name = folders[0].source
        squares = pictures(photos, source.resolution, align=None, faces="largest", generator=name)
        inverted = invert_into(source, name, squares, progress)
        return map(chosen, photo_walk(source, targets, inverted, strengths=strengths, mix=mix, frames=frames))
    config = folders[0].config
    keys = [(seed, 0) if isinstance(seed, int) else seed for seed in seeds]
    psi = config.truncation_psi if truncation_psi is None else truncation_psi
    film = walk(
        source, targets, keys, strengths=strengths, mix=mix, frames=frames, truncation_psi=psi,
        class_index=config.class_index, batch_size=batch_size,
    )  # fmt: skip
    return map(chosen, film)
