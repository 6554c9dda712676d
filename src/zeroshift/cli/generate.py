"""`zeroshift generate`: samples of a run, source next to target; or photos in their place."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from zeroshift.cli.arguments import call, default_output, require_positive, require_seed, tracked, warn_no_truncation
from zeroshift.cli.output import show_result
from zeroshift.cli.photos import inverted_portraits, require_results
from zeroshift.core.interrupts import RESUME_HINT
from zeroshift.errors import ZeroshiftError
from zeroshift.io.outputs import require_outputs, require_replaceable, require_writable
from zeroshift.training.run_folder import RunFolder

if TYPE_CHECKING:
    from zeroshift.inversion.inverted import Inverted
    from zeroshift.inversion.portraits import Portrait
    from zeroshift.sampling.pair_set import Draw, PairSet
    from zeroshift.sampling.sample_files import PairFiles

__all__ = ["generate", "main"]


def generate(
    run: Annotated[Path, tyro.conf.Positional],
    num: int | None = None,
    seed: int = 0,
    photos: tuple[Path, ...] = (),
    truncation_psi: float | None = None,
    steps: int | None = None,
    batch_size: int = 8,
    columns: int = 4,
    files: Literal["separate", "pair", "both"] = "separate",
    scale: Annotated[str, tyro.conf.arg(metavar="FACTOR|HEIGHTpx")] = "1",
    resample: Literal["auto", "nearest", "lanczos"] = "auto",
    title: str = "",
    format: Literal["samples", "pairs", "webdataset"] = "samples",
    shard_size: int = 1024,
    out: Path | None = None,
) -> None:
    """Generate samples of a finished run, from the same latents with the source and the adapted generator.

    Writes source/00000000.png ... and target/00000000.png ..., and grid.png with the first pairs (source on the left;
    at most 64 pairs and 40 million pixels). A sample depends on the seed and its number only. Samples of an earlier
    call in the same folder are replaced, but no other files. Memory does not grow with --num.

    With --format pairs or webdataset it writes a data set of any size: images with their latents, class and, if known,
    factors, as a folder with metadata.jsonl or as shards pairs-00000000.tar, ... The same command continues an
    interrupted data set.

    With --photos, inverted photos take the place of samples: source/NAME.png is the photo as the source generator draws
    it, target/NAME.png the same in the new domain.

    Examples:
      zeroshift generate runs/disney --num 64
      zeroshift generate runs/disney --num 64 --seed 1 --truncation-psi 0.5
      zeroshift generate runs/disney --num 1000 --out samples
      zeroshift generate runs/disney --num 8 --files pair --scale 4 --title "photo -> disney"    # for a slide
      zeroshift generate runs/disney --num 50000 --format webdataset --out pairs
      zeroshift generate runs/disney --photos holiday --format pairs     # a folder of photos

    Args:
        run: Run folder that `zeroshift adapt` wrote.
        num: Number of samples (default: 16), or of photos (default: all).
        seed: Seed of the samples.
        photos: Photos, folders of photos, or files of `zeroshift invert`, instead of samples. Photos are inverted with
            the default settings of `zeroshift invert`. --seed and --truncation-psi do not apply to them.
        truncation_psi: 1 keeps the full variety of samples, smaller values move them toward the mean. Default: the
            setting of the run.
        steps: Sampling steps from t0 to the image, for diffusion models. Default: the setting of the run.
        batch_size: Samples per batch. It changes images by rounding only: few values by one level of 255.
        columns: Pairs per row of the grid.
        files: "separate": source/ and target/; "pair": pair/, both side by side; "both": all three.
        scale: Enlarges the images: a whole factor, such as 4, or a height, such as 1024px.
        resample: "nearest" repeats pixels, "lanczos" is smooth. "auto": nearest for whole factors, otherwise lanczos.
        title: Heading of the grid.
        format: "samples": images and a grid. "pairs": a data set as an image folder with JSON lines. "webdataset": a
            data set as WebDataset shards.
        shard_size: Pairs per shard; rounded up to whole batches.
        out: Folder to write to. Default: RUN/samples-seed-SEED, or RUN/pairs-seed-SEED for a data set; options other
            than --seed are added to the name. For photos: RUN/samples-photos or RUN/pairs-photos.
    """
    folder = RunFolder.read(run)
    from zeroshift.inversion.portraits import portraits  # after the check: these imports take seconds
    from zeroshift.io.numbering import numbered
    from zeroshift.io.scaling import Scale
    from zeroshift.io.titles import require_title
    from zeroshift.sampling.pair_set import PairSet
    from zeroshift.sampling.sample_files import PairFiles

    psi = folder.config.truncation_psi if truncation_psi is None else truncation_psi
    require_positive(
        num=num, batch_size=batch_size, columns=columns, truncation_psi=psi, steps=steps, shard_size=shard_size
    )
    require_seed(seed)
    chosen, title = Scale.parse(scale, resample), require_title(title)
    if format != "samples" and (chosen != Scale(resample=resample) or title or files != "separate"):
        raise ZeroshiftError(f"A data set (--format {format}) has no --scale, --title or --files. Leave them out.")
    warn_no_truncation(folder, truncation_psi)
    folder.require_generator()
    kind, origin = "samples" if format == "samples" else "pairs", "photos" if photos else f"seed-{seed}"
    changes = {"truncation-psi": None if photos else truncation_psi, "steps": steps}
    suffix = "".join(f"-{name}-{value}" for name, value in changes.items() if value)
    out = default_output(folder, f"{kind}-{origin}{suffix}", out)
    found = portraits(photos, None, "largest", folder.source)[:num] if photos else []
    num = len(found) if photos else 16 if num is None else num
    name = (lambda number: str(found[number].name)) if photos else numbered
    pairs = PairFiles(out, num, name, files, chosen, columns, title)
    if format == "samples":
        _require_files(pairs, found)
    draw, described = _photos(folder, found, steps, out) if photos else _samples(folder, seed, psi, steps)
    if format == "samples":
        starts = range(0, num, batch_size)
        batches = (range(start, min(num, start + batch_size)) for start in starts)
        shown = pairs.write(draw, batches if photos else tracked(batches, len(starts), "Generating"))
        if not photos:
            pairs.remove_others()
        first = f" (the first {shown})" if shown < num else ""
        text = f"{num} pairs: {', '.join([f'{pairs.grid}{first}', *map(str, pairs.folders)])}"
        show_result(text, num=num, grid=pairs.grid, grid_pairs=shown, folders=pairs.folders)
        return
    size = -(-shard_size // batch_size) * batch_size
    layout: Literal["folder", "webdataset"] = "folder" if format == "pairs" else "webdataset"
    _write_data_set(draw, PairSet(num, batch_size, size, layout, described), out, bar=not photos)


def _require_files(pairs: "PairFiles", found: "Sequence[Portrait]") -> None:
    """Checks that the files can be written, and that they replace nobody else's and no photo."""
    for folder in pairs.folders:
        require_results(folder, found)
    for path in pairs.paths():  # one at a time: there may be many
        require_replaceable(path)
    for folder in pairs.folders:
        require_writable(folder)
    require_outputs(pairs.grid)


def _samples(folder: RunFolder, seed: int, psi: float, steps: int | None) -> "tuple[Draw, Mapping[str, Any]]":
    """The pairs of the samples of a seed, and what they depend on."""
    from zeroshift.evaluation.truth import load_truth
    from zeroshift.generators.checkpoints.catalogue import find_entry
    from zeroshift.sampling.pair_set import sampled_pairs
    from zeroshift.training.run_generators import load_source_and_target

    known = getattr(load_truth(find_entry(folder.source)), "factors", lambda latents: None)
    generators, class_index = load_source_and_target(folder, steps=steps), folder.config.class_index
    described = {**_run(folder, steps), "seed": seed, "truncation_psi": psi, "class_index": class_index}
    return sampled_pairs(generators, seed, psi, class_index, known), described


def _photos(
    folder: RunFolder, found: "Sequence[Portrait]", steps: int | None, out: Path
) -> "tuple[Draw, Mapping[str, Any]]":
    """The pairs of photos, and what they depend on."""
    from zeroshift.inversion.pairs import photo_pairs
    from zeroshift.inversion.portraits import default_inverter
    from zeroshift.inversion.translate import Translator
    from zeroshift.io.owned_folder import file_digest
    from zeroshift.training.run_generators import load_source_and_target

    source, target = load_source_and_target(folder, steps=steps)
    inverter = default_inverter(found, source, folder.source)

    def read(numbers: range) -> "list[tuple[str, Inverted]]":
        part = found[numbers.start : numbers.stop]
        inverted = inverted_portraits(part, inverter, out, numbers.start, len(found))
        return [(str(one.name), result) for one, _, result in inverted]

    content = [(str(one.name), file_digest(one.file), repr(one.crop)) for one in found]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return photo_pairs(Translator(inverter, [target], [1.0]), read), {**_run(folder, steps), "photos": digest}


def _run(folder: RunFolder, steps: int | None) -> dict[str, Any]:
    """What all pairs of a run depend on."""
    from zeroshift.io.owned_folder import file_digest

    return {"run": folder.config.target, "steps": steps, "generator": file_digest(folder.generator_path)}


def _write_data_set(draw: "Draw", pairs: "PairSet", out: Path, *, bar: bool) -> None:
    """Writes source and target pairs with what is known of them.

    Raises:
        KeyboardInterrupt: on Ctrl-C, with a hint for the user.
    """
    from rich.console import Console
    from rich.progress import Progress

    from zeroshift.sampling.pair_set import write_pairs

    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True, disable=not (bar and console.is_terminal)) as bars:
            task = bars.add_task("Generating", total=pairs.num)
            for done in write_pairs(out, draw, pairs):
                bars.update(task, completed=done)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(RESUME_HINT) from error
    show_result(f"{pairs.num} pairs: {out}", num=pairs.num, folder=out)


def main(arguments: Sequence[str]) -> None:
    call(generate, "generate", arguments)
