"""`zeroshift generate`: samples of a run, source next to target."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from zeroshift.cli.arguments import call, default_output, require_positive, require_seed, tracked, warn_no_truncation
from zeroshift.io.atomic import disk_errors
from zeroshift.io.outputs import is_ours, require_outputs
from zeroshift.training.run_folder import RunFolder

if TYPE_CHECKING:
    import torch

    from zeroshift.sampling.pair_set import PairSet

__all__ = ["generate", "main"]

_SIDES = ("source", "target")  # folders of the images of each generator


def generate(
    run: Annotated[Path, tyro.conf.Positional],
    num: int = 16,
    seed: int = 0,
    truncation_psi: float | None = None,
    steps: int | None = None,
    batch_size: int = 8,
    columns: int = 4,
    format: Literal["samples", "pairs", "webdataset"] = "samples",
    shard_size: int = 1024,
    out: Path | None = None,
) -> None:
    """Generate samples of a finished run, from the same latents with the source and the adapted generator.

    Writes source/0000.png ... and target/0000.png ..., and grid.png with all pairs (source on the left). A sample
    depends on the seed and its number only. Samples of an earlier call in the same folder are replaced, but no other
    files.

    With --format pairs or webdataset it writes a data set of any size: images with their latents, class and, if known,
    factors, as a folder with metadata.jsonl or as shards pairs-00000000.tar, ... The same command continues an
    interrupted data set.

    Examples:
      zeroshift generate runs/disney --num 64
      zeroshift generate runs/disney --num 64 --seed 1 --truncation-psi 0.5
      zeroshift generate runs/disney --num 1000 --out samples
      zeroshift generate runs/disney --num 50000 --format webdataset --out pairs

    Args:
        run: Run folder that `zeroshift adapt` wrote.
        num: Number of samples.
        seed: Seed of the samples.
        truncation_psi: 1 keeps the full variety of samples, smaller values move them toward the mean. Default: the
            setting of the run.
        steps: Sampling steps from t0 to the image, for diffusion models. Default: the setting of the run.
        batch_size: Samples per batch. It changes images by rounding only: few values by one level of 255.
        columns: Pairs per row of the grid.
        format: "samples": images and a grid. "pairs": a data set as an image folder with JSON lines. "webdataset": a
            data set as WebDataset shards.
        shard_size: Pairs per shard; rounded up to whole batches.
        out: Folder to write to. Default: RUN/samples-seed-SEED, or RUN/pairs-seed-SEED for a data set; options other
            than --seed are added to the name.
    """
    from zeroshift.io.owned_folder import file_digest
    from zeroshift.sampling import generate as sampling
    from zeroshift.sampling.pair_set import Layout, PairSet
    from zeroshift.training.run_generators import load_source_and_target

    folder = RunFolder.read(run)
    config = folder.config
    psi = config.truncation_psi if truncation_psi is None else truncation_psi
    require_positive(
        num=num, batch_size=batch_size, columns=columns, truncation_psi=psi, steps=steps, shard_size=shard_size
    )
    require_seed(seed)
    warn_no_truncation(folder, truncation_psi)
    changes = {"truncation-psi": truncation_psi, "steps": steps}
    suffix = "".join(f"-{name}-{value}" for name, value in changes.items() if value)
    out = default_output(folder, f"{'samples' if format == 'samples' else 'pairs'}-seed-{seed}{suffix}", out)
    if format != "samples":
        size = -(-shard_size // batch_size) * batch_size
        layout: Layout = "folder" if format == "pairs" else "webdataset"
        folder.require_generator()
        described = {"run": folder.config.target, "steps": steps, "generator": file_digest(folder.generator_path)}
        pairs = PairSet(num, seed, psi, config.class_index, batch_size, size, layout, described)
        _write_data_set(folder, steps, pairs, out)
        return
    require_outputs(*(_sample(out, side, i) for side in _SIDES for i in range(num)), out / "grid.png")
    batches = sampling.generate(
        load_source_and_target(folder, steps=steps),
        num,
        seed=seed,
        truncation_psi=psi,
        class_index=config.class_index,
        batch_size=batch_size,
    )
    _write(tracked(batches, -(-num // batch_size), "Generating"), num, columns, out)
    print(f"{num} pairs: {out / 'grid.png'}, {out / 'source'}, {out / 'target'}")


def _write_data_set(folder: RunFolder, steps: int | None, pairs: "PairSet", out: Path) -> None:
    """Writes source and target pairs with what is known of them."""
    from rich.console import Console
    from rich.progress import Progress

    from zeroshift.evaluation.truth import load_truth
    from zeroshift.generators.checkpoints.catalogue import find_entry
    from zeroshift.sampling.pair_set import write_pairs
    from zeroshift.training.run_generators import load_source_and_target

    truth = load_truth(find_entry(folder.source))
    describe = getattr(truth, "factors", lambda latents: None)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("Generating", total=pairs.num)
        for done in write_pairs(out, load_source_and_target(folder, steps=steps), pairs, describe):
            bars.update(task, completed=done)
    print(f"{pairs.num} pairs: {out}")


def _write(batches: "Iterable[list[torch.Tensor]]", num: int, columns: int, out: Path) -> None:
    """Writes batches of source and target images as single files and as a grid of pairs."""
    import torch

    from zeroshift.io.images import make_grid, save_png, to_uint8

    with disk_errors(out):
        (out / "grid.png").unlink(missing_ok=True)  # written last: it shows that all samples are there
    tiles: list[torch.Tensor] = []
    for source, target in batches:
        for side, images in zip(_SIDES, (source, target), strict=True):
            for i, pixels in enumerate(to_uint8(images), start=len(tiles)):
                save_png(_sample(out, side, i), pixels)
        tiles += torch.cat([source, target], dim=3).unbind()  # [3, R, 2R] each
    for side in _SIDES:
        _remove_from(out / side, num)
    save_png(out / "grid.png", make_grid(torch.stack(tiles), columns=min(columns, num)))


def _sample(out: Path, side: str, number: int) -> Path:
    return out / side / f"{number:04d}.png"


def _remove_from(folder: Path, num: int) -> None:
    """Removes samples with numbers from `num` on, which an earlier call with a larger --num wrote."""
    with disk_errors(folder):
        for file in folder.iterdir():
            numbered = re.fullmatch(r"([0-9]{4}|[1-9][0-9]{4,})\.png", file.name)
            if numbered and int(file.stem) >= num and is_ours(file):
                file.unlink()


def main(arguments: Sequence[str]) -> None:
    call(generate, "generate", arguments)
