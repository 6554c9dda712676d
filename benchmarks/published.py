"""zeroshift compared with the published IPL program, as its authors wrote it, on a CPU.

    git clone https://github.com/Picsart-AI-Research/IPL-Zero-Shot-Generative-Model-Adaptation ipl
    python benchmarks/published.py --checkout ipl --python PYTHON --out published

PYTHON is an interpreter that has the dependencies of that program: PyTorch, torchvision, ftfy, regex, tqdm and OpenAI's
clip. Nothing is downloaded: a StyleGAN2 checkpoint with random weights is written, which both programs read, and CLIP
models get random weights. benchmarks/published_program.py lists what it replaces in the program at run time.

Each program runs some steps of a stage in a process of its own; then the next program has its turn, for several rounds.
Measured is the processor time of the process with one thread, which other load hardly affects. The first step of each
process is a warm-up. The table has the medians of the rounds.
"""

import dataclasses
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from records import save_json
from rich.console import Console
from rich.table import Column, Table
from speed import machine, random_encoder

from zeroshift.benchmark.variants import parse_changes
from zeroshift.cli.allocator import keep_freed_memory
from zeroshift.clip.loading import load_encoder
from zeroshift.config.settings import AdaptConfig
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.io.atomic import atomic_write
from zeroshift.methods.configure import changed, preset
from zeroshift.miniature.networks.encoders import GUIDANCE_CONFIG
from zeroshift.miniature.training.generator import CHANNELS
from zeroshift.training.callbacks import StepEvent
from zeroshift.training.trainer import adapt

Case = Literal["miniature", "256", "512", "1024"]
Stage = Literal["prompts", "adapt"]
PUBLISHED, TUNED, OURS = "published", "published, tuned allocator", "zeroshift"
# glibc's counterparts of `keep_freed_memory`.
TUNED_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
SOURCE, TARGET = "photo", "zombie"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    checkout: Path
    """Folder of the published program."""
    python: Path = Path(sys.executable)
    """Interpreter that has its dependencies."""
    case: Case = "miniature"
    """StyleGAN2 (config-f) of this resolution with ViT-B/32, or channels and guidance encoder of the miniature."""
    stages: tuple[Stage, ...] = ("prompts", "adapt")
    steps: int = 4
    """Timed steps of a process, after the warm-up; a multiple of the variants' adapt.layer_every."""
    published_steps: int | None = None
    """Timed steps of the published program, whose steps all take the same time; None: `steps`."""
    rounds: int = 3
    """Turns of each program."""
    prompt_batch: int = 32
    """Images per step of the prompt stage. This and the next two are the published numbers."""
    batch: int = 2
    """Images per step of the adapt stage."""
    layer_batch: int = 8
    """Latents for the choice of layers."""
    variants: tuple[str, ...] = ()
    """Also run zeroshift's adapt stage with other settings, such as adapt.layer_every=4; several with a comma."""
    threads: int = 1
    """CPU threads."""
    out: Path | None = None
    """Folder for published.json and published.md."""


# -- the models -----------------------------------------------------------------------------------------------------


def resolution(case: Case) -> int:
    """Pixels of the generator's images."""
    return 64 if case == "miniature" else int(case)


def clip_arguments(config: Mapping[str, Any]) -> list[Any]:
    """The arguments of OpenAI's clip.model.CLIP for a model with a ResNet, described as for open_clip."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    return [
        config["embed_dim"], vision["image_size"], vision["layers"], vision["width"], None,
        *(text[name] for name in ("context_length", "vocab_size", "width", "heads", "layers")),
    ]  # fmt: skip


# -- the programs ---------------------------------------------------------------------------------------------------


def run_published(
    stage: Stage, arguments: Arguments, checkpoint: Path, environment: Mapping[str, str] | None = None
) -> list[float]:
    """Seconds of each step of the published program."""
    miniature, steps = arguments.case == "miniature", published_steps(arguments) + 1
    size = resolution(arguments.case)
    with tempfile.TemporaryDirectory() as folder:
        seconds, specification = Path(folder) / "seconds.json", Path(folder) / "specification.json"
        options = {
            "frozen_gen_ckpt": checkpoint.resolve(), "output_dir": Path(folder) / "output", "size": size,
            "auto_layer_k": num_layers(size), "auto_layer_batch": arguments.layer_batch, "ctx_init": "a photo of a",
            "source_class": SOURCE, "target_class": TARGET, "output_interval": steps + 1, "batch": arguments.batch,
            "batch_mapper": arguments.prompt_batch, "iter_mapper": steps if stage == "prompts" else 0, "iter": steps,
        }  # fmt: skip
        words = ["--run_stage1", *(["--run_stage2"] if stage == "adapt" else [])]
        words += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        description = {
            "checkout": str(arguments.checkout.resolve()), "arguments": words, "threads": arguments.threads,
            "encoders": {"ViT-B/32": clip_arguments(GUIDANCE_CONFIG)} if miniature else {},
            "channels": CHANNELS if miniature else None, "seconds": str(seconds), "size": size,
            "checkpoint": str(checkpoint.resolve()),
        }  # fmt: skip
        specification.write_text(json.dumps(description))
        program = Path(__file__).with_name("published_program.py")
        done = subprocess.run(
            [interpreter(arguments), program, specification],
            cwd=arguments.checkout,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
        )
        if done.returncode or not seconds.exists():
            last = "\n".join(done.stderr.strip().splitlines()[-8:])
            raise SystemExit(f"The published program ended with code {done.returncode}:\n{last}")
        measured: list[float] = json.loads(seconds.read_text())
        return measured


def published_steps(arguments: Arguments) -> int:
    """Timed steps of the published program in a process."""
    return arguments.steps if arguments.published_steps is None else arguments.published_steps


def interpreter(arguments: Arguments) -> str:
    """The absolute path of the interpreter that runs the published program."""
    found = shutil.which(arguments.python)
    if found is None:
        raise SystemExit(f"There is no interpreter {arguments.python}.")
    return os.path.abspath(found)  # of a virtual environment, whose python is a link that must not be followed


def num_layers(size: int) -> int:
    """The number of layers that the published program trains per step: two thirds of 2 log2(size) - 2."""
    return 2 * (2 * (size.bit_length() - 1) - 2) // 3


def run_ours(stage: Stage, arguments: Arguments, checkpoint: Path, variant: str) -> list[float]:
    """Seconds of each step of `zeroshift.adapt` with the published settings; runs in a process of its own."""
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as the command does
    seconds: list[float] = []
    began = time.process_time()

    def watch(event: StepEvent) -> None:
        nonlocal began
        now = time.process_time()
        if event.stage == stage and event.step:
            seconds.append(now - began)
        if event.stage == stage == "prompts" and event.step == event.steps:
            event.stop()
        began = time.process_time()

    config = our_config(stage, arguments, variant)
    torch.manual_seed(0)
    encoder = load_encoder("miniature") if arguments.case == "miniature" else random_encoder(miniature=False)
    adapt(config, generator=load_generator(checkpoint), encoders=[encoder], callbacks=[watch])
    return seconds


def our_config(stage: Stage, arguments: Arguments, variant: str) -> AdaptConfig:
    """The settings of the published program, changed as the variant says."""
    steps = arguments.steps + 1
    config = preset(
        "published",
        source=SOURCE,
        target=TARGET,
        device="cpu",
        prompts={"steps": steps if stage == "prompts" else 1, "batch_size": arguments.prompt_batch},
        adapt={"steps": steps, "batch_size": arguments.batch, "layer_batch_size": arguments.layer_batch},
    )
    return changed(config, parse_changes(variant.split(","))) if variant else config


def in_fresh_process(function: Callable[[], list[float]]) -> list[float]:
    """The result of a function that runs in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function).result()


# -- measuring ------------------------------------------------------------------------------------------------------


def programs(stage: Stage, arguments: Arguments, checkpoint: Path) -> dict[str, Callable[[], list[float]]]:
    """Functions that run a stage, by the name of the program."""
    published = functools.partial(run_published, stage, arguments, checkpoint)
    ours = functools.partial(run_ours, stage, arguments, checkpoint)
    found = {
        PUBLISHED: published,
        TUNED: functools.partial(published, TUNED_ENVIRONMENT),
        OURS: functools.partial(in_fresh_process, functools.partial(ours, "")),
    }
    for variant in arguments.variants if stage == "adapt" else ():
        found[f"{OURS}, {variant}"] = functools.partial(in_fresh_process, functools.partial(ours, variant))
    return found


def measure(stage: Stage, arguments: Arguments, checkpoint: Path) -> dict[str, list[float]]:
    """Mean seconds of a step, by program and round; the programs take turns."""
    turns = programs(stage, arguments, checkpoint)
    results: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(arguments.rounds):
        for name in reversed(turns) if number % 2 else turns:
            results[name].append(statistics.mean(turns[name]()[1:]))
            print(f"{stage}, round {number + 1}, {name}: {results[name][-1]:.3f} s", file=sys.stderr)
    return results


def rows(results: Mapping[str, Mapping[str, Sequence[float]]]) -> list[tuple[str, ...]]:
    """(what, seconds of each program, two ratios): the stages, and a run of 300 steps of each if both were measured."""
    steps = {name: {key: statistics.median(one) for key, one in each.items()} for name, each in results.items()}
    if len(steps) == 2:
        prompts = {**dict.fromkeys(steps["adapt"], steps["prompts"][OURS]), **steps["prompts"]}
        whole = {name: 300 * (prompts[name] + seconds) for name, seconds in steps["adapt"].items()}
        steps["300 + 300 steps"] = whole
    table = []
    for what, seconds in steps.items():
        for name in [name for name in seconds if name.startswith(OURS)]:
            ratios = [f"{seconds[other] / seconds[name]:.1f} x" for other in (PUBLISHED, TUNED)]
            label = f"{what}{name.removeprefix(OURS)}"
            table.append((label, *(duration(seconds[each]) for each in (PUBLISHED, TUNED, name)), *ratios))
    return table


def duration(seconds: float) -> str:
    """Three digits, or whole seconds."""
    return f"{seconds:.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


HEADINGS = ("processor time of a step", PUBLISHED, TUNED, OURS, "ratio", "with tuned allocator")


def markdown(table: Sequence[Sequence[str]], facts: Mapping[str, Any]) -> str:
    """The table, after the facts of the measurement."""
    lines = ["; ".join(f"{name}: {value}" for name, value in facts.items()), ""]
    lines += [f"| {' | '.join(HEADINGS)} |", f"| --- |{' ---: |' * (len(HEADINGS) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in table), ""])


def main(arguments: Arguments) -> None:
    """Measures, prints the table, and writes it if `out` is set."""
    if not (arguments.checkout / "train.py").is_file():
        raise SystemExit(f"{arguments.checkout} is not a checkout of the published program: it has no train.py.")
    interpreter(arguments)
    if min(arguments.steps, published_steps(arguments), arguments.rounds) < 1:
        raise SystemExit("--steps, --published-steps and --rounds must be at least 1.")
    for variant in arguments.variants:
        every = our_config("adapt", arguments, variant).adapt.layer_every
        if arguments.steps % every:
            raise SystemExit(f"--steps must be a multiple of {every}, so that {variant} is timed fairly.")
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # of the processes that are started
    numbers = {name: getattr(arguments, name) for name in ("case", "prompt_batch", "batch", "layer_batch", "rounds")}
    steps = {"steps per round": arguments.steps, "published steps": published_steps(arguments)}
    facts = {**numbers, **steps, **machine(arguments.threads, "processor", "cpu")}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "generator.pt"
        results = {stage: measure(stage, arguments, checkpoint) for stage in arguments.stages}
    shown = rows(results)
    table = Table(*(Column(heading, justify="right" if index else "left") for index, heading in enumerate(HEADINGS)))
    for row in shown:
        table.add_row(*row)
    console = Console()
    console.print(facts)
    console.print(table)
    if arguments.out is not None:
        save_json(arguments.out / "published.json", {"facts": facts, "results": results})
        with atomic_write(arguments.out / "published.md") as path:
            path.write_text(markdown(shown, facts))


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
