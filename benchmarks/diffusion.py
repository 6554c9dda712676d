"""Memory and time of an adaptation step of a diffusion model, by variant, and the reconstruction error of inversion.

    python benchmarks/diffusion.py --out diffusion              # the figures of docs/diffusion.md
    python benchmarks/diffusion.py --quick                      # a small U-Net, to check that it runs

The U-Net is that of google/ddpm-celebahq-256, the guidance encoder ViT-B/16, the loss DiffusionCLIP's. Weights are
random: the cost does not depend on them, and nothing is downloaded. Each variant runs in its own process. Its peak
memory is that of the accelerator, or on a CPU the growth of the process during the steps. All variants start from the
same weights and use the same images.
"""

import dataclasses
import functools
import platform
import resource
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeVar

import open_clip
import torch
import tyro
from clock import WHOLE, Clock
from records import save_json
from rich.console import Console
from rich.table import Table

from zeroshift.cli.allocator import keep_freed_memory
from zeroshift.clip.encoder import Encoder
from zeroshift.core.distributed import Distributed
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.methods.configure import changed, preset, resolve
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.nada import NADA
from zeroshift.training.adaptation import Adaptation

Variant = Literal["full", "checkpointed", "each step", "LoRA, each step"]
VARIANTS: dict[Variant, dict[str, Any]] = {
    "full": {},
    "checkpointed": {"sampling.gradient_checkpointing": True},
    "each step": {"sampling.train_each_step": True},
    "LoRA, each step": {"sampling.train_each_step": True, "adapt.lora_rank": 8},
}
# The configuration that google/ddpm-celebahq-256 publishes: 113.7 million weights.
CELEBAHQ: dict[str, Any] = {
    "sample_size": 256,
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "down_block_types": ("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
    "layers_per_block": 2,
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
T = TypeVar("T")
QUICK = {**CELEBAHQ, "sample_size": 64, "block_out_channels": (32, 32, 32, 32, 64, 64)}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Options of the measurement."""

    variants: tuple[Variant, ...] = tuple(VARIANTS)
    repeats: int = 3
    """Steps; the first is a warm-up and is timed only if it is the only one."""
    steps: int = 6
    """DDIM steps from t0 to the image."""
    precision: Literal["float32", "bf16"] = "float32"
    device: Literal["auto", "cpu"] = "auto"
    """auto: the accelerator if there is one."""
    threads: int = torch.get_num_threads()
    """CPU threads."""
    invert_steps: int = 40
    """Steps of inversion and reconstruction; 0: no inversion."""
    quick: bool = False
    """A small U-Net and one step, to check that everything runs."""
    out: Path | None = None
    """Folder for diffusion.json."""


def make_source(arguments: Arguments, device: torch.device) -> Diffusion:
    """The U-Net with random weights."""
    torch.manual_seed(0)
    source = Diffusion({"_class_name": "UNet2DModel", **(QUICK if arguments.quick else CELEBAHQ)}, {})
    return source.to(device).eval().requires_grad_(False)


def make_adaptation(variant: Variant, arguments: Arguments) -> tuple[TrainingContext, Adaptation]:
    """A variant of DiffusionCLIP, with models of random weights."""
    base = preset(
        "diffusion", target="zombie", method="nada", family="diffusion", num_latents=0, device=arguments.device,
        precision=arguments.precision,
    )  # fmt: skip
    sampling = {"sampling.noise_steps": 1, "sampling.steps": arguments.steps, "sampling.clip_sample": False}
    config = resolve(changed(base, {**sampling, **VARIANTS[variant]}))
    distributed = Distributed(config.device)
    source = make_source(arguments, distributed.device)
    source.configure(config.sampling)
    name = "ViT-B-16-quickgelu"
    encoder = Encoder(
        open_clip.CLIP(**open_clip.get_model_config(name)),
        open_clip.get_tokenizer(name),
        image_mean=open_clip.OPENAI_DATASET_MEAN,
        image_std=open_clip.OPENAI_DATASET_STD,
    )
    context = TrainingContext(config, source, [encoder.to(distributed.device)], distributed)
    return context, Adaptation(context, NADA(context))


def memory(device: torch.device) -> float:
    """Peak memory so far in GiB."""
    if device.type != "cpu":
        return float(torch.get_device_module(device).max_memory_allocated()) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def measure(variant: Variant, arguments: Arguments) -> dict[str, float]:
    """Seconds per step (median), peak memory in GiB, and the loss of the first step."""
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as the command does
    context, adaptation = make_adaptation(variant, arguments)
    device = context.distributed.device
    memory_before = memory(device) if device.type == "cpu" else 0.0
    clock = Clock(device, "wall")
    seconds, losses = [], []
    for step in range(1 if arguments.quick else arguments.repeats):
        record, parts = clock.time(functools.partial(adaptation.step, step))
        seconds.append(parts[WHOLE])
        losses.append(record["loss"])
    timed = seconds[1:] or seconds
    return {"seconds": statistics.median(timed), "memory": memory(device) - memory_before, "loss": losses[0]}


@torch.no_grad()
def round_trip(arguments: Arguments) -> dict[str, float]:
    """PSNR in dB of an image that is inverted and reconstructed, and seconds of both."""
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    device = Distributed(arguments.device).device
    source = make_source(arguments, device)
    source.configure(DDIMOptions(noise_steps=1, steps=arguments.steps, clip_sample=False))
    image = source(source.sample_latents(0, [0])).clamp(-1, 1)
    steps = 4 if arguments.quick else arguments.invert_steps
    source.configure(DDIMOptions(steps=steps, invert_steps=steps, clip_sample=False))
    clock = Clock(device, "wall")
    codes, inverting = clock.time(lambda: source.invert(image))
    reconstructed, generating = clock.time(lambda: source.synthesize(codes))
    psnr = 10 * torch.log10(4 / (reconstructed - image).square().mean())
    return {"psnr": float(psnr), "invert seconds": inverting[WHOLE], "generate seconds": generating[WHOLE]}


def in_fresh_process(function: Callable[..., T], *arguments: Any) -> T:
    """The result of a function that runs in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main(arguments: Arguments) -> None:
    console = Console()
    table = Table("variant", "seconds per step", "peak GiB", "first loss", box=None)
    results: dict[str, Any] = {}
    for variant in arguments.variants:
        result = results[variant] = in_fresh_process(measure, variant, arguments)
        table.add_row(variant, f"{result['seconds']:.2f}", f"{result['memory']:.2f}", f"{result['loss']:.4f}")
    console.print(table)
    if arguments.invert_steps:
        results["round trip"] = in_fresh_process(round_trip, arguments)
        console.print(", ".join(f"{name} {value:.2f}" for name, value in results["round trip"].items()))
    if arguments.out is not None:
        facts = {"torch": torch.__version__, "machine": platform.processor() or platform.machine()}
        device = Distributed(arguments.device).device
        if device.type != "cpu":
            facts["accelerator"] = torch.get_device_module(device).get_device_name()
        settings = {name: str(value) for name, value in dataclasses.asdict(arguments).items()}
        save_json(arguments.out / "diffusion.json", {**facts, "arguments": settings, "results": results})


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
