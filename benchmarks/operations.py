"""Floating-point operations and activations of an adapt step, counted without computing anything.

    python benchmarks/operations.py                      # StyleGAN2 (config-f) at 256, 512 and 1024 pixels, ViT-B/32

Tensors are PyTorch's fake tensors, which have shapes but no memory, so the counts take seconds on any machine. Counted
are convolutions and matrix products in both directions. Activations are the bytes of all tensors that the generator's
graph keeps for the backward pass, parameters and buffers excepted.
"""

import dataclasses
from typing import Any

import open_clip
import torch
import tyro
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.training.layer_selection import chosen_count, train_only

W_DIM = 512
BATCH, LAYER_BATCH = 2, 8  # as published
PART = 2**21  # pixels of a part of the choice, as in `zeroshift.training.layer_selection`


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to count."""

    resolutions: tuple[int, ...] = (256, 512, 1024)
    encoder: str = "ViT-B-32-quickgelu"
    """Guidance encoder: a model of open_clip."""


class FlopCounter(TorchDispatchMode):
    """Counts floating-point operations. PyTorch's own counter tracks modules, which forbids `torch.autograd.grad`."""

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


class Step:
    """The parts of an adapt step of NADA or IPL with published batches; make it in a FakeTensorMode."""

    def __init__(self, resolution: int, encoder: str):
        self.generator = StyleGAN2(resolution)
        self.encoder: nn.Module = open_clip.CLIP(**open_clip.get_model_config(encoder)).visual.requires_grad_(False)
        candidates = self.generator.layer_candidates()
        self.candidates, self.chosen = candidates, candidates[: chosen_count(len(candidates), None)]

    def features(self, codes: Tensor) -> Tensor:
        """Features [N, E] of the images of ws [N, num_ws, w_dim]."""
        size = self.encoder.image_size
        images = self.generator.synthesize(codes)
        features: Tensor = self.encoder(nn.functional.interpolate(images, size))
        return features

    def codes(self, count: int, gradient: bool) -> Tensor:
        """ws of some samples."""
        return torch.randn(count, self.generator.num_ws, W_DIM, requires_grad=gradient)

    def choice(self, count: int) -> int:
        """Operations of the choice of layers by `count` latents of its own."""
        self.generator.requires_grad_(False)
        codes = self.codes(count, True)
        with FlopCounter() as counter:
            torch.autograd.grad(self.features(codes).sum(), codes)
        return counter.total

    def training(self, *, chooses: bool) -> int:
        """Operations of the training batch; with those of the choice by this batch, if it chooses."""
        trained = [weight for name in self.chosen for weight in self.generator.get_submodule(name).parameters()]
        with FlopCounter() as counter:
            with torch.no_grad():
                self.features(self.codes(BATCH, False))
            train_only(self.generator, self.candidates if chooses else self.chosen)
            codes = self.codes(BATCH, chooses)
            features = self.features(codes)
            if chooses:
                torch.autograd.grad(features.sum(), codes, retain_graph=True)
            features.sum().backward(inputs=trained)
        return counter.total

    def kept(self, count: int, *, weights: bool) -> int:
        """Bytes that the generator's graph keeps for gradients of `count` codes, or of all weights."""
        self.generator.requires_grad_(weights)
        own = {one.untyped_storage()._cdata for one in (*self.generator.parameters(), *self.generator.buffers())}
        storages: dict[int, torch.UntypedStorage] = {}  # keeps them alive, so that no address is used twice

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                storages[storage._cdata] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            self.generator.synthesize(self.codes(count, not weights))
        return sum(storage.nbytes() for storage in storages.values())


def operations(step: Step) -> dict[str, float]:
    """GFLOP of a step by kind of choice."""
    alone, whole = step.training(chooses=False), step.choice(LAYER_BATCH)
    counts = {
        "8 latents, as published": alone + whole,
        "4 latents": alone + step.choice(4),
        "2 latents": alone + step.choice(2),
        "every 2nd step": alone + whole / 2,
        "every 4th step": alone + whole / 4,
        "by the training batch": step.training(chooses=True),
        "no choice": alone,
    }
    return {name: count / 1e9 for name, count in counts.items()}


def activations(step: Step) -> dict[str, float]:
    """GiB that the generator's graph keeps. Turns on gradient checkpointing."""
    part = max(1, min(LAYER_BATCH, PART // step.generator.resolution**2))
    sizes = {
        "choice by 8 images at once": step.kept(LAYER_BATCH, weights=False),
        "choice by 8 images in parts": step.kept(part, weights=False),
        "training, batch 2": step.kept(BATCH, weights=True),
    }
    step.generator.checkpoint_gradients()
    sizes["choice in parts, checkpointing"] = step.kept(part, weights=False)
    sizes["training, checkpointing"] = step.kept(BATCH, weights=True)
    return {name: size / 2**30 for name, size in sizes.items()}


def table(title: str, columns: dict[int, dict[str, float]], digits: int) -> Table:
    """One column per resolution."""
    shown = Table("", *(Column(str(resolution), justify="right") for resolution in columns), title=title)
    for name in next(iter(columns.values())):
        shown.add_row(name, *(f"{column[name]:,.{digits}f}" for column in columns.values()))
    return shown


def main(arguments: Arguments) -> tuple[dict[int, dict[str, float]], dict[int, dict[str, float]]]:
    """Prints and returns both tables, by resolution."""
    counts, sizes = {}, {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for resolution in arguments.resolutions:
            step = Step(resolution, arguments.encoder)
            counts[resolution], sizes[resolution] = operations(step), activations(step)
    console = Console()
    console.print(table("GFLOP of an adapt step, by the choice of layers", counts, 0))
    console.print(table("GiB kept for the backward pass of the generator", sizes, 2))
    return counts, sizes


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
