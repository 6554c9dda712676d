"""Time and memory of a run, estimated from trial steps before it starts."""

import copy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from zeroshift.methods.base import Stage

__all__ = ["Estimate", "ShowsEstimate", "estimate"]

_MIN_STEPS = 20  # shorter stages are not worth a trial
_SLOW = 2.0  # seconds; the first step also prepares kernels, so that a fast one is repeated


@dataclass(frozen=True)
class Estimate:
    """What a run needs.

    Attributes:
        seconds: time of all steps, without loading, previews and the report.
        bytes: peak memory so far: of the device on a GPU, else of the process; None: unknown.
        on_gpu: whether `bytes` is memory of a GPU.
    """

    seconds: float
    bytes: int | None
    on_gpu: bool


@runtime_checkable
class ShowsEstimate(Protocol):
    """Progress that shows an estimate before a run."""

    def starts(self, steps: Sequence[int], estimate: Estimate) -> None:
        """The run starts.

        Args:
            steps: number of steps of each stage.
        """


def estimate(stages: Sequence[Stage], device: torch.device, begin_step: Callable[[], object]) -> Estimate | None:
    """Trains one or two steps of each stage and restores its state; None if all stages are short.

    A step depends only on its number and the seed, so the run itself is not changed.

    Args:
        begin_step: called before every step.
    """
    if all(stage.steps < _MIN_STEPS for stage in stages):
        return None
    seconds = sum(_seconds(stage, device, begin_step) * stage.steps for stage in stages)
    return Estimate(seconds, _peak_memory(device), device.type == "cuda")


def _seconds(stage: Stage, device: torch.device, begin_step: Callable[[], object]) -> float:
    """Time of a step."""
    if stage.steps < _MIN_STEPS:
        return 0.0
    state = copy.deepcopy(stage.state_dict())
    took = _timed_step(stage, device, begin_step)
    if took < _SLOW:
        stage.load_state_dict(copy.deepcopy(state))
        took = _timed_step(stage, device, begin_step)
    stage.load_state_dict(state)
    return took


def _timed_step(stage: Stage, device: torch.device, begin_step: Callable[[], object]) -> float:
    began = time.perf_counter()
    begin_step()
    stage.step(0)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
