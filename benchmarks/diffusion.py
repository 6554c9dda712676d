"""Memory and time of an adaptation step of a diffusion model, in each form, and how well an inverted image returns.

    python benchmarks/diffusion.py --out diffusion              # everything of docs/diffusion.md
    python benchmarks/diffusion.py --quick                      # a small U-Net: to see that it works

The U-Net is that of google/ddpm-celebahq-256, the guide ViT-B/16, the loss DiffusionCLIP's. Weights are random: cost
does not depend on them, and nothing is downloaded.
Each form runs in a process of its own, whose peak memory is reported: of the accelerator, or on a CPU of the process
beyond what it held before the steps. All forms start from the same weights and see the same images.
"""

import dataclasses
import functools
import json
import platform
import resource
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
import tyro
from clock import WHOLE, Clock
from rich.console import Console
from rich.table import Table

from zeroshift.cli.allocator import keep_freed_memory
from zeroshift.clip.encoder import Encoder
from zeroshift.config.settings import AdaptConfig, Sampling, preset
from zeroshift.core.distributed import Distributed
from zeroshift.generators.diffusion.model import Diffusion
from zeroshift.io.atomic import atomic_write
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.nada import NADA
from zeroshift.training.adaptation import Adaptation

Form = Literal["full", "checkpointed", "each step", "LoRA, each step"]
FORMS: dict[Form, dict[str, Any]] = {
    "full": {},
    "checkpointed": {"checkpointing": True},
    "each step": {"each_step": True},
    "LoRA, each step": {"each_step": True, "lora": 8},
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
QUICK = {**CELEBAHQ, "sample_size": 64, "block_out_channels": (32, 32, 32, 32, 64, 64)}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    forms: tuple[Form, ...] = tuple(FORMS)
    repeats: int = 3
    """Steps; the first, in which everything is new, is timed only if it is the only one."""
    steps: int = 6
    """Steps of DDIM from t0 to the image."""
    precision: Literal["float32", "bf16"] = "float32"
    device: Literal["auto", "cpu"] = "auto"
    """auto: the accelerator, if there is one."""
    threads: int = torch.get_num_threads()
    """Of the processor."""
    invert_steps: int = 40
    """Steps of the inversion and of the way back; 0: no inversion."""
    quick: bool = False
    """A small U-Net and one step: to see that it works."""
    out: Path | None = None
    """Folder for diffusion.json."""


def make_source(arguments: Arguments, device: torch.device) -> Diffusion:
    """The U-Net with random weights."""
    torch.manual_seed(0)
    source = Diffusion({"_class_name": "UNet2DModel", **(QUICK if arguments.quick else CELEBAHQ)}, {})
    return source.to(device).eval().requires_grad_(False)


def make_adaptation(form: Form, arguments: Arguments) -> tuple[TrainingContext, Adaptation]:
    """DiffusionCLIP in a form, with models of random weights."""
    options = dict(FORMS[form])
    base = preset("diffusion", target="zombie", method="nada", num_latents=0, device=arguments.device)
    config: AdaptConfig = dataclasses.replace(
        base,
        precision=arguments.precision,
        adapt=dataclasses.replace(base.adapt, lora_rank=options.pop("lora", 0)),
        diffusion=Sampling(noise_steps=1, steps=arguments.steps, clip_sample=False, **options),
    ).validate()
    distributed = Distributed(config.device)
    source = make_source(arguments, distributed.device)
    source.set_sampling(config.diffusion)
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
        return torch.get_device_module(device).max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def measure(form: Form, arguments: Arguments) -> dict[str, float]:
    """Seconds a step (median), peak memory in GiB, and the loss of the first step."""
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as `adapt` does
    context, adaptation = make_adaptation(form, arguments)
    device = context.distributed.device
    held = memory(device) if device.type == "cpu" else 0.0
    clock = Clock(device, "wall")
    seconds, losses = [], []
    for step in range(1 if arguments.quick else arguments.repeats):
        record, parts = clock.time(functools.partial(adaptation.step, step))
        seconds.append(parts[WHOLE])
        losses.append(record["loss"])
    timed = seconds[1:] or seconds
    return {"seconds": statistics.median(timed), "memory": memory(device) - held, "loss": losses[0]}


@torch.no_grad()
def round_trip(arguments: Arguments) -> dict[str, float]:
    """PSNR in dB of an image of the source that is inverted and made again, and seconds of both ways."""
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    device = Distributed(arguments.device).device
    source = make_source(arguments, device)
    source.set_sampling(Sampling(noise_steps=1, steps=arguments.steps, clip_sample=False))
    image = source(source.sample_latents(0, [0])).clamp(-1, 1)
    steps = 4 if arguments.quick else arguments.invert_steps
    source.set_sampling(Sampling(steps=steps, invert_steps=steps, clip_sample=False))
    clock = Clock(device, "wall")
    codes, inverting = clock.time(lambda: source.invert(image))
    again, generating = clock.time(lambda: source.synthesize(codes))
    psnr = 10 * torch.log10(4 / (again - image).square().mean())
    return {"psnr": float(psnr), "invert seconds": inverting[WHOLE], "generate seconds": generating[WHOLE]}


def alone(function: Any, *arguments: Any) -> Any:
    """What a function returns in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main(arguments: Arguments) -> None:
    console = Console()
    table = Table("form", "seconds a step", "peak GiB", "first loss", box=None)
    results: dict[str, Any] = {}
    for form in arguments.forms:
        found = results[form] = alone(measure, form, arguments)
        table.add_row(form, f"{found['seconds']:.2f}", f"{found['memory']:.2f}", f"{found['loss']:.4f}")
    console.print(table)
    if arguments.invert_steps:
        results["round trip"] = alone(round_trip, arguments)
        console.print(", ".join(f"{name} {value:.2f}" for name, value in results["round trip"].items()))
    if arguments.out is not None:
        about = {"torch": torch.__version__, "machine": platform.processor() or platform.machine()}
        device = Distributed(arguments.device).device
        if device.type != "cpu":
            about["accelerator"] = torch.get_device_module(device).get_device_name()
        with atomic_write(arguments.out / "diffusion.json") as file:
            settings = {name: str(value) for name, value in dataclasses.asdict(arguments).items()}
            file.write_text(json.dumps({**about, "arguments": settings, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
