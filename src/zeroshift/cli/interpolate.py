"""`zeroshift interpolate`: films of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from zeroshift.cli.arguments import call, default_output, parse_numbers, require_positive, tracked
from zeroshift.errors import ZeroshiftError
from zeroshift.training.run_folder import RunFolder

if TYPE_CHECKING:
    from zeroshift.sampling.film import Person

__all__ = ["interpolate", "main"]


def interpolate(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    seeds: str = "0,1,2",
    strength: str = "1",
    mix: str | None = None,
    out: Path | None = None,
    seconds: float = 2.0,
    fps: int = 30,
    truncation_psi: float | None = None,
    steps: int | None = None,
    batch_size: int = 8,
) -> None:
    """Make an endless film of one or more runs: the source at the left, each run's target beside it.

    Examples:
      zeroshift interpolate runs/disney --seeds 1,2,3 --out walk.mp4       a walk from person to person
      zeroshift interpolate runs/disney --seeds 5 --strength 0,1           one person, from source to target and back
      zeroshift interpolate runs/disney runs/zombie --seeds 1,2            two targets side by side
      zeroshift interpolate runs/disney runs/zombie --mix 0.5,0.5          two targets blended into one

    Args:
        runs: Run folders; several must have started from one source.
        seeds: The people to walk through: SEED or SEED:SAMPLE (sample 7 of `generate --seed 0` is 0:7), with commas.
        strength: How far to go from the source (0) to the target (1); several numbers are passed through in turn.
        mix: One share per run: blend their targets into one instead of showing them side by side.
        out: The film, .mp4 or .gif; walk.mp4 in the first run's folder if not given.
        seconds: Time from one person to the next.
        fps: Frames a second.
        truncation_psi: 1 shows all the variety there is, less stays nearer to the mean; as in the run if not given.
        steps: Of a diffusion model, from t0 to the image; as in the run if not given.
        batch_size: Frames at a time; changes no picture.
    """
    from zeroshift.io.images import save_film
    from zeroshift.sampling.film import walk
    from zeroshift.training.run_generators import load_source_and_target, require_one_source

    require_positive(
        seconds=seconds, fps=fps, batch_size=batch_size, steps=1 if steps is None else steps,
        truncation_psi=1.0 if truncation_psi is None else truncation_psi,
    )  # fmt: skip
    if not runs:
        raise ZeroshiftError("Name at least one run folder, such as: zeroshift interpolate runs/disney --seeds 1,2,3")
    folders = [RunFolder.read(run) for run in runs]
    config, people = folders[0].config, parse_people(seeds)
    require_one_source(folders)
    loaded = [load_source_and_target(folder, config.diffusion, steps) for folder in folders]
    out = default_output(folders[0], "walk.mp4", out)
    frames = max(1, round(seconds * fps))
    film = walk(
        loaded[0][0],
        [target for _, target in loaded],
        people,
        strengths=parse_numbers(strength, "--strength"),
        mix=None if mix is None else parse_numbers(mix, "--mix"),
        frames=frames,
        truncation_psi=config.truncation_psi if truncation_psi is None else truncation_psi,
        class_index=config.class_index,
        batch_size=batch_size,
    )
    save_film(out, tracked(film, frames * len(people), "Filming"), fps)
    print(f"{frames * len(people)} frames: {out}")


def parse_people(text: str) -> "list[Person]":
    """(seed, sample) pairs from a text such as "1,2:7,3".

    Raises:
        ZeroshiftError: if it is no such text.
    """
    try:
        people = [tuple(int(part) for part in person.split(":")) for person in text.split(",")]
    except ValueError:
        people = []
    if not people or any(len(person) > 2 or min(person) < 0 for person in people):
        raise ZeroshiftError(f"--seeds must be SEED or SEED:SAMPLE with commas between, such as 1,2:7,3, not {text!r}.")
    return [(person[0], person[1] if len(person) == 2 else 0) for person in people]


def main(arguments: Sequence[str]) -> None:
    call(interpolate, "interpolate", arguments)
