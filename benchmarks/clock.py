"""Times steps by part, without a line of timing code in what is timed."""

import functools
import time
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["REST", "WHOLE", "Clock"]

REST = "losses, backward, optimiser"  # what no watched call accounts for
WHOLE = "whole step"


class Clock:
    """Seconds of a step, and of the watched calls within it; of nested ones the outermost counts."""

    def __init__(self, device: torch.device, kind: str):
        self._device, self._inside = device, True
        self._read = {"wall": time.perf_counter, "processor": time.process_time}[kind]
        self._step: dict[str, float] = {}

    def watch(self, owner: Any, method: str, part: str) -> None:
        """From now on the calls of a method of an object are a part of the steps that this clock times."""
        inner = getattr(owner, method)
        self._step[part] = 0.0

        @functools.wraps(inner)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return inner(*args, **kwargs)
            self._inside, began = True, self._now()
            try:
                return inner(*args, **kwargs)
            finally:
                self._step[part] += self._now() - began
                self._inside = False

        setattr(owner, method, watched)

    def time(self, step: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
        """The result of a step and its seconds by part, those of the whole step last."""
        self._step = dict.fromkeys(self._step, 0.0)
        self._inside, began = False, self._now()
        result = step()
        total = self._now() - began
        self._inside = True
        return result, {**self._step, REST: total - sum(self._step.values()), WHOLE: total}

    def _now(self) -> float:
        if self._device.type != "cpu":
            torch.get_device_module(self._device).synchronize()
        return self._read()
