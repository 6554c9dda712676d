"""Known checkpoints: what they are, where their authors keep them, and a download cache."""

import difflib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from zeroshift.errors import ZeroshiftError
from zeroshift.io.downloads import cache_folder, download

__all__ = ["EMBEDDED", "Checkpoint", "known_checkpoints", "resolve"]


@dataclass(frozen=True)
class Checkpoint:
    """A published generator. `size_mb` is None where nobody says it before the download, `address` when embedded."""

    name: str
    architecture: str
    resolution: int
    licence: str
    size_mb: float | None
    address: str | None


# Architecture, and file or folder in miniature/weights.
EMBEDDED = {
    "miniature": ("stylegan2", "generator.safetensors"),
    "miniature-diffusion": ("diffusion", "diffusion"),
    "miniature-autoencoder": ("diffusion_autoencoder", "autoencoder.safetensors"),
}

_ADA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/"
_SOURCES = f"{_ADA}transfer-learning-source-nets/"
_NGC = "https://api.ngc.nvidia.com/v2/models/nvidia/research/"
_LICENCE = "NVIDIA Source Code License (non-commercial)"

# Names and resolutions as the README and train.py of stylegan2-ada-pytorch have them ...
_STYLEGAN2_ADA = {
    "ffhq": (1024, f"{_ADA}ffhq.pkl"),
    "metfaces": (1024, f"{_ADA}metfaces.pkl"),
    "afhqcat": (512, f"{_ADA}afhqcat.pkl"),
    "afhqdog": (512, f"{_ADA}afhqdog.pkl"),
    "afhqwild": (512, f"{_ADA}afhqwild.pkl"),
    "brecahad": (512, f"{_ADA}brecahad.pkl"),
    "cifar10": (32, f"{_ADA}cifar10.pkl"),
    "ffhq256": (256, f"{_SOURCES}ffhq-res256-mirror-paper256-noaug.pkl"),
    "ffhq512": (512, f"{_SOURCES}ffhq-res512-mirror-stylegan2-noaug.pkl"),
    "ffhq1024": (1024, f"{_SOURCES}ffhq-res1024-mirror-stylegan2-noaug.pkl"),
    "celebahq256": (256, f"{_SOURCES}celebahq-res256-mirror-paper256-kimg100000-ada-target0.5.pkl"),
    "lsundog256": (256, f"{_SOURCES}lsundog-res256-paper256-kimg100000-noaug.pkl"),
}
# ... and as the README of stylegan3 lists them, DATA-RESOLUTIONxRESOLUTION; StyleGAN3 in configurations T and R.
_STYLEGAN3 = ("ffhq-1024", "ffhqu-1024", "ffhqu-256", "metfaces-1024", "metfacesu-1024", "afhqv2-512")
_STYLEGAN2 = (
    *("ffhq-1024", "ffhq-512", "ffhq-256", "ffhqu-1024", "ffhqu-256", "metfaces-1024", "metfacesu-1024"),
    *("afhqv2-512", "afhqcat-512", "afhqdog-512", "afhqwild-512", "brecahad-512", "cifar10-32"),
    *("celebahq-256", "lsundog-256"),
)

# Unconditional diffusion models in diffusers' own form, as their model cards have them.
_HUGGING_FACE = "https://huggingface.co/"
_DDPM = ("celebahq", "ema-celebahq", "church", "ema-church", "bedroom", "ema-bedroom", "cat", "ema-cat")
_DIFFUSION = {**{f"google/ddpm-{data}-256": 256 for data in _DDPM}, "google/ddpm-cifar10-32": 32}
_LATENT_DIFFUSION = {"CompVis/ldm-celebahq-256": 256}
_WEIGHTS = ("*.safetensors", "*.bin")  # the first kind that a model has is fetched


def known_checkpoints() -> list[Checkpoint]:
    """The generators that have a name, the embedded ones first."""
    known = []
    for name, (architecture, _) in EMBEDDED.items():
        path = _embedded(name)
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        if files:  # one that is not trained yet is no checkpoint
            megabytes = round(sum(each.stat().st_size for each in files) / 1e6, 1)
            known.append(Checkpoint(name, architecture, 64, "MIT", megabytes, None))
    for name, (resolution, address) in _STYLEGAN2_ADA.items():
        known.append(Checkpoint(name, "stylegan2", resolution, _LICENCE, None, address))
    lists = {"stylegan2": _STYLEGAN2, "stylegan3-t": _STYLEGAN3, "stylegan3-r": _STYLEGAN3}
    for model, data in [(model, data) for model, names in lists.items() for data in names]:
        family, pixels = model.split("-")[0], data.split("-")[1]
        name = f"{model}-{data}x{pixels}"
        address = f"{_NGC}{family}/versions/1/files/{name}.pkl"
        known.append(Checkpoint(name, family, int(pixels), _LICENCE, None, address))
    for name, resolution in {**_DIFFUSION, **_LATENT_DIFFUSION}.items():
        size = 455 if name in ("google/ddpm-celebahq-256", "google/ddpm-ema-celebahq-256") else None
        known.append(Checkpoint(name, "diffusion", resolution, "Apache 2.0", size, f"{_HUGGING_FACE}{name}"))
    return known


def resolve(name: str) -> Path:
    """The file of a known generator, or the folder of a model of the Hugging Face Hub ("OWNER/MODEL").

    They are downloaded if the cache does not have them.

    Raises:
        ZeroshiftError: an unknown name, no network, a failed download, no room or right to write.
    """
    if "/" in name:
        return _hugging_face(name)
    known = {checkpoint.name: checkpoint for checkpoint in known_checkpoints()}
    if name in EMBEDDED and name not in known:
        model = name.partition("-")[2] or "generator"
        raise ZeroshiftError(f"{name!r} is not trained yet. `zeroshift miniature train {model}` makes it.")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise ZeroshiftError(
            f"There is no known generator {name!r}. {hint}`zeroshift models` lists the names; or give a file's path."
        )
    address = known[name].address
    return download(address, cache_folder() / "generators" / f"{name}.pkl") if address else _embedded(name)


def _hugging_face(name: str) -> Path:
    """The folder with a model's settings and weights, in the Hub's own cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        for weights in _WEIGHTS:
            folder = Path(snapshot_download(name, allow_patterns=["*.json", weights]))
            if any(folder.rglob(weights)):
                return folder
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ZeroshiftError(f"There is no file {name}, nor a model of this name at {_HUGGING_FACE}.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ZeroshiftError(
            f"There is no file {name}, and {_HUGGING_FACE}{name} cannot be had. Check name and network, or fetch the "
            "model's folder elsewhere and give its path."
        ) from error
    raise ZeroshiftError(f"{_HUGGING_FACE}{name} holds no weights in {' or '.join(_WEIGHTS)}.")


def _embedded(name: str) -> Path:
    return Path(str(resources.files("zeroshift") / "miniature" / "weights" / EMBEDDED[name][1]))
