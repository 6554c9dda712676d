"""Compiles the networks of a run with torch.compile."""

from collections.abc import Sequence
from typing import Any

from zeroshift.clip.encoder import Encoder
from zeroshift.generators.base import Generator

__all__ = ["compile_networks"]


def compile_networks(generator: Generator, encoders: Sequence[Encoder] = (), **options: Any) -> None:
    """Makes the networks of a generator and the towers of encoders compile at their first use.

    Args:
        options: of `torch.compile`.
    """
    for network in generator.children():
        network.compile(**options)
    for encoder in encoders:
        encoder.compile_towers(**options)
