"""Reads and writes folders of unconditional diffusers pipelines: DDPM, DDIM and latent diffusion (LDM)."""

import json
import pickle
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.diffusion.model import Diffusion, plain
from zeroshift.io.atomic import disk_errors, set_default_mode

__all__ = ["read_pipeline", "write_pipeline"]

_INDEX = "model_index.json"
_PARTS = {"unet": ("unet",), "scheduler": ("scheduler",), "decoder": ("vqvae", "vae")}  # names in pipeline folders


def read_pipeline(folder: Path) -> Diffusion:
    """The generator in a pipeline folder, or in the folder of a single UNet2DModel (with DDIM's default schedule).

    Weights are read from safetensors, or from .bin with `weights_only=True`; no code in the folder is executed.

    Raises:
        ZeroshiftError: if the folder is of another kind, or one of its parts is missing, damaged or unsupported.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.vq_model import VQModel
    from diffusers.models.unets.unet_2d import UNet2DModel

    kinds: dict[str, Any] = {"UNet2DModel": UNet2DModel, "VQModel": VQModel, "AutoencoderKL": AutoencoderKL}
    index = _read_json(folder / _INDEX) if (folder / _INDEX).exists() else {"unet": ["diffusers", "UNet2DModel"]}
    configs: dict[str, Any] = {"scheduler": {}, "decoder": None}
    weights: dict[str, Any] = {}
    for part, names in _PARTS.items():
        name = next((name for name in names if index.get(name)), None)
        if name is None:
            continue
        place = (
            folder / name if (folder / name).is_dir() else folder
        )  # the oldest pipelines have everything in one folder
        if part == "scheduler":
            configs[part] = _read_json(place / "scheduler_config.json")
            continue
        config = _read_json(place / "config.json")
        kind = config.get("_class_name", index[name][1])
        if kind not in kinds:
            raise ZeroshiftError(f"{place} holds a {kind}. Expected an unconditional UNet2DModel or its decoder.")
        try:
            weights[part] = kinds[kind].from_pretrained(place, local_files_only=True)
        except (OSError, ValueError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
            raise ZeroshiftError(f"The weights in {place} are missing or damaged ({_first_line(error)}).") from error
        configs[part] = plain(weights[part])
    if "unet" not in weights:
        raise ZeroshiftError(f"{folder} holds no diffusion model: {_INDEX} has no unet.")
    generator = Diffusion(**configs)
    for part, module in weights.items():
        generator.get_submodule(part).load_state_dict(module.state_dict())
    return generator


def write_pipeline(generator: Diffusion, folder: Path) -> None:
    """Writes a folder for DDIMPipeline.from_pretrained (LDMPipeline with a decoder), completely or not at all.

    Raises:
        ZeroshiftError: if `folder` exists and is not a pipeline folder, or cannot be written.
    """
    import diffusers

    if folder.exists() and not (folder / _INDEX).is_file():
        raise ZeroshiftError(f"{folder} exists and is not a pipeline folder. Choose another name.")
    config = generator.schedule.config
    clips = config.clip_sample and generator.sampling.clip_sample
    scheduler: Any = diffusers.DDIMScheduler
    parts = {"unet": generator.unet, "scheduler": scheduler.from_config(config, clip_sample=clips)}
    kind = "DDIMPipeline"
    if generator.decoder is not None:
        parts["vqvae"] = generator.decoder
        kind = "LDMPipeline"
    index: dict[str, Any] = {"_class_name": kind, "_diffusers_version": diffusers.__version__}
    index |= {name: ["diffusers", type(part).__name__] for name, part in parts.items()}
    temporary = folder.with_name(f".zeroshift-{secrets.token_hex(4)}-{folder.name}")
    with disk_errors(folder):
        try:
            for name, part in parts.items():
                part.save_pretrained(temporary / name)
            (temporary / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
            for file in filter(Path.is_file, temporary.rglob("*")):
                set_default_mode(file)
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ZeroshiftError(
            f"{path.parent} is a folder without {path.name}. Give the generator file itself, or the folder of a "
            "diffusers pipeline."
        ) from error
    except (OSError, ValueError) as error:
        raise ZeroshiftError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ZeroshiftError(f"{path} is not a JSON object.")
    return content


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
