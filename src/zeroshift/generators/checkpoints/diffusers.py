"""Reads and writes folders of unconditional diffusers pipelines: DDPM, DDIM and latent diffusion (LDM)."""

import contextlib
import json
import warnings
from pathlib import Path
from typing import Any

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.claims import check_claims, listed
from zeroshift.generators.checkpoints.pipeline_weights import file_names, is_regular, open_weights
from zeroshift.generators.diffusion.configs import decoder_config, schedule_config, unet_config
from zeroshift.generators.diffusion.model import PIPELINE_INDEX, Diffusion
from zeroshift.io.foreign import read_json
from zeroshift.io.outputs import require_writable
from zeroshift.io.owned_folder import replaced_folder, require_owned_folder

__all__ = ["read_pipeline", "require_pipeline_folder", "write_pipeline"]

_CONFIG, _SCHEDULE = "config.json", "scheduler_config.json"
_PARTS = {"unet": ("unet",), "scheduler": ("scheduler",), "decoder": ("vqvae", "vae")}  # names in pipeline folders
_PIPELINES = "DDPMPipeline, DDIMPipeline, PNDMPipeline and LDMPipeline"
_EXPECTED = "Give the generator file itself, or the folder of a diffusers pipeline."
_MAX_CONFIG = 4 * 2**20  # bytes


def read_pipeline(folder: Path) -> Diffusion:
    """The generator in a pipeline folder, or in the folder of a single UNet2DModel (with DDIM's default schedule).

    Weights are read from safetensors or .bin, whole or in shards; no code in the folder is executed. Configurations are
    compared with the weights before memory is allocated.

    Raises:
        ZeroshiftError: if the folder is of another kind, or one of its parts is missing, damaged or unsupported.
    """
    places = _places(folder)
    if "unet" not in places:
        raise ZeroshiftError(f"{folder} holds no diffusion model: {PIPELINE_INDEX} has no unet.")
    check = {"unet": unet_config, "scheduler": schedule_config, "decoder": decoder_config}
    files = {"unet": _CONFIG, "scheduler": _SCHEDULE, "decoder": _CONFIG}
    configs: dict[str, Any] = {"scheduler": {}, "decoder": None}
    for part, place in places.items():
        configs[part] = check[part](_read_object(place / files[part]), str(place / files[part]))
    with contextlib.ExitStack() as opened:
        weights = {
            part: opened.enter_context(open_weights(place)) for part, place in places.items() if part != "scheduler"
        }
        shapes = {f"{part}.{name}": shape for part, one in weights.items() for name, shape in one.shapes.items()}
        try:
            check_claims(lambda: Diffusion(**configs), shapes)
            generator = Diffusion(**configs)
        except ZeroshiftError as error:
            raise ZeroshiftError(f"{folder} could not be loaded. {error}") from error
        for part, one in weights.items():
            generator.get_submodule(part).load_state_dict(one.read())
    return generator


def _places(folder: Path) -> dict[str, Path]:
    """The folders of the parts. The oldest pipelines have all files in one folder."""
    if not is_regular(folder / PIPELINE_INDEX):
        return _places_without_index(folder)
    index = _read_object(folder / PIPELINE_INDEX)
    classes = {
        name: value[1]
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[1] is not None and not name.startswith("_")
    }
    known = [name for names in _PARTS.values() for name in names]
    others = sorted(set(classes) - set(known))
    if others or classes.get("unet", "UNet2DModel") != "UNet2DModel":
        parts = [f"{classes['unet']} as unet"] if "unet" in classes else ["no unet"]
        raise ZeroshiftError(
            f"{folder} is a {index.get('_class_name')!s:.100} ({', '.join([*parts, *others])!s:.300}). Supported are "
            f"unconditional pipelines, with a UNet2DModel: {_PIPELINES}."
        )
    chosen = {part: next((name for name in names if name in classes), None) for part, names in _PARTS.items()}
    return {
        part: folder / name if (folder / name).is_dir() else folder for part, name in chosen.items() if name is not None
    }


def _places_without_index(folder: Path) -> dict[str, Path]:
    """Those of a folder with a single UNet2DModel, beside which its schedule may lie."""
    if is_regular(folder / _CONFIG):
        if "_class_name" not in _read_object(folder / _CONFIG):
            raise ZeroshiftError(
                f"{folder / _CONFIG} does not describe a diffusers model: it has no _class_name. {_EXPECTED}"
            )
        return {"unet": folder} | ({"scheduler": folder} if is_regular(folder / _SCHEDULE) else {})
    names = file_names(folder)
    if "unet" in names:
        raise ZeroshiftError(
            f"{folder} has a folder unet but no {PIPELINE_INDEX}, which says how its parts fit together. Copy or "
            f"download the whole pipeline, or give {folder / 'unet'} to use that network with DDIM's default schedule."
        )
    raise ZeroshiftError(
        f"{folder} is a folder without {PIPELINE_INDEX} or {_CONFIG}; it holds {listed(names) or 'nothing'}. "
        f"{_EXPECTED}"
    )


def require_pipeline_folder(folder: Path) -> None:
    """Raises ZeroshiftError unless `write_pipeline` may write there: see its errors."""
    require_owned_folder(folder, PIPELINE_INDEX)
    require_writable(folder)


def write_pipeline(generator: Diffusion, folder: Path) -> None:
    """Writes a folder for DDIMPipeline.from_pretrained (LDMPipeline with a decoder).

    The index lists the files with their digests, so that a later call replaces them and no others: further files in the
    folder stay. It is written last.

    Raises:
        ZeroshiftError: if the folder is not empty and an earlier call did not write it, if somebody has changed a file
            of that call, or if the folder cannot be written.
    """
    import diffusers

    config = generator.schedule.config
    if config.timestep_spacing == "linspace":
        warnings.warn(
            f"The images that diffusers draws with {folder} differ from ours: with 'linspace' spacing, its steps end "
            "at other noise levels than it lists.",
            stacklevel=2,
        )
    clips = config.clip_sample and generator.sampling.clip_sample
    scheduler: Any = diffusers.DDIMScheduler
    parts = {"unet": generator.unet, "scheduler": scheduler.from_config(config, clip_sample=clips)}
    kind = "DDIMPipeline"
    if generator.decoder is not None:
        parts["vqvae"] = generator.decoder
        kind = "LDMPipeline"
    index: dict[str, Any] = {"_class_name": kind, "_diffusers_version": diffusers.__version__}
    index |= {name: ["diffusers", type(part).__name__] for name, part in parts.items()}
    with replaced_folder(folder, PIPELINE_INDEX) as temporary:
        for name, part in parts.items():
            part.save_pretrained(temporary / name)
        (temporary / PIPELINE_INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _read_object(path: Path) -> dict[str, Any]:
    if not is_regular(path):
        raise ZeroshiftError(f"There is no {path.name} in {path.parent}. Copy or download the pipeline's folder again.")
    content = read_json(path, _MAX_CONFIG)
    if not isinstance(content, dict):
        raise ZeroshiftError(f"{path} is not a JSON object.")
    return content
