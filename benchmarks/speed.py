"""Speed of the two stages of IPL by part, compared with a naive twin of the published program (benchmarks/naive.py).

    python benchmarks/speed.py --out speed                       # the figures of docs/speed.md
    python benchmarks/speed.py --cases miniature --quick         # a minute

Models have random weights: speed does not depend on them, and nothing is downloaded. The two programs run in separate
processes and take turns. Their first steps are compared: losses, directions, images and updated weights within 1e-4,
layers identical. Reported are medians over all steps but the first.
"""

import contextlib
import copy
import dataclasses
import functools
import os
import platform
import resource
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import torch
import tyro
from clock import WHOLE, Clock
from naive import NaiveAdaptation, NaivePrompts, prompt_settings
from records import save_json
from rich.console import Console
from rich.table import Table

from zeroshift.cli.allocator import keep_freed_memory
from zeroshift.clip.encoder import Encoder
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.core.distributed import Distributed
from zeroshift.generators.base import Generator
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.io.atomic import atomic_write
from zeroshift.methods.configure import resolve
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.ipl import IPL, IPLOptions, PromptLearning, PromptStage
from zeroshift.methods.source_images import FreshBatch
from zeroshift.miniature.networks.encoders import build_guidance_encoder
from zeroshift.miniature.training.generator import CHANNELS, MAPPING_FEATURES, W_DIM
from zeroshift.miniature.world.captions import TEMPLATES
from zeroshift.miniature.world.factors import NUM_FACTORS
from zeroshift.training.adaptation import Adaptation, AdaptUpdate

Case = Literal["miniature", "256", "1024"]
Stage = Literal["prompts", "adapt"]
PROGRAMS = ("zeroshift", "naive")
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    cases: tuple[Case, ...] = ("miniature", "256", "1024")
    """The 64-pixel miniature models, or StyleGAN2 (config-f) at 256 or 1024 pixels with ViT-B/32."""
    stages: tuple[Stage, ...] = ("prompts", "adapt")
    repeats: int = 5
    """Steps of each program; the first is a warm-up and is timed only if it is the only one."""
    threads: int = torch.get_num_threads()
    """CPU threads."""
    device: Literal["auto", "cpu"] = "auto"
    """auto: the accelerator if there is one."""
    clock: Literal["wall", "processor"] = "wall"
    """processor: CPU time of the process, which other load hardly affects; use it with one thread."""
    prompt_batch: int = 32
    """Images per step of the prompt stage. This and the next two are the published numbers."""
    batch: int = 2
    """Images per step of the adapt stage."""
    layer_batch: int = 8
    """Latents for the choice of layers."""
    quick: bool = False
    """Small batches and one step, to check that everything runs."""
    out: Path | None = None
    """Folder for speed.json and speed.md."""


# -- the cases ------------------------------------------------------------------------------------------------------


def make_context(case: Case, arguments: Arguments) -> TrainingContext:
    """Models with random weights, and the published settings."""
    torch.manual_seed(0)
    miniature = case == "miniature"
    options = IPLOptions(PromptStage(batch_size=arguments.prompt_batch))
    adapt = AdaptStage(batch_size=arguments.batch, layer_batch_size=arguments.layer_batch)
    config = resolve(AdaptConfig(target="zombie", options=options, adapt=adapt, device=arguments.device))
    encoder = random_encoder(miniature)
    if miniature:
        source = StyleGAN2(
            64, NUM_FACTORS, W_DIM, channels=CHANNELS, mapping_layers=2, mapping_features=MAPPING_FEATURES
        )
    else:
        source = StyleGAN2(int(case))
    for conv in source.synthesis.convs():
        conv.noise_strength.data.fill_(0.1)
    distributed = Distributed(config.device)
    return TrainingContext(
        config, source.to(distributed.device).requires_grad_(False), [encoder.to(distributed.device)], distributed
    )


def random_encoder(miniature: bool) -> Encoder:
    """The guidance encoder of the miniature world, or ViT-B/32, with random weights."""
    if miniature:
        model = build_guidance_encoder()
        tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
        return Encoder(model, tokenizer, image_mean=[0.5] * 3, image_std=[0.5] * 3, templates=TEMPLATES)
    return Encoder(
        open_clip.CLIP(**open_clip.get_model_config("ViT-B-32-quickgelu")),
        open_clip.get_tokenizer("ViT-B-32-quickgelu"),
        image_mean=open_clip.OPENAI_DATASET_MEAN,
        image_std=open_clip.OPENAI_DATASET_STD,
        resize="published",
    )


@dataclasses.dataclass
class Program:
    """One of the two programs at one stage."""

    update: Callable[[int], Any]  # trains the step of this number, and returns what it computed
    trained: torch.nn.Module
    clock: Clock


def make_program(name: str, case: Case, stage: Stage, arguments: Arguments) -> Program:
    """zeroshift or its twin, each with its own models of equal weights, and with timed parts."""
    context = make_context(case, arguments)
    return {"prompts": make_prompts, "adapt": make_adapt}[stage](
        name, context, Clock(context.distributed.device, arguments.clock)
    )


def make_prompts(name: str, context: TrainingContext, clock: Clock) -> Program:
    """The prompt stage of either program."""
    samples = range(prompt_settings(context).batch_size)
    method, encoder = IPL(context), context.encoders[0]
    mapper = method.mappers[0]

    if name == "naive":
        twin = NaivePrompts(context, mapper)
        for part in ("source images", "image features", "text features"):
            clock.watch(twin, part.replace(" ", "_"), part)
        return Program(
            lambda step: twin.update(draw(context, "prompts", step, samples).latents, step, samples), mapper, clock
        )
    (stage,) = method.stages()
    assert isinstance(stage, PromptLearning)
    watch_source(context, clock)
    clock.watch(encoder, "encode_image", "image features")
    clock.watch(mapper, "forward", "text features")
    clock.watch(encoder, "encode_prompts", "text features")
    return Program(lambda step: stage.update(draw(context, "prompts", step, samples), step), mapper, clock)


def make_adapt(name: str, context: TrainingContext, clock: Clock) -> Program:
    """The adapt stage of either program."""
    settings, method, start = context.config.adapt, IPL(context), near(context.source)
    samples, layer_samples = range(settings.batch_size), range(settings.layer_batch_size)

    if name == "naive":
        twin = NaiveAdaptation(context, method.mappers[0], start)
        for part in ("source images", "target images", "image features", "text directions"):
            clock.watch(twin, part.replace(" ", "_"), part)
        clock.watch(twin, "choose_layers", "layer choice")

        def update_twin(step: int) -> AdaptUpdate:
            latents, layer_latents = (
                draw(context, purpose, step, numbers).latents
                for purpose, numbers in (("adapt", samples), ("layers", layer_samples))
            )
            return twin.update(latents, layer_latents, step, samples)

        return Program(update_twin, twin.target, clock)

    stage = Adaptation(context, method)
    stage.target.load_state_dict(start.state_dict())
    watch_source(context, clock)
    clock.watch(stage.target, "synthesize", "target images")
    clock.watch(context.encoders[0], "encode_image", "image features")
    clock.watch(method, "text_directions", "text directions")
    if stage.choice is not None:
        clock.watch(stage.choice, "from_new_codes", "layer choice")

    def update(step: int) -> AdaptUpdate:
        batch, layer_batch = (
            draw(context, purpose, step, numbers)
            for purpose, numbers in (("adapt", samples), ("layers", layer_samples))
        )
        return stage.update(batch, layer_batch, step)

    return Program(update, stage.target, clock)


def draw(context: TrainingContext, purpose: str, step: int, samples: Sequence[int]) -> FreshBatch:
    """The batch that zeroshift draws for a purpose at a step; its latents are those of the twin."""
    return context.fresh_latents.draw(purpose, step, samples, noise="source" if purpose == "adapt" else None)


def watch_source(context: TrainingContext, clock: Clock) -> None:
    """Times everything that the source generator computes."""
    for call in ("mapper_input", "codes", "synthesize"):
        clock.watch(context.source, call, "source images")


def near(source: Generator) -> Generator:
    """A start for the target at which image directions are well defined, as after some steps."""
    target, random = copy.deepcopy(source), torch.Generator().manual_seed(1)
    for parameter in target.get_submodule("synthesis").parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=random).to(parameter)
    return target


# -- measuring ------------------------------------------------------------------------------------------------------


def measure(case: Case, stage: Stage, arguments: Arguments) -> dict[str, Any]:
    """Alternates between the programs: seconds by part and step, peak memory, differences of the first step."""
    with contextlib.ExitStack() as stack:
        pools = {
            name: stack.enter_context(
                ProcessPoolExecutor(1, get_context("spawn"), start, (name, case, stage, arguments))
            )
            for name in PROGRAMS
        }
        results: dict[str, list[StepResult]] = {name: [] for name in PROGRAMS}
        for step in range(arguments.repeats):
            for name in reversed(PROGRAMS) if step % 2 else PROGRAMS:
                results[name].append(pools[name].submit(run_step, step).result())
    differences = compare(*(results[name][0].outputs for name in PROGRAMS))
    if too_large := {name: value for name, value in differences.items() if not value < TOLERANCE}:
        raise SystemExit(f"{case}, {stage}: the two programs differ by {too_large}, more than {TOLERANCE}.")
    batches = {
        "prompts": f"batch {arguments.prompt_batch}",
        "adapt": f"batch {arguments.batch}, layer choice by {arguments.layer_batch}",
    }
    return {
        "batches": batches[stage],
        "seconds": {name: [result.seconds for result in results[name][1:] or results[name]] for name in PROGRAMS},
        "memory": {name: results[name][-1].memory for name in PROGRAMS},
        "differences": differences,
        "load average": os.getloadavg()[0],
    }


@dataclasses.dataclass
class StepResult:
    """What a process returns after a step."""

    seconds: dict[str, float]
    memory: float  # peak so far in GiB: of the process on a CPU, of tensors on an accelerator
    outputs: dict[str, Any]  # losses, layers, and everything else as flat arrays; of the first step only


_program: Program  # of this worker process, set by `start`


def start(name: str, case: Case, stage: Stage, arguments: Arguments) -> None:
    """Initializes a worker process."""
    global _program
    torch.set_num_threads(arguments.threads)
    if name == "zeroshift":
        keep_freed_memory()  # as the command does
    _program = make_program(name, case, stage, arguments)


def run_step(step: int) -> StepResult:
    """Runs a step of this worker's program."""
    update, seconds = _program.clock.time(functools.partial(_program.update, step))
    outputs: dict[str, Any] = {}
    if step == 0:
        outputs = {field.name: flat_array(getattr(update, field.name)) for field in dataclasses.fields(update)}
        outputs["weights"] = flat_array(list(_program.trained.parameters()))
    return StepResult(seconds, peak_memory(next(_program.trained.parameters()).device), outputs)


def flat_array(value: Any) -> Any:
    """A tensor or a list of tensors as one flat array; other values unchanged."""
    tensors = value if isinstance(value, list) else [value]
    if not isinstance(tensors[0], torch.Tensor):
        return value
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).cpu().numpy()


def peak_memory(device: torch.device) -> float:
    """Peak memory so far in GiB."""
    if device.type != "cpu":
        return float(torch.get_device_module(device).max_memory_allocated()) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30


def compare(ours: dict[str, Any], naive: dict[str, Any]) -> dict[str, float]:
    """Relative differences between the outputs of a step; the chosen layers must be equal."""
    differences = {}
    for name, value in naive.items():
        if name == "losses":
            differences["loss"] = abs(ours[name]["loss"] - value["loss"]) / abs(value["loss"])
        elif name == "layers":
            if ours[name] != value:
                raise SystemExit(f"The two programs chose different layers: {ours[name]} and {value}.")
        else:
            differences[name] = float(np.linalg.norm(ours[name] - value) / np.linalg.norm(value))
    return differences


def machine(threads: int, clock: str, device_name: str) -> dict[str, Any]:
    """Hardware and software of the measurement."""
    device = Distributed(device_name).device
    processors = [
        line.partition(":")[2].strip() for line in read(Path("/proc/cpuinfo")) if line.startswith("model name")
    ]
    facts = {
        "processor": processors[0] if processors else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "clock": clock,
        "torch": torch.__version__,
        "load average": [round(value, 1) for value in os.getloadavg()],
    }
    if device.type != "cpu":
        facts["accelerator"] = torch.get_device_module(device).get_device_name(device)
    return facts


def read(path: Path) -> list[str]:
    """The lines of a file, none if it does not exist."""
    return path.read_text().splitlines() if path.exists() else []


# -- showing --------------------------------------------------------------------------------------------------------


def rows(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """(part, naive twin, zeroshift, ratio), with the whole step and memory last."""
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
    """Prints a result as a table."""
    table = Table("", "naive twin", "zeroshift", "ratio", title=f"{result['case']}, {result['stage']}")
    for row in rows(result):
        table.add_row(*row, style="bold" if row[0] == WHOLE else None)
    console.print(table)


def markdown(results: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """All results as Markdown tables."""
    lines = ["; ".join(f"{name}: {value}" for name, value in facts.items()), ""]
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
    """Measures and prints the results, and writes them if `out` is set."""
    if arguments.quick:
        arguments = dataclasses.replace(arguments, repeats=1, prompt_batch=4, batch=1, layer_batch=2)
    console, results, facts = Console(), [], machine(arguments.threads, arguments.clock, arguments.device)
    console.print(facts)
    for case in arguments.cases:
        for stage in arguments.stages:
            result = {"case": case, "stage": stage, **measure(case, stage, arguments)}
            show(result, console)
            results.append(result)
            if arguments.out is not None:
                save_json(arguments.out / "speed.json", {"machine": facts, "results": results})
                with atomic_write(arguments.out / "speed.md") as path:
                    path.write_text(markdown(results, facts))


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
