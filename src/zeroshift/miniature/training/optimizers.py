"""Seeded initialization and the pair of optimizers that most recipes use."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import nn

from zeroshift.core.rng import stream
from zeroshift.miniature.training.loop import set_rate
from zeroshift.miniature.training.muon import Muon

__all__ = ["Optimizers", "seeded"]

Built = TypeVar("Built")


def seeded(build: Callable[[], Built], seed: int) -> Built:
    """The result of `build()` with its random weights drawn from `seed`; the global random state is not changed."""
    with torch.random.fork_rng():
        torch.manual_seed(stream(seed, "weights").initial_seed() % 2**31)
        return build()


class Optimizers:
    """Muon for convolution kernels and the matrices of text blocks, AdamW for all other parameters.

    Muon needs far fewer steps. It is not used for the wide matrices of attention pooling, whose orthogonalization would
    take longer than the rest of a step. Norms, biases and embeddings have no weight decay.
    """

    def __init__(self, trained: Sequence[nn.Module], weight_decay: float):
        named = [(name, p) for part in trained for name, p in part.named_parameters()]
        inner = [p for name, p in named if p.dim() == 4 or (p.dim() == 2 and "resblocks" in name)]
        taken = {id(p) for p in inner}
        rest = [(name, p) for name, p in named if id(p) not in taken]
        decayed = [p for name, p in rest if p.dim() >= 2 and "embedding" not in name]
        others = [p for name, p in rest if p.dim() < 2 or "embedding" in name]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._parameters = [p for _, p in named]
        self._adamw = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
        self._muon = Muon(inner, lr=0.0)

    @property
    def parts(self) -> Mapping[str, torch.optim.Optimizer]:
        """The state that a checkpoint saves."""
        return {"adamw": self._adamw, "muon": self._muon}

    def step(self, loss: torch.Tensor, rate: float, kernel_rate: float) -> None:
        """One update with the gradient of `loss`, clipped to norm 1, and the learning rates of AdamW and Muon."""
        for optimizer, value in ((self._adamw, rate), (self._muon, kernel_rate)):
            optimizer.zero_grad()
            set_rate(optimizer, value)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._adamw.step()
        self._muon.step()
