"""Compares the weights in a file with the network that it describes, before memory is allocated for the network."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from zeroshift.errors import ZeroshiftError

__all__ = ["check_claims", "expected_shapes", "listed", "misfits"]


def expected_shapes(build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Shapes of the state dict of the network that `build` makes. No memory is allocated for its weights."""
    with torch.device("meta"):
        network = build()
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def misfits(expected: Mapping[str, Sequence[int]], actual: Mapping[str, Sequence[int]]) -> list[str]:
    """The weights that differ, in words: unknown, missing, or of another shape."""
    wrong = [f"{name} (unknown)" for name in sorted(set(actual) - set(expected))]
    for name, shape in expected.items():
        if name not in actual:
            wrong.append(f"{name} (missing)")
        elif list(actual[name]) != list(shape):
            wrong.append(f"{name} {list(actual[name])} (expected {list(shape)})")
    return wrong


def check_claims(build: Callable[[], nn.Module], shapes: Mapping[str, Sequence[int]]) -> None:
    """Checks that weights of these shapes are those of the network that `build` makes.

    Raises:
        ZeroshiftError: naming some of the weights that differ.
    """
    wrong = misfits(expected_shapes(build), shapes)
    if wrong:
        raise ZeroshiftError(f"Its weights do not fit its description: {listed(wrong)}.")


def listed(wrong: Sequence[str]) -> str:
    """The first three of a list, and how many more there are."""
    return ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
