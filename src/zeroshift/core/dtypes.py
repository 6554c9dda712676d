"""Helpers for floating-point precision.

Networks are created in PyTorch's default dtype and all other tensors follow their weights. After
`torch.set_default_dtype(torch.float64)` a whole run is in double precision, which separates rounding from real changes.
"""

import torch
from torch import Tensor

__all__ = ["at_least_float32", "float64"]


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32 if its precision is lower, else unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def float64(x: Tensor) -> Tensor:
    """The tensor in float64; moved to the CPU from Apple GPUs, which do not support it."""
    return (x.cpu() if x.device.type == "mps" else x).double()
