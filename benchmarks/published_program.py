"""Runs train.py of a checkout of the published IPL program on a CPU, and writes the seconds of each step.

    python benchmarks/published_program.py SPECIFICATION.json      # started by benchmarks/published.py

It runs in the interpreter that has the dependencies of that program (PyTorch, torchvision, OpenAI's clip, tqdm), and
needs nothing of zeroshift. Only what prevents a run on a CPU without downloads is replaced in the program:

- the device "cuda", which the program names in its code, is the CPU;
- CUDA kernels are not compiled: for tensors on a CPU, the program has PyTorch operations in the same files;
- CLIP's transformers read a copy of their input: train.py overwrites it in place, which autograd allows only where
  float16 weights of a GPU make a copy anyway;
- CLIP models get random weights; their architecture is OpenAI's, or that of the specification;
- the generator has other numbers of channels, if the specification says so;
- tqdm, which wraps the two training loops, measures the steps.
"""

from __future__ import annotations  # the authors name Python 3.8

import functools
import importlib
import importlib.util
import json
import runpy
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

# Arguments of clip.model.CLIP.
ARCHITECTURES = {
    "ViT-B/32": (512, 224, 12, 768, 32, 77, 49408, 512, 8, 12),
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12),
}


def with_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with "cpu" in place of an argument "cuda"."""

    def replaced(value: Any) -> Any:
        return "cpu" if isinstance(value, (str, torch.device)) and str(value) == "cuda" else value

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*map(replaced, args), **{name: replaced(value) for name, value in kwargs.items()})

    return call


def run_on_cpu() -> None:
    """Lets code for "cuda" run on a CPU."""
    torch.randn, torch.load = with_cpu(torch.randn), with_cpu(torch.load)
    torch.Tensor.to, torch.nn.Module.to = with_cpu(torch.Tensor.to), with_cpu(torch.nn.Module.to)  # type: ignore[method-assign]
    torch.Tensor.cuda = lambda tensor: tensor  # type: ignore[method-assign]
    extension = importlib.import_module("torch.utils.cpp_extension")
    extension.load = lambda *args, **kwargs: None  # type: ignore[attr-defined]


def use_random_clip(architectures: dict[str, list[Any]]) -> None:
    """Gives CLIP models random weights; `architectures` replace those of the same name."""
    # clip imports `packaging` from pkg_resources, which only older versions of setuptools have.
    if importlib.util.find_spec("pkg_resources") is None:
        importlib.import_module("packaging.version")
        sys.modules["pkg_resources"] = module = types.ModuleType("pkg_resources")
        module.packaging = importlib.import_module("packaging")  # type: ignore[attr-defined]
    clip = importlib.import_module("clip")
    forward = clip.model.Transformer.forward
    clip.model.Transformer.forward = lambda self, x: forward(self, x.clone())
    known = {**ARCHITECTURES, **architectures}

    def load(name: str, device: Any) -> tuple[torch.nn.Module, Any]:
        values = [tuple(value) if isinstance(value, list) else value for value in known[name]]
        model = clip.model.CLIP(*values).eval()
        return model, clip.clip._transform(model.visual.input_resolution)

    clip.load = load  # type: ignore[attr-defined]
    context_length = known["ViT-B/32"][5]
    clip.tokenize = functools.partial(clip.tokenize, context_length=context_length)  # type: ignore[attr-defined]


def use_channels(channels: dict[str, int]) -> None:
    """Replaces the table of channels that the generator's constructor assigns to `self.channels`."""
    table = {int(size): width for size, width in channels.items()}
    generator = importlib.import_module("model.sg2_model").Generator
    generator.channels = property(lambda self: table, lambda self, value: None)


def write_checkpoint(size: int, path: str) -> None:
    """Writes a checkpoint of the generator with random weights, as train.py reads it."""
    torch.manual_seed(0)
    generator = importlib.import_module("model.sg2_model").Generator(size, 512, 8)
    for name, parameter in generator.named_parameters():
        if name.endswith("noise.weight"):
            parameter.data.fill_(0.1)  # of zero, the first image direction would be 0/0
    torch.save({"g_ema": generator.state_dict(), "latent_avg": generator.mean_latent(4096)[0].detach()}, path)


def measure_steps(measured: list[list[float]]) -> None:
    """Replaces tqdm by an iterator that appends the seconds of each step of a loop to `measured`."""

    def steps(items: Iterable[Any], *args: Any, **kwargs: Any) -> Iterator[Any]:
        seconds: list[float] = []
        measured.append(seconds)
        for item in items:
            began = time.process_time()
            yield item
            seconds.append(time.process_time() - began)

    importlib.import_module("tqdm").tqdm = steps  # type: ignore[attr-defined]


def main(specification: dict[str, Any]) -> None:
    sys.dont_write_bytecode = True  # nothing is written into the checkout
    torch.set_num_threads(specification["threads"])
    checkout = Path(specification["checkout"])
    sys.path[0] = str(checkout)  # in place of the folder of this file
    run_on_cpu()
    use_random_clip(specification["encoders"])
    if specification["channels"]:
        use_channels(specification["channels"])
    if not Path(specification["checkpoint"]).exists():
        write_checkpoint(specification["size"], specification["checkpoint"])
    measured: list[list[float]] = []
    measure_steps(measured)
    sys.argv = ["train.py", *specification["arguments"]]
    runpy.run_path(str(checkout / "train.py"), run_name="__main__")
    Path(specification["seconds"]).write_text(json.dumps(measured[-1]))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
