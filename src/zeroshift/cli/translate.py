"""`zeroshift translate`: translates real images into the domain of a run."""

import itertools
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from zeroshift.cli.arguments import call, default_output, parse_numbers, require_positive, tracked
from zeroshift.errors import ZeroshiftError
from zeroshift.io.outputs import require_outputs
from zeroshift.training.run_folder import RunFolder

__all__ = ["main", "translate"]


def translate(
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional],
    strength: float = 1.0,
    mix: str | None = None,
    steps: int = 40,
    invert_steps: int = 40,
    out: Path | None = None,
) -> None:
    """Translate a real image into the domain of one or more runs of a diffusion model: RUN... IMAGE.

    The source model inverts the image to noise, and the adapted model decodes the noise. Writes input and result side
    by side: OUT/NAME.png. A folder of images is translated with its subfolders.

    Examples:
      zeroshift translate runs/zombie me.jpg
      zeroshift translate runs/zombie photos --strength 0.7 --out translated       # a folder, with less change
      zeroshift translate runs/zombie runs/sketch me.jpg --mix 0.5,0.5             # two domains at once

    Args:
        paths: Run folders, all adapted from the same source generator, then an image or a folder of images.
        strength: Strength of adaptation, from 0 (source) to 1 (target): the mixture of their noise predictions.
        mix: One share per run. Default: equal shares.
        steps: DDIM steps from noise to the image.
        invert_steps: DDIM steps from the image to noise.
        out: Folder to write to. Default: "translated" in the folder of the first run.
    """
    import torch

    from zeroshift.generators.diffusion.options import DDIMOptions
    from zeroshift.io.image_files import ImageReader
    from zeroshift.io.images import make_grid, save_png, square
    from zeroshift.sampling.translate import Translator
    from zeroshift.training.run_generators import load_source_and_target, require_one_source

    if len(paths) < 2:
        raise ZeroshiftError("Name one or more run folders and then an image: zeroshift translate runs/zombie me.jpg")
    require_positive(steps=steps, invert_steps=invert_steps)
    folders = [RunFolder.read(run) for run in paths[:-1]]
    require_one_source(folders)
    shares = [1 / len(folders)] * len(folders) if mix is None else parse_numbers(mix, "--mix")
    if len(shares) != len(folders):
        raise ZeroshiftError(f"{len(shares)} shares of a mix for {len(folders)} runs: give one share per run.")
    if not math.isfinite(strength):
        raise ZeroshiftError(f"--strength is {strength}; it must be a number.")
    files = _targets(paths[-1])
    with ImageReader() as reader:
        for file in files:  # report unreadable files before models are loaded
            reader.read(file)
    out = default_output(folders[0], "translated", out)
    _require_results(out, files)
    first = folders[0].config.sampling
    loaded = [load_source_and_target(run, first) for run in folders]
    for generator in itertools.chain(*loaded):
        if isinstance(generator.options, DDIMOptions):  # Translator refuses other families
            generator.configure(replace(generator.options, steps=steps, invert_steps=invert_steps))
    translator = Translator(loaded[0][0], [target for _, target in loaded], [strength * share for share in shares])
    for file in tracked(files, len(files), "Translating"):
        image = square(reader.read(file), translator.source.resolution)[None]
        pair = torch.cat([image, translator(image)])
        save_png(out / files[file], make_grid(pair, columns=2))
    print(out / next(iter(files.values())) if len(files) == 1 else f"{len(files)} images: {out}")


def _targets(path: Path) -> dict[Path, Path]:
    """The images at a path, each with the relative path of its result in the output folder.

    The suffix is replaced by .png. If two images would get the same name, .png is appended instead.
    """
    from zeroshift.io.image_files import find_images

    if not path.is_dir():
        return {path: Path(f"{path.stem}.png")}
    files = {file: file.relative_to(path) for file in find_images(path)}
    counts = Counter(name.with_suffix("") for name in files.values())
    return {
        file: Path(f"{name}.png") if counts[name.with_suffix("")] > 1 else name.with_suffix(".png")
        for file, name in files.items()
    }


def _require_results(out: Path, files: Mapping[Path, Path]) -> None:
    """Checks that the results can be written, and that none of them replaces an image that is still to be read."""
    inputs = {os.path.realpath(file) for file in files}
    for name in files.values():
        if os.path.realpath(out / name) in inputs:
            raise ZeroshiftError(f"The result {out / name} would replace an image to translate. Give another --out.")
    require_outputs(*(out / name for name in files.values()))


def main(arguments: Sequence[str]) -> None:
    call(translate, "translate", arguments)
