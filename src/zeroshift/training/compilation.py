"""Compiles the networks of a run with torch.compile, on request with CUDA graphs.

A CUDA graph writes its results to the same memory at every replay, so nothing that a compiled network returns may be
used in a later step without a copy. Noise, latents and seeds reach the networks as tensors: for a Python number that
changes at every step, a new graph would be recorded at every step.
"""

from collections.abc import Sequence
from typing import Any

import torch

from zeroshift.clip.encoder import Encoder
from zeroshift.config.settings import AdaptConfig
from zeroshift.generators.base import Generator

__all__ = ["begin_step", "compile_networks"]


def compile_networks(
    generator: Generator, encoders: Sequence[Encoder] = (), *, mode: str = "default", **options: Any
) -> None:
    """Makes the networks of a generator and the towers of encoders compile at their first use.

    Args:
        mode: see `AdaptConfig.compile_mode`.
        options: further ones of `torch.compile`.
    """
    if mode != "default":
        options["mode"] = mode
    for network in generator.children():
        network.compile(**options)
    for encoder in encoders:
        encoder.compile_towers(**options)


def begin_step(config: AdaptConfig) -> None:
    """Allows CUDA graphs to reuse the memory of earlier results.

    Without this mark PyTorch takes each call of a compiled network without a pending backward pass for a new step, and
    would overwrite the source images while their features are computed.
    """
    if config.compile and config.compile_mode == "reduce-overhead":
        torch.compiler.cudagraph_mark_step_begin()
