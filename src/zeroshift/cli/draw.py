"""`zeroshift draw`: single pictures of runs with every setting that shapes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from zeroshift.cli.arguments import call, parse_numbers
from zeroshift.errors import ZeroshiftError
from zeroshift.io.outputs import require_outputs
from zeroshift.training.run_folder import RunFolder

__all__ = ["draw", "main"]


def draw(
    runs: Annotated[tuple[str, ...], tyro.conf.Positional],
    seed: int = 0,
    samples: str = "0",
    truncation_psi: float | None = None,
    strength: float = 1.0,
    mix: str | None = None,
    style_seed: int | None = None,
    style_layer: int = 0,
    walk_seed: int | None = None,
    position: float = 0.0,
    column: int | None = None,
    out: Path = Path("drawing.png"),
) -> None:
    """Draw pictures of one or more runs: seed, strength, mixture of domains, style mixing, a position of a walk.

    Writes one PNG file: a row for each sample, the source on the left. The studio (`zeroshift studio`) shows this
    command for each of its pictures.

    Examples:
      zeroshift draw runs/zombie --seed 3 --strength 0.6
      zeroshift draw runs/zombie runs/sketch --mix 0.5,0.5 --samples 0,1,2   # two domains in one picture
      zeroshift draw runs/zombie --seed 3 --style-seed 8 --style-layer 4     # later layers with other styles
      zeroshift draw miniature --seed 3                                      # a generator alone

    Args:
        runs: Run folders, all adapted from the same source generator; or one generator.
        seed: Seed of the samples.
        samples: Numbers of the samples, separated by commas.
        truncation_psi: 1 keeps the full variety of samples, smaller values move them toward the mean. Default: the
            setting of the first run.
        strength: Strength of adaptation, from 0 (source) to 1 (target).
        mix: One share per run: mixes the runs into one column. Default: a column for each run.
        style_seed: Seed of other samples, whose styles the later layers use (style mixing).
        style_layer: First layer with these styles.
        walk_seed: Seed of the samples toward which the latents move.
        position: Position between the samples of --seed (0) and of --walk-seed (1).
        column: Only this column: 0 is the source, 1 the first run or the mixture. Default: all.
        out: File to write, .png.
    """
    if not runs:
        raise ZeroshiftError("Name one or more run folders, or a generator, such as: zeroshift draw runs/zombie")
    if out.suffix.lower() != ".png":
        raise ZeroshiftError(f"The picture {out} must be a .png file.")
    several = len(runs) > 1 or (Path(runs[0]) / "config.json").is_file()
    folders = [RunFolder.read(run) for run in runs] if several else []
    for folder in folders:
        folder.require_generator()
    from zeroshift.api.drawing import Drawing, drawing_command, load_renderer  # after the check: takes seconds
    from zeroshift.io.images import make_grid, save_png

    numbers = parse_numbers(samples, "--samples")
    if any(number != int(number) for number in numbers):
        raise ZeroshiftError(f"--samples must be whole numbers separated by commas, not {samples!r}.")
    shares = None if mix is None else tuple(parse_numbers(mix, "--mix"))
    drawing = Drawing(
        seed, tuple(map(int, numbers)), truncation_psi, strength, shares, style_seed, style_layer, walk_seed, position
    )
    drawing.validate()
    require_outputs(out)
    columns = load_renderer(folders if several else runs[0])(drawing)
    if column is not None:
        if not 0 <= column < len(columns):
            raise ZeroshiftError(f"There is no column {column}; the columns are 0 to {len(columns) - 1}.")
        columns = [columns[column]]
    import torch

    tiles = torch.stack(columns, dim=1).flatten(0, 1)  # sample by sample
    command = drawing_command(runs, drawing, column, str(out))
    save_png(out, make_grid(tiles, len(columns)), texts={"zeroshift": command})
    print(out)


def main(arguments: Sequence[str]) -> None:
    call(draw, "draw", arguments)
