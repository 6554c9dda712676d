"""`zeroshift invert`: inverts photos into a generator, for use with any generator that was adapted from it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from zeroshift.cli.arguments import call, require_count, require_positive, require_seed
from zeroshift.cli.output import show_result
from zeroshift.cli.photos import inverted_portraits, require_results
from zeroshift.inversion.options import Space

__all__ = ["invert", "main"]


def invert(
    photos: Annotated[tuple[Path, ...], tyro.conf.Positional],
    generator: str = "miniature",
    space: Space | None = None,
    steps: int | None = None,
    tune_steps: int | None = None,
    encoder: str = "auto",
    distance: Annotated[str | None, tyro.conf.arg(metavar="auto|lpips|pyramid")] = None,
    align: Annotated[str | None, tyro.conf.arg(metavar="auto|none|LEFT,TOP,SIDE")] = None,
    faces: Literal["largest", "all"] = "largest",
    seed: int = 0,
    device: Literal["auto", "cpu"] = "auto",
    out: Path = Path("inverted"),
) -> None:
    """Invert photos into a StyleGAN: find the codes, and small changes of the weights, that draw them.

    An encoder gives the first codes if there is one, optimization brings them closer to the photo, and pivotal tuning
    (PTI) adapts the weights. Writes OUT/NAME.safetensors, which `zeroshift translate` takes in place of the photo, and
    OUT/NAME.png, the photo next to its reconstruction. OUT/inversion-preview.png shows the current state. Finished
    photos are kept in the cache, so the same command continues after an interruption.

    Examples:
      zeroshift invert me.jpg --generator ffhq
      zeroshift invert me.jpg --generator ffhq --encoder e4e_ffhq_encode.pt --steps 100
      zeroshift invert photos --space w --tune-steps 0                 # a folder; codes that are easy to edit
      zeroshift translate runs/zombie inverted/me.safetensors

    Args:
        photos: Images, or folders of images.
        generator: Name or file of the source generator, as in `zeroshift adapt`.
        space: "w": one style for all layers, easier to edit; "w+" (default): one for each layer, closer to the photo.
        steps: Optimization steps of the codes; 0 keeps those of the encoder. Default: 500, or 100 from an encoder. For
            diffusion models: DDIM steps from the photo to noise. Default: 40.
        tune_steps: Greatest number of steps of pivotal tuning; 0: none, the weights stay. Default: 350.
        encoder: File of a pSp, e4e or ReStyle encoder. "auto": the one of the generator, if it has one; "none".
        distance: Distance between photo and reconstruction. "auto" (default): LPIPS if its weights are on this machine,
            otherwise a pyramid of pixels.
        align: Part of the photo. "auto": the face, aligned as in FFHQ; "none": the middle; or a square in pixels.
            Default: auto for generators of aligned faces in `zeroshift models`, otherwise none.
        faces: With --align auto: the largest face of a photo, or all.
        seed: Seed of the noise that the optimization adds to the codes.
        device: "auto": the accelerator, if there is one; "cpu".
        out: Folder to write to.
    """
    import torch

    from zeroshift.core.distributed import Distributed
    from zeroshift.errors import ZeroshiftError
    from zeroshift.generators.checkpoints.files import load_generator
    from zeroshift.generators.diffusion.options import DDIMOptions
    from zeroshift.inversion.portraits import make_inverter, portraits
    from zeroshift.io.images import make_grid, save_png
    from zeroshift.methods.configure import default_config

    if not photos:
        raise ZeroshiftError("Name at least one photo: zeroshift invert me.jpg --generator ffhq")
    require_seed(seed)
    require_count(steps=steps, tune_steps=tune_steps)
    found = portraits(photos, align, faces, generator)
    inverted = [one.file for one in found if one.is_inverted]
    if inverted:
        raise ZeroshiftError(f"{inverted[0]} is no photo, but already inverted.")
    require_results(out, found, (".png", ".safetensors"))
    loaded = load_generator(generator, device=Distributed(device).device)
    sampling = default_config(generator).sampling  # with the t0 of its runs
    if isinstance(sampling, DDIMOptions):
        require_positive(steps=steps)
        loaded.configure(replace(sampling, invert_steps=steps or 40))
    inverter = make_inverter(
        loaded,
        generator,
        space=space,
        steps=steps,
        tune_steps=tune_steps,
        distance=distance,
        encoder=encoder,
        seed=seed,
    )
    for one, picture, code in inverted_portraits(found, inverter, out):
        assert picture is not None
        path, psnr = one.result(out), code.record.get("psnr")
        code.save(one.result(out, ".safetensors"))
        save_png(path, make_grid(torch.stack([picture, inverter.reconstruct(code)]), columns=2))
        quality = "" if psnr is None else f": PSNR {psnr:.1f} dB"
        show_result(f"{path}{quality}", photos=[{"picture": path, "psnr": psnr}])


def main(arguments: Sequence[str]) -> None:
    call(invert, "invert", arguments)
