"""Pretrained image generators behind one interface, and their files.

Names are imported when they are first used, so that the catalogue can be read without PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zeroshift.generators.base import Codes, Generator, Latents, style_mix
    from zeroshift.generators.checkpoints.files import (
        export_formats,
        export_generator,
        generator_metadata,
        load_generator,
        save_generator,
    )
    from zeroshift.generators.checkpoints.stylegan2_layouts import (
        stylegan2_from_nvidia,
        stylegan2_from_rosinality,
        stylegan2_to_rosinality,
    )
    from zeroshift.generators.checkpoints.stylegan3_layouts import stylegan3_from_nvidia
    from zeroshift.generators.module import ModuleSpec, wrap_generator
    from zeroshift.generators.registry import FAMILIES
    from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
    from zeroshift.generators.stylegan.stylegan3 import StyleGAN3

__all__ = [
    "FAMILIES",
    "Codes",
    "Generator",
    "Latents",
    "ModuleSpec",
    "StyleGAN2",
    "StyleGAN3",
    "export_formats",
    "export_generator",
    "generator_metadata",
    "load_generator",
    "save_generator",
    "style_mix",
    "stylegan2_from_nvidia",
    "stylegan2_from_rosinality",
    "stylegan2_to_rosinality",
    "stylegan3_from_nvidia",
    "wrap_generator",
]

_MODULES = {
    "base": ("Codes", "Generator", "Latents", "style_mix"),
    "checkpoints.files": (
        "export_formats", "export_generator", "generator_metadata", "load_generator", "save_generator",
    ),
    "checkpoints.stylegan2_layouts": ("stylegan2_from_nvidia", "stylegan2_from_rosinality", "stylegan2_to_rosinality"),
    "checkpoints.stylegan3_layouts": ("stylegan3_from_nvidia",),
    "module": ("ModuleSpec", "wrap_generator"),
    "registry": ("FAMILIES",),
    "stylegan.stylegan2": ("StyleGAN2",),
    "stylegan.stylegan3": ("StyleGAN3",),
}  # fmt: skip
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
