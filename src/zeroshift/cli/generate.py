"""`zeroshift generate`: samples of a run, source beside target."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from zeroshift.cli.arguments import call, default_output, require_positive, require_seed, tracked
from zeroshift.io.atomic import disk_errors
from zeroshift.training.run_folder import RunFolder

__all__ = ["generate", "main"]


def generate(
    run: Annotated[Path, tyro.conf.Positional],
    num: int = 16,
    seed: int = 0,
    truncation_psi: float | None = None,
    steps: int | None = None,
    batch_size: int = 8,
    columns: int = 4,
    out: Path | None = None,
) -> None:
    """Draw samples of a finished run: the same people by the source and by the adapted generator.

    Writes source/0000.png ... and target/0000.png ..., then grid.png (pairs, source at the left).
    A sample depends on the seed and on its number alone. Samples that were there before go.

    Examples:
      zeroshift generate runs/disney --num 64 --seed 0 --truncation-psi 0.7
      zeroshift generate runs/disney --num 1000 --seed 1 --out samples

    Args:
        run: A run folder that `zeroshift adapt` made.
        num: How many samples.
        seed: Which samples.
        truncation_psi: 1 shows all the variety there is, less stays nearer to the mean; as in the run if not given.
        steps: Of a diffusion model, from t0 to the image; as in the run if not given.
        batch_size: Samples at a time; changes no picture.
        columns: Pairs in a row of the grid.
        out: Folder to write to; RUN/samples-seed-SEED if not given (with what was asked for besides in its name).
    """
    import torch

    from zeroshift.io.images import make_grid, save_png, to_uint8
    from zeroshift.sampling import generate as sampling
    from zeroshift.training.run_generators import load_source_and_target

    folder = RunFolder.read(run)
    config = folder.config
    psi = config.truncation_psi if truncation_psi is None else truncation_psi
    require_positive(
        num=num, batch_size=batch_size, columns=columns, truncation_psi=psi, steps=1 if steps is None else steps
    )
    require_seed(seed)
    told = "".join(
        f"-{name}-{value}" for name, value in (("truncation-psi", truncation_psi), ("steps", steps)) if value
    )
    out = default_output(folder, f"samples-seed-{seed}{told}", out)
    batches = sampling.generate(
        load_source_and_target(folder, steps=steps),
        num,
        seed=seed,
        truncation_psi=psi,
        class_index=config.class_index,
        batch_size=batch_size,
    )
    with disk_errors(out):
        (out / "grid.png").unlink(missing_ok=True)  # it is there when all samples are
    tiles: list[torch.Tensor] = []
    for source, target in tracked(batches, -(-num // batch_size), "Drawing"):
        for side, images in (("source", source), ("target", target)):
            for i, pixels in enumerate(to_uint8(images), start=len(tiles)):
                save_png(out / side / f"{i:04d}.png", pixels)
        tiles += torch.cat([source, target], dim=3).unbind()  # [3, R, 2R] each
    for side in ("source", "target"):
        _remove_from(out / side, num)
    save_png(out / "grid.png", make_grid(torch.stack(tiles), columns=min(columns, num)))
    print(f"{num} pairs: {out / 'grid.png'}, {out / 'source'}, {out / 'target'}")


def _remove_from(folder: Path, num: int) -> None:
    """Removes the samples from number `num` on, which an earlier call for more of them left."""
    with disk_errors(folder):
        for file in folder.iterdir():
            if re.fullmatch(r"([0-9]{4}|[1-9][0-9]{4,})\.png", file.name) and int(file.stem) >= num:
                file.unlink()


def main(arguments: Sequence[str]) -> None:
    call(generate, "generate", arguments)
