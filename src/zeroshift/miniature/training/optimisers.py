"""How the miniature world's encoders are built and stepped."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import nn

from zeroshift.core.rng import stream
from zeroshift.miniature.training.loop import set_rate
from zeroshift.miniature.training.muon import Muon

__all__ = ["Optimisers", "seeded"]

Built = TypeVar("Built")


def seeded(build: Callable[[], Built], seed: int) -> Built:
    """What `build()` gives when its fresh weights are drawn from `seed`; the global random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(stream(seed, "weights").initial_seed() % 2**31)
        return build()


class Optimisers:
    """Muon for convolution kernels and the matrices of text blocks, AdamW for all else.

    Muon needs far fewer steps. It leaves out the wide matrices of attention pooling, whose orthogonalisation would cost
    more than the rest of a step. No weight decay for norms, biases and embeddings.
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
        """What a checkpoint holds."""
        return {"adamw": self._adamw, "muon": self._muon}

    def step(self, loss: torch.Tensor, rate: float, kernel_rate: float) -> None:
        """One update down the gradient of `loss`, its norm cut at one, with AdamW's and Muon's learning rates."""
        for optimiser, value in ((self._adamw, rate), (self._muon, kernel_rate)):
            optimiser.zero_grad()
            set_rate(optimiser, value)
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._adamw.step()
        self._muon.step()
