"""Published checkpoints: names, resolutions and addresses."""

import re
from collections.abc import Iterator

from zeroshift.generators.checkpoints.entry import CatalogueEntry

__all__ = ["HUGGING_FACE", "published_entries"]

HUGGING_FACE = "https://huggingface.co/"

_ADA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/"
_SOURCES = f"{_ADA}transfer-learning-source-nets/"
_NGC = "https://api.ngc.nvidia.com/v2/models/nvidia/research/"
_NVIDIA_LICENSE = "NVIDIA Source Code License (non-commercial)"

# From the README and train.py of stylegan2-ada-pytorch.
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
# From the README of stylegan3, as DATA-RESOLUTIONxRESOLUTION; StyleGAN3 has the configurations T and R.
_STYLEGAN3 = ("ffhq-1024", "ffhqu-1024", "ffhqu-256", "metfaces-1024", "metfacesu-1024", "afhqv2-512")
_STYLEGAN2 = (
    *("ffhq-1024", "ffhq-512", "ffhq-256", "ffhqu-1024", "ffhqu-256", "metfaces-1024", "metfacesu-1024"),
    *("afhqv2-512", "afhqcat-512", "afhqdog-512", "afhqwild-512", "brecahad-512", "cifar10-32"),
    *("celebahq-256", "lsundog-256"),
)
_NGC_LISTS = {"stylegan2": _STYLEGAN2, "stylegan3-t": _STYLEGAN3, "stylegan3-r": _STYLEGAN3}

# Unconditional diffusion models in the format of diffusers, from their model cards.
_DDPM = ("celebahq", "ema-celebahq", "church", "ema-church", "bedroom", "ema-bedroom", "cat", "ema-cat")
_DIFFUSION = {
    **{f"google/ddpm-{data}-256": 256 for data in _DDPM},
    "google/ddpm-cifar10-32": 32,
    "CompVis/ldm-celebahq-256": 256,
}
# Sizes of downloads in MB, computed from the architectures with weights of 4 bytes: NVIDIA's files hold a discriminator
# and two generators. The computed size of ffhq.pkl is that of the file.
_NVIDIA_MB: dict[str, dict[int, float]] = {
    "stylegan2": {1024: 381, 512: 364, 256: 296, 32: 248},
    "stylegan3-t": {1024: 295, 512: 315, 256: 283},
    "stylegan3-r": {1024: 237, 512: 249, 256: 222},
}
_DIFFUSION_MB = {"google/ddpm-cifar10-32": 143.0, "CompVis/ldm-celebahq-256": 1320.0}
_DDPM_MB = 455.0  # 256 pixels


def published_entries() -> Iterator[CatalogueEntry]:
    """The catalogue entries of published checkpoints."""
    for name, (resolution, address) in _STYLEGAN2_ADA.items():
        size = _NVIDIA_MB["stylegan2"][resolution]
        yield CatalogueEntry(name, "stylegan2", resolution, _NVIDIA_LICENSE, address, size, alignment=_alignment(name))
    for model, names in _NGC_LISTS.items():
        family = model.split("-")[0]
        for data in names:
            pixels = data.split("-")[1]
            name = f"{model}-{data}x{pixels}"
            address = f"{_NGC}{family}/versions/1/files/{name}.pkl"
            size = _NVIDIA_MB[model][int(pixels)]
            yield CatalogueEntry(name, family, int(pixels), _NVIDIA_LICENSE, address, size, alignment=_alignment(data))
    for name, resolution in _DIFFUSION.items():
        address = f"{HUGGING_FACE}{name}"
        alignment = _alignment(name.split("-")[-2])
        size = _DIFFUSION_MB.get(name, _DDPM_MB)
        yield CatalogueEntry(name, "diffusion", resolution, "Apache 2.0", address, size, alignment=alignment)


def _alignment(data: str) -> str:
    """Faces of FFHQ, MetFaces and CelebA-HQ are aligned; those of FFHQ-U and MetFaces-U are not."""
    aligned = re.match(r"(ffhq|metfaces|celebahq)(?!u)", data)
    return "faces" if aligned else ""
