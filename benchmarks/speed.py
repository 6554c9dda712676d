"""How fast the two stages of IPL are, by part, against a naive twin of the published program (benchmarks/naive.py).

    python benchmarks/speed.py --out speed                       # everything of docs/speed.md
    python benchmarks/speed.py --cases miniature --quick         # a minute

Every case and stage runs in a process of its own with random weights (speed does not depend on them; nothing is
downloaded). Both programs take turns. Their first steps are compared, losses, directions and updated weights within
1e-4; medians of all steps but the first count. Peak memory is that of further processes, one a program.
"""

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

import open_clip
import torch
import tyro
from clock import Clock
from naive import NaiveAdaptation, NaivePrompts
from rich.console import Console
from rich.table import Table

from zeroshift.adaptation import Adaptation
from zeroshift.config import AdaptConfig, AdaptStage, PromptStage
from zeroshift.encoder import Encoder
from zeroshift.generators import Generator, StyleGAN2
from zeroshift.methods.base import Setting
from zeroshift.methods.ipl import IPL
from zeroshift.miniature.captions import TEMPLATES
from zeroshift.miniature.encoders import build_guide
from zeroshift.miniature.train_generator import CHANNELS, MAPPING_FEATURES, NUM_FACTORS, W_DIM
from zeroshift.runs import atomic_write
from zeroshift.team import Team

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
    memory: bool = True
    """Measure peak memory too."""
    out: Path | None = None
    """Folder for speed.json and speed.md."""


# -- the cases ------------------------------------------------------------------------------------------------------


def make_setting(case: Case, arguments: Arguments) -> Setting:
    """Models with random weights, and the published settings."""
    torch.manual_seed(0)
    miniature = case == "miniature"
    prompts = PromptStage(batch=arguments.prompt_batch)
    adapt = AdaptStage(batch=arguments.batch, layer_batch=arguments.layer_batch)
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
    team = Team(config.device)
    return Setting(config, source.to(team.device).requires_grad_(False), [encoder.to(team.device)], team)


@dataclasses.dataclass
class Program:
    """One of the two, at one stage."""

    update: Callable[[int], Any]  # takes a step and returns what it saw
    trained: torch.nn.Module
    clock: Clock


def make_program(name: str, case: Case, stage: Stage, arguments: Arguments) -> Program:
    """zeroshift or its twin with models of its own, of equal weights, and the parts of its steps watched."""
    setting = make_setting(case, arguments)
    return {"prompts": make_prompts, "adapt": make_adapt}[stage](
        name, setting, Clock(setting.team.device, arguments.clock)
    )


def make_prompts(name: str, setting: Setting, clock: Clock) -> Program:
    samples = range(setting.config.prompts.batch)
    method, encoder = IPL(setting), setting.encoders[0]
    mapper = method.mappers[0]
    stage: Any
    if name == "naive":
        stage = NaivePrompts(setting, mapper)
        for part in ("source images", "image features", "text features"):
            clock.watch(stage, part.replace(" ", "_"), part)
    else:
        (stage,) = method.stages()
        watch_source(setting, clock)
        clock.watch(encoder, "encode_image", "image features")
        clock.watch(mapper, "forward", "text features")
        clock.watch(encoder, "encode_prompts", "text features")
    return Program(lambda step: stage.update(setting.latents("prompts", step, samples), step, samples), mapper, clock)


def make_adapt(name: str, setting: Setting, clock: Clock) -> Program:
    settings, method, start = setting.config.adapt, IPL(setting), near(setting.source)
    samples, layer_samples = range(settings.batch), range(settings.layer_batch)
    stage: Any
    if name == "naive":
        stage = NaiveAdaptation(setting, method.mappers[0], start)
        for part in ("source images", "target images", "image features", "text directions"):
            clock.watch(stage, part.replace(" ", "_"), part)
    else:
        stage = Adaptation(setting, method)
        stage.target.load_state_dict(start.state_dict())
        watch_source(setting, clock)
        clock.watch(stage.target, "synthesize", "target images")
        clock.watch(setting.encoders[0], "encode_image", "image features")
        clock.watch(method, "text_directions", "text directions")
    clock.watch(stage, "choose_layers", "layer choice")

    def update(step: int) -> Any:
        latents, layer_latents = (
            setting.latents(purpose, step, numbers)
            for purpose, numbers in (("adapt", samples), ("layers", layer_samples))
        )
        return stage.update(latents, layer_latents, step, samples)

    return Program(update, stage.target, clock)


def watch_source(setting: Setting, clock: Clock) -> None:
    for call in ("context", "codes", "synthesize"):
        clock.watch(setting.source, call, "source images")


def near(source: Generator) -> Generator:
    """A start for the target at which image directions are not 0/0, as after some steps."""
    target, random = copy.deepcopy(source), torch.Generator().manual_seed(1)
    for parameter in target.get_submodule("synthesis").parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=random).to(parameter)
    return target


# -- measuring ------------------------------------------------------------------------------------------------------


def measure_times(case: Case, stage: Stage, arguments: Arguments) -> dict[str, Any]:
    """Compares the first step, then times both programs in turns: seconds by program and part, and differences."""
    torch.set_num_threads(arguments.threads)
    programs = {name: make_program(name, case, stage, arguments) for name in PROGRAMS}
    differences = {}
    for repeat in range(arguments.repeats):
        seen = {}
        for name in reversed(PROGRAMS) if repeat % 2 else PROGRAMS:
            seen[name] = programs[name].clock.time(functools.partial(programs[name].update, repeat))
        if repeat == 0:
            differences = compare(*(seen[name] for name in PROGRAMS))
            differences["weights"] = relative(*(programs[name].trained.parameters() for name in PROGRAMS))
            if wrong := {name: value for name, value in differences.items() if not value < TOLERANCE}:
                raise SystemExit(f"{case}, {stage}: the two programs differ by {wrong}, more than {TOLERANCE}.")
    seconds = {
        name: {part: statistics.median(values[1:] or values) for part, values in program.clock.parts.items()}
        for name, program in programs.items()
    }
    steps = {name: program.clock.totals[1:] or program.clock.totals for name, program in programs.items()}
    return {"differences": differences, "seconds": seconds, "steps": steps, "load": os.getloadavg()}


def compare(ours: Any, naive: Any) -> dict[str, float]:
    """Relative differences of losses, prompt features or text directions, and images of a step."""
    if getattr(ours, "layers", None) != getattr(naive, "layers", None):
        raise SystemExit(f"The two programs chose different layers: {ours.layers} and {naive.layers}.")
    loss, fields = naive.losses["loss"], [field.name for field in dataclasses.fields(naive)]
    found = {"loss": abs(ours.losses["loss"] - loss) / abs(loss)}
    for name in fields:
        values = getattr(naive, name)
        if isinstance(values, torch.Tensor):
            found[name] = relative([getattr(ours, name)], [values])
        elif isinstance(values, list) and isinstance(values[0], torch.Tensor):
            found[name] = relative(getattr(ours, name), values)
    return found


def relative(ours: Any, naive: Any) -> float:
    """Norm of the difference of lists of tensors, relative to that of the second."""
    ours, naive = (torch.cat([tensor.detach().flatten() for tensor in side]) for side in (ours, naive))
    return float((ours - naive).norm() / naive.norm())


def measure_memory(case: Case, stage: Stage, name: str, arguments: Arguments) -> float:
    """Peak GiB of two steps of one program: of the process on a CPU, of tensors on an accelerator."""
    torch.set_num_threads(arguments.threads)
    program = make_program(name, case, stage, arguments)
    for step in range(2):
        program.update(step)
    device = next(program.trained.parameters()).device
    if device.type != "cpu":
        return torch.get_device_module(device).max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function that runs in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def machine(arguments: Arguments) -> dict[str, Any]:
    """What the figures were taken on."""
    device = Team(arguments.device).device
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
    ours, naive = (dict(result["seconds"][name]) for name in PROGRAMS)
    ours["whole step"], naive["whole step"] = (statistics.median(result["steps"][name]) for name in PROGRAMS)
    table = [
        (part, f"{naive[part]:.3f} s", f"{ours[part]:.3f} s", f"{naive[part] / ours[part]:.1f} x") for part in naive
    ]
    if "memory" in result:
        ours, naive = (result["memory"][name] for name in PROGRAMS)
        table.append(("peak memory", f"{naive:.2f} GiB", f"{ours:.2f} GiB", f"{naive / ours:.1f} x"))
    return table


def show(result: dict[str, Any], console: Console) -> None:
    table = Table("", "naive twin", "zeroshift", "ratio", title=f"{result['case']}, {result['stage']}")
    for row in rows(result):
        table.add_row(*row, style="bold" if row[0] == "whole step" else None)
    console.print(table)


def markdown(results: list[dict[str, Any]], described: dict[str, Any]) -> str:
    lines = ["; ".join(f"{name}: {value}" for name, value in described.items()), ""]
    for result in results:
        worst = max(result["differences"].values())
        lines += [
            f"### {result['case']}, stage `{result['stage']}`",
            "",
            f"{result['batches']}; {len(result['steps']['naive'])} timed steps each; the first differ by {worst:.0e}.",
            "",
            "| part | naive twin | zeroshift | ratio |",
            "| --- | ---: | ---: | ---: |",
            *("| " + " | ".join(f"**{cell}**" if row[0] == "whole step" else cell for cell in row) + " |"
              for row in rows(result)),
            "",
        ]  # fmt: skip
    return "\n".join(lines)


def main(arguments: Arguments) -> None:
    if arguments.quick:
        arguments = dataclasses.replace(arguments, repeats=1, prompt_batch=4, batch=1, layer_batch=2)
    console, results, described = Console(), [], machine(arguments)
    console.print(described)
    for case in arguments.cases:
        for stage in arguments.stages:
            batches = {
                "prompts": f"batch {arguments.prompt_batch}",
                "adapt": f"batch {arguments.batch}, layer choice by {arguments.layer_batch}",
            }
            result = {
                "case": case,
                "stage": stage,
                "batches": batches[stage],
                **apart(measure_times, case, stage, arguments),
            }
            if arguments.memory:
                result["memory"] = {name: apart(measure_memory, case, stage, name, arguments) for name in PROGRAMS}
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
