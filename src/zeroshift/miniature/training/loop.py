"""The loop that all models of the miniature world are trained in: resumable, and the same whether interrupted or not.

A recipe gives its stateful parts (models, optimisers, averages) and an `update(step)` that does one whole step, with
all its randomness drawn from (seed, step) as `step_stream` does. Everything else is here: checkpoints, log, screen,
time limit, and a clean stop on Ctrl-C or SIGTERM. Which arithmetic is faster is a matter of the processor: on an Intel
Xeon with AVX512-bf16, oneDNN's bfloat16 kernels reached two thirds of the speed of its float32 ones, on an AMD EPYC of
the Zen 4 family the recipes gain 1.5 to 2 times. So the recipes have a `precision`.
"""

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.optim.swa_utils import AveragedModel

from zeroshift.core.rng import stream
from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import atomic_write

__all__ = [
    "Precision", "Stateful", "arithmetic", "average", "cosine_rate", "float32_norms", "run_training", "set_rate",
    "step_stream",
]  # fmt: skip

Precision = Literal["float32", "bf16"]
CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


class Stateful(Protocol):
    """A model, optimiser or average: what a checkpoint holds."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


def step_stream(seed: int, purpose: str, step: int) -> torch.Generator:
    """The random generator of one purpose at one step; depends on nothing else, so a resumed run draws the same."""
    return stream(seed, purpose, step)


def arithmetic(precision: Precision) -> torch.autocast:
    """Within, networks work in `precision`; weights, losses and updates stay float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def float32_norms(network: torch.nn.Module) -> None:
    """Has all group norms see float32: PyTorch's bfloat16 ones are four times slower in channels_last on a CPU."""
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.register_forward_pre_hook(_in_float32)


def _in_float32(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(value.float() for value in inputs)


def average(model: torch.nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of parameters and buffers; call `.update_parameters(model)` after each step."""

    @torch.no_grad()
    def blend(averages: Any, current: Any, _: torch.Tensor | int) -> None:  # two lists of tensors
        if averages[0].is_floating_point():  # PyTorch's own average interpolates: -inf in a causal mask becomes NaN
            torch._foreach_mul_(averages, decay)
            torch._foreach_add_(averages, current, alpha=1 - decay)
        else:
            torch._foreach_copy_(averages, current)

    return AveragedModel(model, multi_avg_fn=blend, use_buffers=True)


def cosine_rate(step: int, steps: int, peak: float, *, warmup: int = 100, final: float = 0.02) -> float:
    """Learning rate: linear warm-up to `peak`, then a half cosine down to `final * peak` at the last step."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def run_training(
    folder: str | os.PathLike[str],
    parts: Mapping[str, Stateful],
    update: Callable[[int], Mapping[str, float | torch.Tensor]],
    *,
    steps: int,
    settings: Mapping[str, Any],
    minutes: float | None = None,
    save_every: int = 500,
    log_every: int = 25,
    evaluate: Callable[[int], Mapping[str, float]] | None = None,
    evaluate_every: int = 1000,
    console: Console | None = None,
) -> int:
    """Runs `update(step)` for every step up to `steps` that `folder` has not yet seen, and returns the step reached.

    Args:
        folder: holds `checkpoint.pt` (all parts, the step, the settings) and `log.jsonl`; made where missing.
        parts: what a checkpoint saves and a resumed run loads.
        update: does one step and returns values to log (numbers or 0-d tensors; read only when they are logged).
        settings: JSON-able values that a resumed run must share with the first one.
        minutes: stop, with a checkpoint, after so many minutes of this call; running again goes on.
        evaluate: called after every `evaluate_every` steps and at the end; its values are logged.

    Raises:
        ZeroshiftError: if the checkpoint cannot be read or was made with other settings, or a loss is not finite.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    frozen = json.loads(json.dumps(settings))
    step = _resume(folder, parts, frozen)
    began = time.monotonic()
    saved = step
    screen = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"), console=console or Console(stderr=True),
    )  # fmt: skip

    def save() -> None:
        states = {name: part.state_dict() for name, part in parts.items()}
        with atomic_write(folder / CHECKPOINT) as temporary:
            torch.save({"step": step, "settings": frozen, "parts": states}, temporary)

    with screen, _stop_signals() as stopped, (folder / LOG).open("a", encoding="utf-8") as log:
        task = screen.add_task(folder.name, total=steps, completed=step, values="")

        def write(values: Mapping[str, float | torch.Tensor]) -> None:
            numbers = {name: float(torch.as_tensor(value).detach()) for name, value in values.items()}
            if not all(map(math.isfinite, numbers.values())):
                raise ZeroshiftError(f"Training in {folder} stopped at step {step}: a value is not finite ({numbers}).")
            log.write(json.dumps({"step": step, "seconds": round(time.monotonic() - began, 1), **numbers}) + "\n")
            log.flush()
            screen.update(task, values=" ".join(f"{name} {value:.3g}" for name, value in numbers.items()))

        while step < steps and not stopped.is_set():
            values = update(step)
            step += 1
            screen.update(task, completed=step)
            if step % log_every == 0 or step == steps:
                write(values)
            if evaluate and (step % evaluate_every == 0 or step == steps):
                write(evaluate(step))
            if step % save_every == 0:
                save()
                saved = step
            if minutes is not None and time.monotonic() - began > 60 * minutes:
                break
        if saved != step:
            save()
    return step


def _resume(folder: Path, parts: Mapping[str, Stateful], settings: dict[str, Any]) -> int:
    """Loads the checkpoint where there is one, drops log lines past it, and returns the next step."""
    path = folder / CHECKPOINT
    step = 0
    if path.exists():
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ZeroshiftError(f"{path} cannot be read ({error}); move it away to start anew.") from error
        if checkpoint["settings"] != settings:
            raise ZeroshiftError(
                f"{folder} holds a training with other settings ({checkpoint['settings']}, now {settings}); "
                "choose another folder or the same settings."
            )
        for name, part in parts.items():
            part.load_state_dict(checkpoint["parts"][name])
        step = checkpoint["step"]
    log = folder / LOG
    if log.exists():
        lines = [line for line in log.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("}\n")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        with atomic_write(log) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
    return step


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets: the step in hand is finished and saved instead of lost."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers in the main thread only
        yield stopped
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in numbers}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
