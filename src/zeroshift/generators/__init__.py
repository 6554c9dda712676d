"""Pretrained image generators behind one interface, and their files."""

from zeroshift.generators.base import Codes, Generator, Latents, style_mix
from zeroshift.generators.checkpoints import export_generator, generator_metadata, load_generator, save_generator
from zeroshift.generators.convert import stylegan2_from_nvidia, stylegan2_from_rosinality, stylegan2_to_rosinality
from zeroshift.generators.stylegan2 import StyleGAN2
from zeroshift.generators.stylegan3 import StyleGAN3, stylegan3_from_nvidia

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
