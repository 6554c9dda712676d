"""Helpers for floating-point precision.

Networks are created in PyTorch's default dtype and all other tensors follow their weights. After
`torch.set_default_dtype(torch.float64)` a whole run is in double precision, which separates rounding from real changes.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["at_least_float32", "float64", "tf32_products"]


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32 if its precision is lower, else unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def float64(x: Tensor) -> Tensor:
    """The tensor in float64; moved to the CPU from Apple GPUs, which do not support it."""
    return (x.cpu() if x.device.type == "mps" else x).double()


@contextlib.contextmanager
def tf32_products(enabled: bool) -> Iterator[None]:
    """If enabled, NVIDIA GPUs compute products of float32 matrices in TF32, with 10 bits of mantissa, in the body.

    PyTorch computes convolutions in TF32 by default, and matrix products in float32.
    """
    before = torch.get_float32_matmul_precision()
    if enabled:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
