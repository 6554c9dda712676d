"""`zeroshift translate`: translates real images into the domain of a run."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from zeroshift.cli.arguments import call, default_output, parse_numbers, require_count, require_positive
from zeroshift.cli.output import show_result
from zeroshift.cli.photos import inverted_portraits, require_results
from zeroshift.errors import ZeroshiftError
from zeroshift.inversion.options import Space
from zeroshift.training.run_folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

    from zeroshift.inversion.portraits import Portrait
    from zeroshift.inversion.translate import Translator
    from zeroshift.io.scaling import Scale
    from zeroshift.sampling.sample_files import FileKind

__all__ = ["main", "translate"]


def translate(
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional],
    strength: float = 1.0,
    mix: str | None = None,
    separate: bool = False,
    steps: int | None = None,
    invert_steps: int | None = None,
    space: Space | None = None,
    tune_steps: int | None = None,
    encoder: str = "auto",
    distance: Annotated[str | None, tyro.conf.arg(metavar="auto|lpips|pyramid")] = None,
    align: Annotated[str | None, tyro.conf.arg(metavar="auto|none|LEFT,TOP,SIDE")] = None,
    faces: Literal["largest", "all"] = "largest",
    paste: bool = False,
    files: Literal["separate", "pair", "both"] = "pair",
    scale: Annotated[str, tyro.conf.arg(metavar="FACTOR|HEIGHTpx")] = "1",
    resample: Literal["auto", "nearest", "lanczos"] = "auto",
    title: str = "",
    out: Path | None = None,
) -> None:
    """Translate real images into the domain of one or more runs: RUN... IMAGE...

    The source generator inverts an image, and the adapted one draws it. Diffusion models invert it to noise. For a
    StyleGAN, codes in W+ are found by an encoder or by optimization, and pivotal tuning (PTI) adapts the weights to the
    image; `zeroshift invert` does this part alone. Writes input and result side by side: OUT/NAME.png. Several runs are
    mixed into one result, or shown beside each other with --separate. A folder of images is translated with its
    subfolders.

    Examples:
      zeroshift translate runs/zombie me.jpg
      zeroshift translate runs/zombie photos --strength 0.7 --out translated       # a folder, with less change
      zeroshift translate runs/zombie runs/sketch me.jpg --mix 0.5,0.5             # two domains at once
      zeroshift translate runs/zombie runs/sketch me.jpg --separate                # one after the other
      zeroshift translate runs/zombie party.jpg --align auto --faces all --paste   # faces, back in the image
      zeroshift translate runs/zombie inverted/me.safetensors                      # of `zeroshift invert`
      zeroshift translate runs/zombie me.jpg --scale 8 --title "photo -> zombie"   # for a slide

    Args:
        paths: Run folders, all adapted from the same source generator, then images, folders of images, or files of
            `zeroshift invert`.
        strength: Strength of adaptation, from 0 (source) to 1 (target).
        mix: One share per run. Default: equal shares.
        separate: Show the result of each run in a column of its own.
        steps: DDIM steps from noise to the image, for diffusion models. Default: 40.
        invert_steps: DDIM steps from the image to noise (default: 40), or optimization steps of the codes of a StyleGAN
            (default: 500, or 100 from an encoder).
        space: Space of the codes of a StyleGAN: "w", easier to edit, or "w+" (default), closer to the image.
        tune_steps: Greatest number of steps of pivotal tuning of a StyleGAN; 0: none. Default: 350.
        encoder: File of a pSp, e4e or ReStyle encoder. "auto": the one of the generator, if it has one; "none".
        distance: Distance that the inversion into a StyleGAN minimizes. "auto" (default): LPIPS if its weights are on
            this machine, otherwise a pyramid of pixels.
        align: Part of the image. "auto": the face, aligned as in FFHQ; "none": the middle; or a square in pixels.
            Default: auto for generators of aligned faces in `zeroshift models`, otherwise none.
        faces: With --align auto: the largest face of an image, or all.
        paste: Also write OUT/NAME-pasted.png, the whole image with the result in its place.
        files: "pair": OUT/NAME.png, the input and the result side by side; "separate": OUT/source/NAME.png and
            OUT/target/NAME.png (with --separate target-1, target-2, ..., one per run); "both": all of them.
        scale: Enlarges the pictures, but not those of --paste: a whole factor, such as 4, or a height, such as 1024px.
        resample: "nearest" repeats pixels, "lanczos" is smooth. "auto": nearest for whole factors, otherwise lanczos.
        title: Heading above each pair.
        out: Folder to write to. Default: "translated" in the folder of the first run.
    """
    folders, inputs = _split(paths)
    from zeroshift.api.photos import result_shares  # after the check: these imports take seconds
    from zeroshift.api.runs import load_for_photos
    from zeroshift.inversion.portraits import make_inverter, portraits
    from zeroshift.inversion.translate import Translator
    from zeroshift.io.scaling import Scale
    from zeroshift.io.titles import require_title

    require_positive(steps=steps, invert_steps=invert_steps or None)
    require_count(invert_steps=invert_steps, tune_steps=tune_steps)
    columns = result_shares(len(folders), strength, None if mix is None else parse_numbers(mix, "--mix"), separate)
    if separate and paste and len(folders) > 1:
        raise ZeroshiftError("--paste shows one result: leave --separate out.")
    found = portraits(inputs, align, faces, folders[0].source)
    out = default_output(folders[0], "translated", out)
    rows = _RowFiles(out, len(columns), files, Scale.parse(scale, resample), require_title(title))
    whole = _pasted(found, out) if paste else {}
    written = [path for one in found for path in rows.paths(one).values()]
    require_results(out, found, endings=(), others=[*written, *whole.values()])
    source, targets = load_for_photos(folders, steps, invert_steps)
    inverter = make_inverter(
        source, folders[0].source, space=space, steps=invert_steps, tune_steps=tune_steps, distance=distance,
        encoder=encoder,
    )  # fmt: skip
    results = _write([Translator(inverter, targets, shares) for shares in columns], found, rows, keep=paste)
    for file, path in whole.items():
        _paste(file, [(one, results[one.name]) for one in found if one.file == file], path)
    text = ", ".join(map(str, written)) if len(found) == 1 else f"{len(found)} images: {out}"
    show_result(text, files=[*written, *whole.values()])


def _split(paths: Sequence[Path]) -> tuple[list[RunFolder], list[Path]]:
    """The run folders at the start of the paths, and the images after them."""
    runs = list(itertools.takewhile(lambda path: (path / "config.json").is_file(), paths))
    images = list(paths[len(runs) :])
    if not runs and len(paths) > 1:
        RunFolder.read(paths[0])  # says what is wrong with it
    if not runs or not images:
        raise ZeroshiftError("Name one or more run folders and then images: zeroshift translate runs/zombie me.jpg")
    from zeroshift.api.runs import open_runs

    return open_runs(runs), images


def _pasted(found: "Sequence[Portrait]", out: Path) -> dict[Path, Path]:
    """The photos into which results are pasted, each with its result."""
    inverted = [one.file for one in found if one.is_inverted]
    if inverted:
        raise ZeroshiftError(f"{inverted[0]} does not hold the whole photo. Name the photo, or leave --paste out.")
    names: dict[Path, list[Path]] = {}
    for one in found:
        names.setdefault(one.file, []).append(one.name)
    return {
        file: out / (f"{each[0]}-pasted.png" if len(each) == 1 else f"{str(each[0]).removesuffix('-1')}-pasted.png")
        for file, each in names.items()
    }


@dataclass(frozen=True)
class _RowFiles:
    """The files of each portrait: the input and its results side by side, or each in a folder of its own."""

    out: Path
    columns: int  # results of each portrait
    kind: "FileKind"
    scale: "Scale"
    title: str

    def paths(self, one: "Portrait") -> dict[str, Path]:
        """The files of a portrait, by what they show: "pair", or the names of the folders."""
        targets = ["target"] if self.columns == 1 else [f"target-{number + 1}" for number in range(self.columns)]
        apart = {side: one.result(self.out / side) for side in ("source", *targets)}
        return ({} if self.kind == "separate" else {"pair": one.result(self.out)}) | (
            {} if self.kind == "pair" else apart
        )

    def write(self, one: "Portrait", row: "Sequence[Tensor]") -> None:
        """Writes the input and the results of a portrait, images [3, R, R]."""
        import torch

        from zeroshift.io.images import save_png, tile_grid, to_uint8
        from zeroshift.io.titles import with_heading

        paths, images = self.paths(one), torch.stack(list(row))
        tiles, note = self.scale(to_uint8(images)), self.scale.note(*images.shape[-2:])
        if "pair" in paths:
            save_png(paths.pop("pair"), with_heading(tile_grid(tiles, columns=len(tiles)), self.title), note)
        for path, pixels in zip(paths.values(), tiles, strict=False):  # none, or one per tile
            save_png(path, pixels, note)


def _write(
    translators: "Sequence[Translator]", found: "Sequence[Portrait]", rows: _RowFiles, *, keep: bool
) -> "dict[Path, Tensor]":
    """Translates all portraits, a few at a time, and writes the rows. If `keep`, returns the first results by name."""
    inverter = translators[0].inverter
    results: dict[Path, Tensor] = {}
    for one, picture, inverted in inverted_portraits(found, inverter, rows.out):
        first = inverter.reconstruct(inverted) if picture is None else picture
        row = [first, *(translator.draw(inverted)[0] for translator in translators)]
        rows.write(one, row)
        if keep:
            results[one.name] = row[1]
    return results


def _paste(file: Path, parts: "Sequence[tuple[Portrait, Tensor]]", path: Path) -> None:
    """Writes a photo with the results in their places."""
    from zeroshift.inversion.crops import center_crop
    from zeroshift.io.image_files import ImageReader
    from zeroshift.io.images import save_png, to_uint8

    photo = ImageReader().read(file)
    for one, result in parts:
        photo = (one.crop or center_crop(photo)).paste(photo, result)
    save_png(path, to_uint8(photo[None])[0])


def main(arguments: Sequence[str]) -> None:
    call(translate, "translate", arguments)
