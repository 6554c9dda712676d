"""Chooses the layers of the target generator that train at a step: adaptively, all, or by name."""

import difflib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zeroshift.core.distributed import Distributed
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Codes, Generator

__all__ = ["choose_layers", "chosen_count", "named_layers", "train_only"]


def named_layers(generator: Generator, layers: Sequence[str]) -> list[str] | None:
    """The layers that the setting `adapt.layers` names.

    Returns:
        None for ("adaptive",) if the generator has layer candidates; without candidates it means all layers.

    Raises:
        ZeroshiftError: if the generator has no such layer.
    """
    names = list(generator.layers())
    if tuple(layers) == ("adaptive",) and generator.layer_candidates() is not None:
        return None
    if tuple(layers) in (("adaptive",), ("all",)):
        return names
    for name in layers:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=2) or names[:3]
            raise ZeroshiftError(f"The generator has no layer {name!r}. Did you mean {' or '.join(near)}?")
    return list(layers)


def chosen_count(candidates: int, wanted: int | None) -> int:
    """Number of layers to train: `wanted`, or two thirds of the candidates, rounded down.

    IPL, section 4.1: int(2 (2 log2(size) - 2) / 3), where 2 log2(size) - 2 is the number of candidates.

    Raises:
        ZeroshiftError: if `wanted` is larger than the number of candidates.
    """
    if wanted is not None and wanted > candidates:
        raise ZeroshiftError(f"adapt.num_layers is {wanted}, but the generator has {candidates} layers to choose from.")
    return max(1, 2 * candidates // 3) if wanted is None else wanted


def choose_layers(
    loss: Callable[[Codes], Tensor],
    codes: Codes,
    candidates: Sequence[str],
    count: int,
    lr: float,
    steps: int,
    distributed: Distributed,
) -> list[str]:
    """The `count` candidates that matter most for the target domain, best first: NADA, section 4.2.

    The codes take `steps` SGD steps on the loss. The score of a layer is the mean absolute change of its codes over
    samples and entries. Only the codes need gradients, so freeze the weights first.

    Args:
        loss: this process's summand of the mean global CLIP loss over the samples of all processes.
        codes: [N, len(candidates), ...], this process's samples.
    """
    codes = codes.detach()
    moved = codes.clone()
    for _ in range(steps):
        moved.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(moved), moved)
        moved = moved.detach() - lr * gradient
    change = (moved - codes).abs().flatten(start_dim=2).mean(dim=2).sum(dim=0)  # [candidates]
    return [candidates[index] for index in distributed.sum(change).topk(count).indices.tolist()]


def train_only(generator: Generator, layers: Sequence[str]) -> None:
    """Enables gradients for the parameters of the named layers only."""
    generator.requires_grad_(False)
    named = generator.layers()
    for name in layers:
        named[name].requires_grad_(True)
