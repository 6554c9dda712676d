"""Registry of generator families."""

from typing import TYPE_CHECKING

from zeroshift.core.registry import Registry

if TYPE_CHECKING:
    from zeroshift.generators.base import Generator

__all__ = ["FAMILIES"]

FAMILIES: "Registry[type[Generator]]" = Registry(
    "generator family",
    "zeroshift.generators",
    {
        "stylegan2": "zeroshift.generators.stylegan.stylegan2:StyleGAN2",
        "stylegan3": "zeroshift.generators.stylegan.stylegan3:StyleGAN3",
        "diffusion": "zeroshift.generators.diffusion.model:Diffusion",
        "diffusion_autoencoder": "zeroshift.generators.diffusion.autoencoder:DiffusionAutoencoder",
        "module": "zeroshift.generators.module:ModuleGenerator",
    },
)
"""Families by `Generator.architecture`. Entry points: "zeroshift.generators"."""
