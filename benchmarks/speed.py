"""How fast the two stages of IPL are, by part, against a naive twin of the published program (benchmarks/naive.py).

    python benchmarks/speed.py --out speed                       # everything of docs/speed.md
    python benchmarks/speed.py --cases miniature --quick         # a minute

Models have random weights (speed does not depend on them; nothing is downloaded). Both programs run in processes of
their own and take turns. Their first steps are compared: losses, directions, images and updated weights within 1e-4,
layers identical. Medians of all steps but the first count.
"""

import contextlib
import copy
import dataclasses
import functools
import json
import os
import platform
import resource
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import torch
import tyro
from clock import WHOLE, Clock
from naive import NaiveAdaptation, NaivePrompts
from rich.console import Console
from rich.table import Table

from zeroshift.cli.allocator import keep_freed_memory
from zeroshift.clip.encoder import Encoder
from zeroshift.config.settings import AdaptConfig, AdaptStage, PromptStage
from zeroshift.core.distributed import Distributed
from zeroshift.generators.base import Generator
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.io.atomic import atomic_write
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.ipl import IPL
from zeroshift.miniature.networks.encoders import build_guide
from zeroshift.miniature.training.generator import CHANNELS, MAPPING_FEATURES, NUM_FACTORS, W_DIM
from zeroshift.miniature.world.captions import TEMPLATES
from zeroshift.training.adaptation import Adaptation

Case = Literal["miniature", "256", "1024"]
Stage = Literal["prompts", "adapt"]
PROGRAMS = ("zeroshift", "naive")
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    cases: tuple[Case, ...] = ("miniature", "256", "1024")
    """The 64-pixel miniature, or StyleGAN2 (config-f) at 256 or 1024 pixels with ViT-B/32."""
    stages: tuple[Stage, ...] = ("prompts", "adapt")
    repeats: int = 5
    """Steps of each program; the first, in which everything is new, is timed only if it is the only one."""
    threads: int = torch.get_num_threads()
    """Of the processor."""
    device: Literal["auto", "cpu"] = "auto"
    """auto: the accelerator, if there is one."""
    clock: Literal["wall", "processor"] = "wall"
    """processor: the process's own time on a CPU, which other load hardly changes; with one thread."""
    prompt_batch: int = 32
    """Images a step of the prompt stage; as published, like the next two. Fewer where memory is short."""
    batch: int = 2
    """Images a step of the adapt stage."""
    layer_batch: int = 8
    """Latents of the layer choice."""
    quick: bool = False
    """Small batches and one step: to see that it works."""
    out: Path | None = None
    """Folder for speed.json and speed.md."""


# -- the cases ------------------------------------------------------------------------------------------------------


def make_setting(case: Case, arguments: Arguments) -> TrainingContext:
    """Models with random weights, and the published settings."""
    torch.manual_seed(0)
    miniature = case == "miniature"
    prompts = PromptStage(batch_size=arguments.prompt_batch)
    adapt = AdaptStage(batch_size=arguments.batch, layer_batch_size=arguments.layer_batch_size)
    config = AdaptConfig(target="zombie", prompts=prompts, adapt=adapt, device=arguments.device).validate()
    if miniature:
        guide = build_guide()
        tokenizer = open_clip.SimpleTokenizer(context_length=guide.context_length)
        encoder = Encoder(guide, tokenizer, image_mean=[0.5] * 3, image_std=[0.5] * 3, templates=TEMPLATES)
        source = StyleGAN2(
            64, NUM_FACTORS, W_DIM, channels=CHANNELS, mapping_layers=2, mapping_features=MAPPING_FEATURES
        )
    else:
        encoder = Encoder(
            open_clip.CLIP(**open_clip.get_model_config("ViT-B-32-quickgelu")),
            open_clip.get_tokenizer("ViT-B-32-quickgelu"),
            image_mean=open_clip.OPENAI_DATASET_MEAN,
            image_std=open_clip.OPENAI_DATASET_STD,
            resize="published",
        )
        source = StyleGAN2(int(case))
    for conv in source.synthesis.convs():
        conv.noise_strength.data.fill_(0.1)
    distributed = Distributed(config.device)
    return TrainingContext(
        config, source.to(distributed.device).requires_grad_(False), [encoder.to(distributed.device)], distributed
    )


@dataclasses.dataclass
class Program:
    """One of the two, at one stage."""

    update: Callable[[int], Any]  # takes a step and returns what it saw
    trained: torch.nn.Module
    clock: Clock


def make_program(name: str, case: Case, stage: Stage, arguments: Arguments) -> Program:
    """zeroshift or its twin with models of its own, of equal weights, and the parts of its steps watched."""
    context = make_setting(case, arguments)
    return {"prompts": make_prompts, "adapt": make_adapt}[stage](
        name, context, Clock(context.distributed.device, arguments.clock)
    )


def make_prompts(name: str, context: TrainingContext, clock: Clock) -> Program:
    samples = range(context.config.prompts.batch_size)
    method, encoder = IPL(context), context.encoders[0]
    mapper = method.mappers[0]
    stage: Any
    if name == "naive":
        stage = NaivePrompts(context, mapper)
        for part in ("source images", "image features", "text features"):
            clock.watch(stage, part.replace(" ", "_"), part)
    else:
        (stage,) = method.stages()
        watch_source(context, clock)
        clock.watch(encoder, "encode_image", "image features")
        clock.watch(mapper, "forward", "text features")
        clock.watch(encoder, "encode_prompts", "text features")
    return Program(lambda step: stage.update(context.latents("prompts", step, samples), step, samples), mapper, clock)


def make_adapt(name: str, context: TrainingContext, clock: Clock) -> Program:
    settings, method, start = context.config.adapt, IPL(context), near(context.source)
    samples, layer_samples = range(settings.batch_size), range(settings.layer_batch_size)
    stage: Any
    if name == "naive":
        stage = NaiveAdaptation(context, method.mappers[0], start)
        for part in ("source images", "target images", "image features", "text directions"):
            clock.watch(stage, part.replace(" ", "_"), part)
    else:
        stage = Adaptation(context, method)
        stage.target.load_state_dict(start.state_dict())
        watch_source(context, clock)
        clock.watch(stage.target, "synthesize", "target images")
        clock.watch(context.encoders[0], "encode_image", "image features")
        clock.watch(method, "text_directions", "text directions")
    clock.watch(stage, "choose_layers", "layer choice")

    def update(step: int) -> Any:
        latents, layer_latents = (
            context.latents(purpose, step, numbers)
            for purpose, numbers in (("adapt", samples), ("layers", layer_samples))
        )
        return stage.update(latents, layer_latents, step, samples)

    return Program(update, stage.target, clock)


def watch_source(context: TrainingContext, clock: Clock) -> None:
    for call in ("context", "codes", "synthesize"):
        clock.watch(context.source, call, "source images")


def near(source: Generator) -> Generator:
    """A start for the target at which image directions are not 0/0, as after some steps."""
    target, random = copy.deepcopy(source), torch.Generator().manual_seed(1)
    for parameter in target.get_submodule("synthesis").parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=random).to(parameter)
    return target


# -- measuring ------------------------------------------------------------------------------------------------------


def measure(case: Case, stage: Stage, arguments: Arguments) -> dict[str, Any]:
    """Lets both programs take turns: seconds of each part at each step, peak memory, differences of the first step."""
    with contextlib.ExitStack() as stack:
        pools = {
            name: stack.enter_context(
                ProcessPoolExecutor(1, get_context("spawn"), start, (name, case, stage, arguments))
            )
            for name in PROGRAMS
        }
        taken: dict[str, list[Taken]] = {name: [] for name in PROGRAMS}
        for step in range(arguments.repeats):
            for name in reversed(PROGRAMS) if step % 2 else PROGRAMS:
                taken[name].append(pools[name].submit(take, step).result())
    differences = compare(*(taken[name][0].seen for name in PROGRAMS))
    if wrong := {name: value for name, value in differences.items() if not value < TOLERANCE}:
        raise SystemExit(f"{case}, {stage}: the two programs differ by {wrong}, more than {TOLERANCE}.")
    batches = {
        "prompts": f"batch {arguments.prompt_batch}",
        "adapt": f"batch {arguments.batch}, layer choice by {arguments.layer_batch_size}",
    }
    return {
        "batches": batches[stage],
        "seconds": {name: [one.seconds for one in taken[name][1:] or taken[name]] for name in PROGRAMS},
        "memory": {name: taken[name][-1].memory for name in PROGRAMS},
        "differences": differences,
        "load average": os.getloadavg()[0],
    }


@dataclasses.dataclass
class Taken:
    """What a process tells of a step."""

    seconds: dict[str, float]
    memory: float  # peak GiB so far: of the process on a CPU, of tensors on an accelerator
    seen: dict[str, Any]  # losses, layers, and everything else as flat arrays; of the first step only


_program: Program  # of a process that `start` began


def start(name: str, case: Case, stage: Stage, arguments: Arguments) -> None:
    """Makes a program in a process of its own."""
    global _program
    torch.set_num_threads(arguments.threads)
    if name == "zeroshift":
        keep_freed_memory()  # as `adapt` does
    _program = make_program(name, case, stage, arguments)


def take(step: int) -> Taken:
    """Lets this process's program take a step."""
    update, seconds = _program.clock.time(functools.partial(_program.update, step))
    taken = Taken(seconds, peak_memory(next(_program.trained.parameters()).device), {})
    if step == 0:
        taken.seen = {field.name: plain(getattr(update, field.name)) for field in dataclasses.fields(update)}
        taken.seen["weights"] = plain(list(_program.trained.parameters()))
    return taken


def plain(value: Any) -> Any:
    """A tensor or a list of tensors as one flat array; anything else as it is."""
    tensors = value if isinstance(value, list) else [value]
    if not isinstance(tensors[0], torch.Tensor):
        return value
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).cpu().numpy()


def peak_memory(device: torch.device) -> float:
    if device.type != "cpu":
        return torch.get_device_module(device).max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30


def compare(ours: dict[str, Any], naive: dict[str, Any]) -> dict[str, float]:
    """Relative differences of what both saw at a step; the layers that they chose must be the same."""
    found = {}
    for name, value in naive.items():
        if name == "losses":
            found["loss"] = abs(ours[name]["loss"] - value["loss"]) / abs(value["loss"])
        elif name == "layers":
            if ours[name] != value:
                raise SystemExit(f"The two programs chose different layers: {ours[name]} and {value}.")
        else:
            found[name] = float(np.linalg.norm(ours[name] - value) / np.linalg.norm(value))
    return found


def machine(arguments: Arguments) -> dict[str, Any]:
    """What the figures were taken on."""
    device = Distributed(arguments.device).device
    named = [line.partition(":")[2].strip() for line in read(Path("/proc/cpuinfo")) if line.startswith("model name")]
    found = {
        "processor": named[0] if named else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": arguments.threads,
        "clock": arguments.clock,
        "torch": torch.__version__,
        "load average": [round(value, 1) for value in os.getloadavg()],
    }
    if device.type != "cpu":
        found["accelerator"] = torch.get_device_module(device).get_device_name(device)
    return found


def read(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# -- showing --------------------------------------------------------------------------------------------------------


def rows(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """(part, naive twin, zeroshift, how many times faster or smaller), the whole step and memory last."""
    ours, naive = (
        {part: statistics.median(step[part] for step in result["seconds"][name]) for part in result["seconds"][name][0]}
        for name in PROGRAMS
    )
    table = [
        (part, f"{naive[part]:.3f} s", f"{ours[part]:.3f} s", f"{naive[part] / ours[part]:.1f} x") for part in ours
    ]
    ours, naive = (result["memory"][name] for name in PROGRAMS)
    return [*table, ("peak memory", f"{naive:.2f} GiB", f"{ours:.2f} GiB", f"{naive / ours:.1f} x")]


def show(result: dict[str, Any], console: Console) -> None:
    table = Table("", "naive twin", "zeroshift", "ratio", title=f"{result['case']}, {result['stage']}")
    for row in rows(result):
        table.add_row(*row, style="bold" if row[0] == WHOLE else None)
    console.print(table)


def markdown(results: list[dict[str, Any]], described: dict[str, Any]) -> str:
    lines = ["; ".join(f"{name}: {value}" for name, value in described.items()), ""]
    for result in results:
        worst = max(result["differences"].values())
        lines += [
            f"### {result['case']}, stage `{result['stage']}`",
            "",
            f"{result['batches']}; {len(result['seconds']['naive'])} timed steps each; differences up to {worst:.0e}.",
            "",
            "| part | naive twin | zeroshift | ratio |",
            "| --- | ---: | ---: | ---: |",
            *("| " + " | ".join(f"**{cell}**" if row[0] == WHOLE else cell for cell in row) + " |"
              for row in rows(result)),
            "",
        ]  # fmt: skip
    return "\n".join(lines)


def main(arguments: Arguments) -> None:
    if arguments.quick:
        arguments = dataclasses.replace(arguments, repeats=1, prompt_batch=4, batch_size=1, layer_batch_size=2)
    console, results, described = Console(), [], machine(arguments)
    console.print(described)
    for case in arguments.cases:
        for stage in arguments.stages:
            result = {"case": case, "stage": stage, **measure(case, stage, arguments)}
            show(result, console)
            results.append(result)
            if arguments.out is not None:
                arguments.out.mkdir(parents=True, exist_ok=True)
                with atomic_write(arguments.out / "speed.json") as path:
                    path.write_text(json.dumps({"machine": described, "results": results}, indent=2) + "\n")
                with atomic_write(arguments.out / "speed.md") as path:
                    path.write_text(markdown(results, described))


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
