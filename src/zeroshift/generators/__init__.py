"""Pretrained image generators behind one interface, and their files."""

from zeroshift.generators.base import Codes, Generator, Latents, style_mix
from zeroshift.generators.checkpoints.files import (
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
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.generators.stylegan.stylegan3 import StyleGAN3

__all__ = [
    "Codes",
    "Generator",
    "Latents",
    "StyleGAN2",
    "StyleGAN3",
    "export_generator",
    "generator_metadata",
    "load_generator",
    "save_generator",
    "style_mix",
    "stylegan2_from_nvidia",
    "stylegan2_from_rosinality",
    "stylegan2_to_rosinality",
    "stylegan3_from_nvidia",
]
