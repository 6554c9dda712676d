"""What several targets of one source gain in lockstep (`zeroshift.adapt_together`), compared with separate runs.

    python benchmarks/several_targets.py --out several           # miniature preset, 2, 4 and 8 targets: 6 minutes
    python benchmarks/several_targets.py --preset published --out several-published
    python benchmarks/several_targets.py --case 256 --preset published --targets 2 4 --steps 1 --rounds 1 \\
        --set prompts.batch_size=8 adapt.layer_batch_size=2 --out several-256   # StyleGAN2, ViT-B/32: 7 minutes

A separate run and runs in lockstep take turns. Reported are medians over the rounds, per target: seconds of a step of
each stage, seconds before the first step, and their sum for the steps of the preset. Seconds are processor time of one
thread on a CPU, and wall time on an accelerator. The first step of each stage warms up and is not timed.
"""

import dataclasses
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from records import save_json
from rich.console import Console
from rich.table import Column, Table
from speed import Arguments as SpeedArguments
from speed import Case, machine, make_context

from zeroshift import AdaptConfig, StepEvent, adapt, adapt_together, preset
from zeroshift.benchmark.variants import parse_changes
from zeroshift.cli.allocator import keep_freed_memory
from zeroshift.core.distributed import Distributed
from zeroshift.methods.configure import changed, flat

TARGETS = ("zombie", "robot", "pencil sketch", "alien", "clown", "elf", "cartoon", "mosaic")
STEPS = {"prompts": "prompts.steps", "adapt": "adapt.steps"}  # settings of the stages
START = "start"
Seconds = dict[str, float]  # of a step by stage, and before the first step


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    case: Case = "miniature"
    """The miniature models, or StyleGAN2 (config-f) at 256 or 1024 pixels with ViT-B/32, both with random weights."""
    preset: str = "miniature"
    method: str = "ipl"
    targets: tuple[int, ...] = (2, 4, 8)
    """Numbers of targets in lockstep."""
    steps: int = 8
    """Timed steps of each stage; a multiple of `adapt.layer_every`."""
    rounds: int = 3
    device: Literal["auto", "cpu"] = "auto"
    """auto: the accelerator if there is one."""
    threads: int = 1
    """CPU threads."""
    set: tuple[str, ...] = ()
    """Changed settings, such as num_latents=64."""
    out: Path | None = None
    """Folder for several_targets.json."""


class StageClock:
    """Seconds by stage, from the callbacks of one or several runs."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._read = time.process_time if device.type == "cpu" else time.perf_counter
        self._last = self._read()
        self.total: Seconds = {}

    def __call__(self, event: StepEvent) -> None:
        """Adds the time since the last call to the stage, or to the start before the first step; no first steps."""
        if self._device.type != "cpu":
            torch.get_device_module(self._device).synchronize()
        now = self._read()
        name = event.stage if event.step else START
        if event.step != 1:
            self.total[name] = self.total.get(name, 0.0) + now - self._last
        self._last = now


def measure(configs: list[AdaptConfig], models: Mapping[str, Any], device: torch.device, steps: int) -> Seconds:
    """Seconds per target of runs in lockstep, or of one run."""
    clock = StageClock(device)
    if len(configs) == 1:
        adapt(configs[0], callbacks=[clock], **models)
    else:
        for outcome in adapt_together(configs, callbacks=[clock], **models):
            if isinstance(outcome, Exception):
                raise outcome
    return {name: total / len(configs) / (1 if name == START else steps) for name, total in clock.total.items()}


def medians(rounds: list[Seconds], whole: dict[str, int]) -> Seconds:
    """Medians of several rounds, and the seconds of a whole adaptation."""
    seconds = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    return {**seconds, "whole": seconds[START] + sum(whole[name] * seconds[name] for name in whole)}


def show(console: Console, results: dict[int, Seconds]) -> None:
    """A table with a row per number of targets: seconds per target, and the gain over separate runs."""
    table = Table(Column("targets", no_wrap=True), *(Column(f"{name}, s", no_wrap=True) for name in results[1]))
    for count, seconds in results.items():
        gains = [results[1][name] / value for name, value in seconds.items()]
        cells = (f"{value:.3g} ({gain:.2f} x)" for value, gain in zip(seconds.values(), gains, strict=True))
        table.add_row(f"{count} together" if count > 1 else "separate", *cells)
    console.print(table)


def main(arguments: Arguments) -> dict[str, Any]:
    """Measures and prints the results, writes them if `out` is set, and returns them."""
    console = Console()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    device = Distributed(arguments.device).device
    clock = "processor" if device.type == "cpu" else "wall"
    facts = machine(arguments.threads, clock, arguments.device)
    console.print(facts)
    config = preset(
        arguments.preset, TARGETS[0], generator="miniature", method=arguments.method, device=arguments.device
    )
    config = changed(config, {"encoders": ("miniature",), "device": arguments.device, **parse_changes(arguments.set)})
    models: dict[str, Any] = {}
    if arguments.case != "miniature":
        context = make_context(arguments.case, SpeedArguments(device=arguments.device))
        models = {"generator": context.source, "encoders": context.encoders}
    whole = {stage: flat(config)[name] for stage, name in STEPS.items() if name in flat(config)}
    config = changed(config, {STEPS[stage]: arguments.steps + 1 for stage in whole})
    configs = [config.replace(target=target) for target in TARGETS]
    rounds: dict[int, list[Seconds]] = {1: [], **{count: [] for count in arguments.targets}}
    for number in range(arguments.rounds):
        for count, measured in rounds.items():
            measured.append(measure(configs[:count], models, device, arguments.steps))
            console.print(f"round {number + 1}, {count} targets: {measured[-1]}", highlight=False, soft_wrap=True)
    results = {count: medians(measured, whole) for count, measured in rounds.items()}
    show(console, results)
    found = {
        "machine": facts,
        "case": arguments.case,
        "preset": arguments.preset,
        "steps": whole,
        "seconds per target": results,
    }
    if arguments.out is not None:
        save_json(arguments.out / "several_targets.json", found)
    return found


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
