"""`zeroshift interpolate`: films of runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from zeroshift.cli.arguments import call, default_output, parse_numbers, require_positive, tracked, warn_no_truncation
from zeroshift.cli.output import show_result
from zeroshift.cli.photos import inverted_portraits
from zeroshift.errors import ZeroshiftError
from zeroshift.io.outputs import require_outputs
from zeroshift.training.run_folder import RunFolder

if TYPE_CHECKING:
    from zeroshift.inversion.inverted import Inverted
    from zeroshift.sampling.film import SampleKey

__all__ = ["interpolate", "main"]


def interpolate(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    seeds: str = "0,1,2",
    photos: tuple[Path, ...] = (),
    strength: str = "1",
    mix: str | None = None,
    out: Path | None = None,
    seconds: float = 2.0,
    fps: int = 30,
    truncation_psi: float | None = None,
    steps: int | None = None,
    batch_size: int = 8,
    scale: Annotated[str, tyro.conf.arg(metavar="FACTOR|HEIGHTpx")] = "1",
    resample: Literal["auto", "nearest", "lanczos"] = "auto",
    title: str = "",
) -> None:
    """Make an endless film of one or more runs: the source on the left, the target of each run next to it.

    The film walks from sample to sample (--seeds) or from photo to photo (--photos), or from source to target and back
    (--strength), or both. Writes one .mp4, .gif or .webp file.

    Examples:
      zeroshift interpolate runs/disney --seeds 1,2,3 --out walk.mp4       # from sample to sample
      zeroshift interpolate runs/disney --seeds 5 --strength 0,1           # from source to target and back
      zeroshift interpolate runs/disney --photos me.jpg --strength 0,1     # a photo turns into its target, and back
      zeroshift interpolate runs/disney --out walk.webp --scale 4 --title "photo -> disney"    # for a slide
      zeroshift interpolate runs/disney runs/zombie --seeds 1,2            # two targets side by side
      zeroshift interpolate runs/disney runs/zombie --mix 0.5,0.5          # two targets blended into one

    Args:
        runs: Run folders, all adapted from the same source generator.
        seeds: Samples to visit, separated by commas: SEED, or SEED:NUMBER (0:7 is sample 7 of
            `zeroshift generate --seed 0`).
        photos: Photos to visit instead of samples, or files of `zeroshift invert`. They are inverted with the default
            settings of `zeroshift invert`, by diffusion models with those of the run. --seeds, --truncation-psi and
            --batch-size do not apply to them.
        strength: Strength of adaptation, from 0 (source) to 1 (target). The film passes through several numbers,
            separated by commas, in order.
        mix: One share per run: blends the targets into one instead of showing them side by side.
        out: File to write, .mp4, .gif or .webp. Default: walk.mp4 in the folder of the first run.
        seconds: Time from one sample to the next.
        fps: Frames per second; at most 50 in a .gif and 90 in a .webp.
        truncation_psi: 1 keeps the full variety of samples, smaller values move them toward the mean. Default: the
            setting of the first run.
        steps: Sampling steps from t0 to the image, for diffusion models. Default: the setting of the first run.
        batch_size: Frames per batch. It changes images by rounding only: few values by one level of 255.
        scale: Enlarges the film: a whole factor, such as 4, or the height of the images, such as 512px.
        resample: "nearest" repeats pixels, "lanczos" is smooth. "auto": nearest for whole factors, otherwise lanczos.
        title: Text of a card that is shown for 1.5 seconds before the film.
    """
    require_positive(seconds=seconds, fps=fps, batch_size=batch_size, steps=steps, truncation_psi=truncation_psi)
    if not runs:
        raise ZeroshiftError("Name at least one run folder, such as: zeroshift interpolate runs/disney --seeds 1,2,3")
    folders = [RunFolder.read(run) for run in runs]
    from zeroshift.api import films  # after the check: these imports take seconds
    from zeroshift.io.films import require_film, save_film
    from zeroshift.io.scaling import Scale
    from zeroshift.io.titles import require_title

    warn_no_truncation(folders[0], truncation_psi)
    chosen, title = Scale.parse(scale, resample), require_title(title)
    samples = parse_samples(seeds)
    out = default_output(folders[0], "walk.mp4", out)
    require_film(out, fps)
    require_outputs(out)
    strengths, shares = parse_numbers(strength, "--strength"), None if mix is None else parse_numbers(mix, "--mix")
    if shares is not None and len(shares) != len(folders):  # before photos are inverted
        raise ZeroshiftError(f"{len(shares)} shares of a mix for {len(folders)} targets: give one share per target.")
    inverted = _inverted(photos, folders, out.parent) if photos else None
    frames = max(1, round(seconds * fps))
    film = films.interpolate(
        folders, seeds=samples, photos=inverted, strengths=strengths, mix=shares, frames=frames,
        truncation_psi=truncation_psi, steps=steps, batch_size=batch_size,
    )  # fmt: skip
    total = frames * len(samples if inverted is None else inverted)
    save_film(out, tracked(film, total, "Rendering"), fps, title=title, scale=chosen)
    show_result(f"{total} frames: {out}", frames=total, path=out)


def _inverted(photos: Sequence[Path], folders: Sequence[RunFolder], folder: Path) -> "list[Inverted]":
    """The inverted photos, with progress on the terminal."""
    from zeroshift.api.runs import load_generators
    from zeroshift.inversion.portraits import default_inverter, portraits

    found = portraits(photos, None, "largest", folders[0].source)
    source, _ = load_generators(folders)  # also checks the targets
    inverter = default_inverter(found, source, folders[0].source)
    return [result for _, _, result in inverted_portraits(found, inverter, folder)]


def parse_samples(text: str) -> "list[SampleKey]":
    """(seed, sample number) pairs from a string such as "1,2:7,3"; the number is 0 if left out.

    Raises:
        ZeroshiftError: if the string has another form.
    """
    try:
        keys = [tuple(int(part) for part in key.split(":")) for key in text.split(",")]
    except ValueError:
        keys = []
    if not keys or any(len(key) > 2 or min(key) < 0 for key in keys):
        raise ZeroshiftError(
            f"--seeds must be SEED or SEED:NUMBER, separated by commas, such as 1,2:7,3, not {text!r}."
        )
    return [(key[0], key[1] if len(key) == 2 else 0) for key in keys]


def main(arguments: Sequence[str]) -> None:
    call(interpolate, "interpolate", arguments)
