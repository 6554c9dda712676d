"""Checkpoint files (.pt) of rosinality's stylegan2-pytorch, the format of the published IPL, NADA and e4e programs.

`torch.load(weights_only=True)` reads them; no code in them is executed.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.stylegan2_layouts import stylegan2_from_rosinality, stylegan2_to_rosinality
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.io.atomic import atomic_write

__all__ = ["read_rosinality", "write_rosinality"]

_GENERATORS = ("g_ema", "g", "generator", "state_dict")  # in order of preference
_PREFIXES = ("", "decoder.", "generator.", "module.")  # "decoder.": an e4e, pSp or ReStyle model


def read_rosinality(path: str | Path) -> StyleGAN2:
    """The generator in a .pt file, on the CPU: the moving average (`g_ema`) if there is one.

    Raises:
        ZeroshiftError: a damaged file, a file with more than plain data, or one without a StyleGAN2 generator.
    """
    try:
        # Training checkpoints store their settings as an argparse.Namespace, which is plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ZeroshiftError(
            f"{path} cannot be read: it is damaged, or holds more than tensors and plain data (no code was executed)."
        ) from error
    if not isinstance(content, Mapping):
        raise ZeroshiftError(f"{path} holds no StyleGAN2 generator. Expected a dictionary with g_ema or g.")
    weights = _generator_weights(content)
    if weights is None:
        keys = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise ZeroshiftError(f"{path} holds no StyleGAN2 generator in rosinality's layout; it holds {keys}.")
    average = content.get("latent_avg")
    try:
        return stylegan2_from_rosinality(weights, average if isinstance(average, torch.Tensor) else None)
    except ZeroshiftError as error:
        raise ZeroshiftError(f"{path} could not be loaded. {error}") from error


def write_rosinality(generator: StyleGAN2, path: str | Path) -> None:
    """Writes {"g_ema": state dict, "latent_avg": mean w [w_dim]}, atomically.

    Raises:
        ZeroshiftError: settings that rosinality's program does not support.
    """
    content = {
        "g_ema": stylegan2_to_rosinality(generator),
        "latent_avg": generator.mapping.w_avg.detach().cpu().float().clone(),
    }
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)


def _generator_weights(content: Mapping[Any, Any]) -> dict[str, torch.Tensor] | None:
    inner = [content[key] for key in _GENERATORS if isinstance(content.get(key), Mapping)]
    for candidate in [*inner, content]:
        named = {key: value for key, value in candidate.items() if isinstance(key, str) and key != "latent_avg"}
        for prefix in _PREFIXES:
            if f"{prefix}input.input" in named:
                return {key[len(prefix) :]: value for key, value in named.items() if key.startswith(prefix)}
    return None
