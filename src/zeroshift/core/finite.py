"""Checks that weights, images and features are finite numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zeroshift.errors import NotFiniteError

__all__ = ["first_not_finite", "is_finite", "require_finite_images", "require_finite_weights"]


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite.

    Reads the tensor once: a sum is finite only if every term is. Only a sum that overflows needs a look at each value.
    """
    if not values.is_floating_point():
        return True
    values = values.detach()
    if values.element_size() == 1:  # 8-bit floats cannot be summed
        values = values.float()
    dtype = torch.float32 if values.element_size() < 4 else None
    return bool(values.sum(dtype=dtype).isfinite()) or bool(values.isfinite().all())


def first_not_finite(state: Any) -> str | None:
    """Path of the first tensor that is not finite in nested mappings and lists, such as "target.w_avg"; None if none.

    Attention masks, which hold nothing but 0 and -inf, count as finite.
    """
    return next((path for path, tensor in _tensors(state, "") if not is_finite(tensor) and not _is_mask(tensor)), None)


def _tensors(state: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        yield path, state
    elif isinstance(state, Mapping | list | tuple):
        items = state.items() if isinstance(state, Mapping) else enumerate(state)
        for name, value in items:
            yield from _tensors(value, f"{path}.{name}" if path else str(name))


def _is_mask(values: Tensor) -> bool:
    return values.ndim > 1 and bool(((values == 0) | (values == -torch.inf)).all())


def require_finite_weights(module: nn.Module, name: str) -> None:
    """Checks the weights and buffers of a loaded network.

    Args:
        name: what the network is, as the start of a sentence: "The generator FILE".

    Raises:
        NotFiniteError: naming the first tensor that holds NaN or infinite values.
    """
    tensor = first_not_finite(module.state_dict())
    if tensor is not None:
        raise NotFiniteError(
            f"{name} has weights that are not finite numbers, in {tensor}. It is damaged or has diverged in training: "
            "use another one."
        )


def require_finite_images(images: Tensor, name: str = "The generator") -> None:
    """Checks generated images before they are saved or measured.

    Args:
        name: what made them, as the start of a sentence.

    Raises:
        NotFiniteError: if a value is NaN or infinite.
    """
    if not is_finite(images):
        raise NotFiniteError(
            f"{name} makes images with values that are not finite numbers, so they are neither saved nor measured. "
            "It is damaged or has diverged in training: use another one, or make it again with a lower learning rate."
        )
