"""Low-rank updates (Hu et al., "LoRA", 2021) of convolutions and attention layers, with peft."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import atomic_write
from zeroshift.io.checksums import write_tensors

__all__ = ["LORA_FILE", "add", "merge", "updates", "write"]

LORA_FILE = "pytorch_lora_weights.safetensors"  # diffusers' name


def add(network: nn.Module, rank: int, seed: int) -> None:
    """Adds updates W + B A to the weights W of convolutions and attention layers; B starts at 0.

    Raises:
        ZeroshiftError: if peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ZeroshiftError("Low-rank updates need the package peft: pip install 'zeroshift[lora]'.") from error

    targets = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) or (isinstance(module, nn.Linear) and "attention" in name)
    ]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), network)


def updates(network: nn.Module) -> dict[str, nn.ModuleList]:
    """The updates, A and B, by the name of the module that they belong to."""
    named: Iterator[tuple[str, Any]] = network.named_modules()
    return {
        name: nn.ModuleList([module.lora_A["default"], module.lora_B["default"]])
        for name, module in named
        if hasattr(module, "lora_A")
    }


def merge(network: nn.Module) -> None:
    """Adds the updates to the weights and removes them, which restores the structure from before `add`."""
    for name in updates(network):
        module: Any = network.get_submodule(name)
        module.merge()
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, module.get_base_layer())
    if hasattr(network, "peft_config"):
        del network.peft_config


def write(network: nn.Module, path: Path) -> None:
    """Writes the updates in the format of diffusers' LoRA loaders, atomically."""
    named: Iterable[tuple[str, Any]] = updates(network).items()
    tensors = {
        f"unet.{name}.lora_{side}.weight": layer.weight.detach().cpu().contiguous()
        for name, pair in named
        for side, layer in zip("AB", pair, strict=True)
    }
    with atomic_write(path) as temporary:
        write_tensors(temporary, tensors, {"format": "pt"})
