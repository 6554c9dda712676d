"""How precise numbers are kept.

Networks are made in PyTorch's default dtype and everything follows from their weights', so that after
`torch.set_default_dtype(torch.float64)` a whole run is one in double precision: to tell rounding from the method.
"""

import torch
from torch import Tensor

__all__ = ["at_least_float32", "float64"]


def at_least_float32(x: Tensor) -> Tensor:
    """float32 for a tensor of lower precision; any other one as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def float64(x: Tensor) -> Tensor:
    """In double precision; on the CPU if the tensor is on Apple's GPUs, which have none."""
    return (x.cpu() if x.device.type == "mps" else x).double()
