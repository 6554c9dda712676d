"""Speed and memory of the adapt stage on one device, and of the parts that a choice of ours changes.

    python benchmarks/device.py --out device             # on a GPU: below 8 minutes
    python benchmarks/device.py --tiny                   # on a CPU: checks that everything runs

Models have random weights: nothing is downloaded. Printed are

- ceilings: matrix products of the device in float32, TF32 and bf16,
- steps: the adapt stage of IPL with published batches and one setting changed at a time: seconds, peak memory, FLOPs,
  share of the ceiling of its precision, waits of the host for the device,
- the prompt stage,
- parts: noise inputs drawn by the CPU and by the device, Adam fused and not, convolutions with one kernel per sample
  (grouped) and with a shared one, each in both memory formats.

Sections that would start after `budget` seconds are left out, and named.
"""

import copy
import dataclasses
import gc
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
import tyro
from naive import modulated_conv
from operations import FlopCounter
from records import save_json
from rich.console import Console
from rich.table import Column, Table
from speed import Arguments as SpeedArguments
from speed import Case, machine, make_context, near
from torch import Tensor

from zeroshift.core.dtypes import tf32_products
from zeroshift.core.philox import philox_normal
from zeroshift.core.rng import normal
from zeroshift.methods.configure import changed, resolve
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.ipl import IPL
from zeroshift.training.adaptation import Adaptation
from zeroshift.training.compilation import begin_step, compile_networks

Row = dict[str, Any]
VARIANTS: dict[str, dict[str, Any]] = {
    "published choice": {},
    "choice by the training batch": {"adapt.layer_codes": "batch"},
    "choice at every 4th step": {"adapt.layer_every": 4},
    "choice by 2 latents": {"adapt.layer_batch_size": 2},
    "choice in bf16": {"adapt.layer_precision": "bf16"},
    "all layers": {"adapt.layers": ("all",)},
    "TF32": {"precision": "tf32"},
    "bf16": {"precision": "bf16"},
    "gradient checkpointing": {"adapt.gradient_checkpointing": True},
    "choice by the batch, compiled": {"adapt.layer_codes": "batch", "compile": True},
    "choice by the batch, CUDA graphs": {
        "adapt.layer_codes": "batch",
        "compile": True,
        "compile_mode": "reduce-overhead",
    },
}
CYCLE = 4  # steps after which every variant repeats itself


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    case: Case = "1024"
    """The 64-pixel miniature models, or StyleGAN2 (config-f) at 256 or 1024 pixels with ViT-B/32."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    device: Literal["auto", "cpu"] = "auto"
    """auto: the accelerator if there is one."""
    threads: int = torch.get_num_threads()
    """CPU threads."""
    cycles: int = 2
    """Timed groups of four steps, after one that warms up."""
    budget: float = 450.0
    """Seconds after which no further section starts."""
    tiny: bool = False
    """Miniature models, smallest batches and sizes; nothing is compiled."""
    out: Path | None = None
    """Folder for device.json."""


class Session:
    """The device of a measurement, its clock and its results."""

    def __init__(self, arguments: Arguments, device: torch.device, console: Console):
        self.arguments, self.device, self.console = arguments, device, console
        self.started = time.perf_counter()
        self.read = time.process_time if device.type == "cpu" else time.perf_counter
        self.results: dict[str, list[Row]] = {}
        self.left_out: list[str] = []

    def seconds(self, function: Callable[[], Any], repeats: int = 3) -> float:
        """Median seconds of a call, after one that warms up: of processor time on a CPU."""
        times = []
        for _ in range(repeats + 1):
            self.wait()
            start = self.read()
            function()
            self.wait()
            times.append(self.read() - start)
        return statistics.median(times[1:])

    def wait(self) -> None:
        """Waits until the device has finished."""
        if self.device.type != "cpu":
            torch.get_device_module(self.device).synchronize()

    def run(self, section: str, rows: Iterator[Row]) -> None:
        """Computes and shows the rows of a section, as long as the budget allows."""
        found = self.results.setdefault(section, [])
        while time.perf_counter() - self.started < self.arguments.budget:
            row = next(rows, None)
            if row is None:
                break
            found.append(row)
        else:
            self.left_out.append(section if not found else f"{section} after {found[-1]['what']!r}")
        if found:
            self.console.print(table(section, found))


def table(section: str, rows: Sequence[Row]) -> Table:
    """The rows of a section."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = Table(*(Column(name, no_wrap=name == "what") for name in names), title=section)
    for row in rows:
        shown.add_row(
            *(f"{value:.4g}" if isinstance(value := row.get(name, ""), float) else str(value) for name in names)
        )
    return shown


# -- ceilings -------------------------------------------------------------------------------------------------------


def ceilings(session: Session) -> Iterator[Row]:
    """TFLOP/s of square matrix products."""
    size = 256 if session.arguments.tiny else 8192 if session.device.type != "cpu" else 2048
    for name, dtype, tf32 in (
        ("float32", torch.float32, False), ("TF32", torch.float32, True), ("bf16", torch.bfloat16, False)
    ):  # fmt: skip
        if tf32 and session.device.type != "cuda":
            continue
        left, right = (torch.randn(size, size, device=session.device, dtype=dtype) for _ in range(2))
        with tf32_products(tf32):
            seconds = session.seconds(lambda left=left, right=right: left @ right)
        yield {"what": name, "seconds": seconds, "TFLOP/s": 2 * size**3 / seconds / 1e12}


# -- steps ----------------------------------------------------------------------------------------------------------


def speed_arguments(arguments: Arguments) -> SpeedArguments:
    """The arguments of `speed.make_context`."""
    if arguments.tiny:
        return SpeedArguments(device=arguments.device, prompt_batch=2, batch=1, layer_batch=2)
    return SpeedArguments(device=arguments.device)


def adaptation(context: TrainingContext, settings: Mapping[str, Any]) -> Callable[[int], object]:
    """A step of IPL's adapt stage with some settings, from a start at which image directions are well defined."""
    config = resolve(changed(context.config, settings))
    context = dataclasses.replace(context, config=config)
    stage = Adaptation(context, IPL(context))
    stage.target.load_state_dict(near(context.source).state_dict())
    if config.compile:
        compile_networks(stage.target, mode=config.compile_mode)

    def train(step: int) -> None:
        begin_step(config)
        stage.step(step)

    return train


def steps(session: Session, context: TrainingContext) -> Iterator[Row]:
    """The adapt stage, one row per variant."""
    ceiling = {row["what"]: row["TFLOP/s"] for row in session.results.get("ceilings", [])}
    for name in session.arguments.variants:
        settings = VARIANTS[name]
        if settings.get("compile") and session.arguments.tiny:
            continue
        precision = {"tf32": "TF32", "bf16": "bf16"}.get(settings.get("precision"), "float32")
        with tf32_products(precision == "TF32"):
            train = adaptation(context, settings)
            yield {"what": name, **step_row(session, train, ceiling.get(precision), bool(settings.get("compile")))}
        del train
        gc.collect()


def step_row(session: Session, train: Callable[[int], object], ceiling: float | None, compiled: bool) -> Row:
    """Cost of the steps of an adapt stage.

    Args:
        train: trains a step.
        ceiling: TFLOP/s of matrix products; None: not measured.
        compiled: whether networks are compiled: FLOPs cannot be counted then.
    """
    cycles = 1 if session.arguments.tiny else session.arguments.cycles

    def cycle() -> None:
        for step in range(CYCLE):
            train(step)

    first = time.perf_counter()
    cycle()
    session.wait()
    first = time.perf_counter() - first
    reset_peak(session.device)
    seconds = session.seconds(cycle, cycles) / CYCLE
    row: Row = {"seconds": seconds, "first steps, s": first, "peak GiB": peak(session.device)}
    if not compiled:
        with FlopCounter() as counter:
            cycle()
        row["TFLOP"] = counter.total / CYCLE / 1e12
        row["share of the ceiling"] = row["TFLOP"] / seconds / ceiling if ceiling else ""
    row["waits"] = waits(session.device, lambda: train(0))
    return row


def prompt_steps(session: Session, context: TrainingContext) -> Iterator[Row]:
    """The prompt stage."""
    (stage,) = IPL(context).stages()
    reset_peak(session.device)
    seconds = session.seconds(lambda: stage.step(0), 1 if session.arguments.tiny else 3)
    yield {"what": "prompt step", "seconds": seconds, "peak GiB": peak(session.device)}


def reset_peak(device: torch.device) -> None:
    """Starts the measurement of peak memory; a CPU has none."""
    if device.type != "cpu":
        torch.get_device_module(device).reset_peak_memory_stats()


def peak(device: torch.device) -> float | str:
    """Peak memory of tensors in GiB since `reset_peak`."""
    if device.type == "cpu":
        return ""
    return float(torch.get_device_module(device).max_memory_allocated()) / 2**30


def waits(device: torch.device, function: Callable[[], Any]) -> int | str:
    """How often the host waits for a CUDA device."""
    if device.type != "cuda":
        return ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        function()
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(one.message) for one in caught)


# -- parts ----------------------------------------------------------------------------------------------------------


def noise_inputs(session: Session, context: TrainingContext) -> Iterator[Row]:
    """The noise inputs of a batch of two."""
    count = sum(conv.noise_const.numel() for conv in context.source.get_submodule("synthesis").convs())
    device = session.device
    draws: dict[str, Callable[[], Tensor]] = {
        "noise, drawn by the CPU and copied": lambda: normal((count,), 1, "noise", samples=range(2)).to(device),
        "noise, drawn by the device": lambda: philox_normal((count,), (1, 2), range(2), device),
    }
    for name, function in draws.items():
        yield {"what": name, "ms": 1e3 * session.seconds(function)}


def optimizers(session: Session, context: TrainingContext) -> Iterator[Row]:
    """Adam on all weights of the generator."""
    for fused in (False, True):
        generator = copy.deepcopy(context.source).requires_grad_(True)
        for parameter in generator.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer = torch.optim.Adam(generator.parameters(), betas=(0.0, 0.99), fused=fused)
        yield {"what": "Adam, fused" if fused else "Adam", "ms": 1e3 * session.seconds(optimizer.step)}


def convolutions(session: Session) -> Iterator[Row]:
    """A modulated convolution of two images, forward and backward."""
    channels, size = (4, 8) if session.arguments.tiny else (128, 256)
    torch.manual_seed(0)
    weight = torch.randn(channels, channels, 3, 3, device=session.device, requires_grad=True)
    style = (1 + 0.1 * torch.randn(2, channels, device=session.device)).requires_grad_()

    def shared(x: Tensor) -> Tensor:
        demodulation = (style.square() @ weight.square().sum(dim=(2, 3)).t() + 1e-8).rsqrt()
        return F.conv2d(x * style[:, :, None, None], weight, padding=1) * demodulation[:, :, None, None]

    def grouped(x: Tensor) -> Tensor:
        return modulated_conv(x, weight, style, demodulate=True, up=None)

    for layout in (torch.contiguous_format, torch.channels_last):
        images = torch.randn(2, channels, size, size, device=session.device).contiguous(memory_format=layout)
        images.requires_grad_()
        torch.testing.assert_close(shared(images), grouped(images), atol=2e-2, rtol=2e-2)
        for name, function in (("shared kernel", shared), ("one kernel per sample", grouped)):
            what = f"convolution, {name}, {str(layout).removeprefix('torch.')}"
            seconds = session.seconds(lambda images=images, function=function: function(images).sum().backward())
            yield {"what": what, "ms": 1e3 * seconds}


def main(arguments: Arguments) -> dict[str, Any]:
    """Measures and prints the results, writes them if `out` is set, and returns them."""
    console = Console()
    torch.set_num_threads(arguments.threads)
    if unknown := set(arguments.variants) - set(VARIANTS):
        raise SystemExit(f"Unknown variants {sorted(unknown)}. There are: {', '.join(VARIANTS)}.")
    facts = machine(arguments.threads, "wall", arguments.device)
    console.print(facts)
    context = make_context("miniature" if arguments.tiny else arguments.case, speed_arguments(arguments))
    session = Session(arguments, context.distributed.device, console)
    session.run("ceilings", ceilings(session))
    session.run("parts: noise inputs", noise_inputs(session, context))
    session.run("parts: optimizer", optimizers(session, context))
    session.run("parts: convolutions", convolutions(session))
    session.run("prompt stage", prompt_steps(session, context))
    session.run("adapt stage", steps(session, context))
    if session.left_out:
        console.print(f"Left out after {arguments.budget:g} s: {', '.join(session.left_out)}.")
    results = {"machine": facts, "case": arguments.case, **session.results, "left out": session.left_out}
    if arguments.out is not None:
        save_json(arguments.out / "device.json", results)
    return results


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
