"""The training loop of all miniature models. An interrupted and resumed run equals an uninterrupted one bit for bit.

A recipe provides its state (models, optimizers, averages) and `update(step)`, which performs one step and draws all
its random numbers from (seed, step) with `step_stream`. The loop does the rest: checkpoints, log, progress bar, time
limit, and a clean stop on Ctrl-C or SIGTERM.

Recipes have a `precision` because the faster one depends on the processor. On an Intel Xeon with AVX512-bf16, bfloat16
reached two thirds of the speed of float32; on an AMD EPYC (Zen 4) it was 1.5 to 2 times faster than float32.
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

from zeroshift.core.interrupts import SIGNALS
from zeroshift.core.rng import stream
from zeroshift.errors import DamagedFileError, ZeroshiftError
from zeroshift.io.atomic import atomic_write, disk_errors
from zeroshift.io.checksums import load_state
from zeroshift.io.outputs import require_writable

__all__ = [
    "Precision", "Stateful", "arithmetic", "average", "cosine_rate", "float32_norms", "plateau_rate", "run_training",
    "set_rate", "step_stream",
]  # fmt: skip

Precision = Literal["float32", "bf16"]
CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


class Stateful(Protocol):
    """A model, optimizer or average whose state a checkpoint saves."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


def step_stream(seed: int, purpose: str, step: int) -> torch.Generator:
    """The random generator for one purpose at one step; it depends only on the arguments."""
    return stream(seed, purpose, step)


def arithmetic(precision: Precision) -> torch.autocast:
    """A context in which networks compute in `precision`; weights, losses and updates remain float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def float32_norms(network: torch.nn.Module) -> None:
    """Makes all group norms compute in float32; in bfloat16 they are four times slower on a CPU (channels_last)."""
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.register_forward_pre_hook(_in_float32)


def _in_float32(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(value.float() for value in inputs)


def average(model: torch.nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of parameters and buffers; call `update_parameters(model)` after each step."""

    @torch.no_grad()
    def blend(averages: Any, current: Any, _: torch.Tensor | int) -> None:  # two lists of tensors
        if averages[0].is_floating_point():  # lerp, PyTorch's default, turns the -inf of a causal mask into NaN
            torch._foreach_mul_(averages, decay)
            torch._foreach_add_(averages, current, alpha=1 - decay)
        else:
            torch._foreach_copy_(averages, current)

    return AveragedModel(model, multi_avg_fn=blend, use_buffers=True)


def cosine_rate(step: int, steps: int, peak: float, *, warmup: int = 100, final: float = 0.02) -> float:
    """Learning rate: linear warm-up to `peak`, then half a cosine down to `final * peak` at the last step."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


def plateau_rate(step: int, steps: int, *, decay: float) -> float:
    """Learning rate relative to its peak: 50 steps of warm-up, plateau, linear decay to zero.

    Only the decay, the final fraction `decay` of steps, depends on `steps`; a run can be extended before it begins.
    """
    return min(1.0, (step + 1) / 50, (steps - step) / (decay * steps))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
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
    """Calls `update(step)` for every step from the checkpoint in `folder` up to `steps`; returns the step reached.

    Args:
        folder: holds `checkpoint.pt` (parts, step, settings) and `log.jsonl`; created if missing.
        parts: the state that a checkpoint saves and a resumed run loads.
        update: does one step and returns values to log (numbers or 0-d tensors, read only when they are logged).
        settings: JSON-able values that must be the same when a run is resumed.
        minutes: stop with a checkpoint after this time; calling again resumes.
        evaluate: called every `evaluate_every` steps and at the end; its values are logged.

    Raises:
        ZeroshiftError: if the checkpoint is unreadable or has other settings, or if a value is not finite.
    """
    folder = Path(folder)
    require_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plain_settings = json.loads(json.dumps(settings))
    step = saved = _resume(folder, parts, plain_settings)
    start = time.monotonic()
    with _Log(folder, steps, step, console) as log, _stop_signals() as stopped:
        while step < steps and not stopped.is_set():
            values = update(step)
            step += 1
            log.advance(step)
            if step % log_every == 0 or step == steps:
                log.write(step, values)
            if evaluate and (step % evaluate_every == 0 or step == steps):
                log.write(step, evaluate(step))
            if step % save_every == 0:
                _save(folder, parts, plain_settings, step)
                saved = step
            if minutes is not None and time.monotonic() - start > 60 * minutes:
                break
        if saved != step:
            _save(folder, parts, plain_settings, step)
    return step


class _Log:
    """The log file and the progress bar of one call of `run_training`."""

    def __init__(self, folder: Path, steps: int, step: int, console: Console | None):
        self._folder, self._start = folder, time.monotonic()
        self._screen = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[values]}"), console=console or Console(stderr=True),
        )  # fmt: skip
        self._task = self._screen.add_task(folder.name, total=steps, completed=step, values="")

    def __enter__(self) -> "_Log":
        self._file = (self._folder / LOG).open("a", encoding="utf-8")
        self._screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._screen.stop()
        self._file.close()

    def advance(self, step: int) -> None:
        self._screen.update(self._task, completed=step)

    def write(self, step: int, values: Mapping[str, float | torch.Tensor]) -> None:
        """Appends one line of JSON.

        Raises:
            ZeroshiftError: if a value is not finite.
        """
        numbers = {name: float(torch.as_tensor(value).detach()) for name, value in values.items()}
        if not all(map(math.isfinite, numbers.values())):
            raise ZeroshiftError(
                f"Training in {self._folder} stopped at step {step}: a value is not finite ({numbers})."
            )
        seconds = round(time.monotonic() - self._start, 1)
        self._file.write(json.dumps({"step": step, "seconds": seconds, **numbers}) + "\n")
        self._file.flush()
        self._screen.update(self._task, values=" ".join(f"{name} {value:.3g}" for name, value in numbers.items()))


def _save(folder: Path, parts: Mapping[str, Stateful], settings: dict[str, Any], step: int) -> None:
    states = {name: part.state_dict() for name, part in parts.items()}
    with atomic_write(folder / CHECKPOINT) as temporary, open(temporary, "wb") as file:
        torch.save({"step": step, "settings": settings, "parts": states}, file)


def _resume(folder: Path, parts: Mapping[str, Stateful], settings: dict[str, Any]) -> int:
    """Loads the checkpoint, if any, truncates the log to it, and returns the number of steps done."""
    path = folder / CHECKPOINT
    step = 0
    if path.exists():
        try:
            checkpoint = load_state(path)
        except DamagedFileError as error:
            raise ZeroshiftError(f"{error} Delete it to start over.") from error
        if checkpoint.get("settings") != settings:
            raise ZeroshiftError(
                f"{folder} contains a training with other settings ({checkpoint.get('settings')!s:.200}, now "
                f"{settings}). Choose another folder or the same settings."
            )
        try:
            for name, part in parts.items():
                part.load_state_dict(checkpoint["parts"][name])
            step = int(checkpoint["step"])
        except Exception as error:  # torch's checks, of many types
            raise ZeroshiftError(f"{path} does not fit this training. Delete it to start over.") from error
    log = folder / LOG
    if log.exists():
        with disk_errors(log):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("}\n") and _step_of(line, log) <= step]
        with atomic_write(log) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
    return step


def _step_of(line: str, log: Path) -> int:
    """The step of a line of the log.

    Raises:
        ZeroshiftError: if no training has written it.
    """
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError) as error:
        raise ZeroshiftError(f"{log} is not the log of a training. Choose another folder.") from error


def _is_step(record: dict[str, Any]) -> bool:
    return isinstance(record.get("step"), int)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and SIGHUP set, so that the current step is finished and saved."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signal handlers
        yield stopped
        return
    numbers = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in numbers}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
