"""Generators of rosinality's stylegan2-pytorch, the format of the IPL, NADA and e4e programs, and of forks."""

import re
from pathlib import Path
from typing import Any

import torch

from zeroshift.generators.checkpoints.stylegan2_layouts import stylegan2_from_rosinality, stylegan2_to_rosinality
from zeroshift.generators.checkpoints.torch_data import Content, is_array
from zeroshift.generators.checkpoints.weights import SavedGenerator
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.io.atomic import atomic_write
from zeroshift.io.outputs import mark_archive

__all__ = ["ANCHORS", "rosinality_generator", "write_rosinality"]

ANCHORS = ("input.input", "constant_input.weight")  # a weight that tells the program, and its fork in BasicSR

_MODULES = ("style", "input", "conv1", "to_rgb1", "convs", "to_rgbs", "noises")
_AVERAGES = ("latent_avg", "mean_latent", "w_avg")  # names of the average w


def rosinality_generator(saved: SavedGenerator, content: Content) -> StyleGAN2:
    """The generator, in evaluation mode on the CPU.

    Raises:
        ZeroshiftError: weights of another kind of generator.
        pickle.UnpicklingError: tensors that do not fit the file.
    """
    weights = saved.weights(content)
    if ANCHORS[1] in weights:
        weights = {_rosinality_name(name, value): value for name, value in weights.items()}
    average: Any = saved.beside(*_AVERAGES)
    latent_avg = content.tensor(average, "latent_avg") if is_array(average) else None
    weights = {name: value for name, value in weights.items() if name not in _AVERAGES}

    def may_ignore(name: str) -> bool:
        return name.split(".")[0] not in _MODULES or weights[name].numel() <= 1

    return stylegan2_from_rosinality(weights, latent_avg, may_ignore)


def _rosinality_name(name: str, value: torch.Tensor) -> str:
    """The name of a weight of BasicSR's StyleGAN2 in rosinality's program."""
    if name == ANCHORS[1]:
        return ANCHORS[0]
    name = re.sub(r"^style_(mlp|conv1|convs)\.", lambda match: {"mlp": "style"}.get(match[1], match[1]) + ".", name)
    if value.numel() == 1 and re.fullmatch(r"(conv1|convs\.\d+)\.weight", name):
        return name.removesuffix("weight") + "noise.weight"
    return re.sub(r"^noises\.noise(?=\d)", "noises.noise_", name.replace(".modulated_conv.", ".conv."))


def write_rosinality(generator: StyleGAN2, path: str | Path) -> None:
    """Writes {"g_ema": state dict, "latent_avg": mean w [w_dim]}, atomically.

    Raises:
        ZeroshiftError: settings that rosinality's program does not support.
    """
    content = {
        "g_ema": stylegan2_to_rosinality(generator),
        "latent_avg": generator.mapping.w_avg.detach().cpu().float().clone(),
    }
    with atomic_write(path) as temporary:
        with open(temporary, "wb") as file:
            torch.save(content, file)
        mark_archive(temporary)
