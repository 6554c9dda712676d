"""Times the parts of a step without changing the timed code."""

import functools
import time
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["REST", "WHOLE", "Clock"]

REST = "losses, backward, optimizer"  # everything outside the watched calls
WHOLE = "whole step"


class Clock:
    """Seconds of a step, and of the watched calls within it; of nested calls the outermost counts.

    Args:
        device: accelerators are synchronized before each reading.
        kind: "wall", or "processor" for the processor time of this process.
    """

    def __init__(self, device: torch.device, kind: str):
        self._device, self._inside = device, True
        self._read = {"wall": time.perf_counter, "processor": time.process_time}[kind]
        self._step: dict[str, float] = {}

    def watch(self, owner: Any, method: str, part: str) -> None:
        """Counts all further calls of `owner.method` as `part` of the steps."""
        original = getattr(owner, method)
        self._step[part] = 0.0

        @functools.wraps(original)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return original(*args, **kwargs)
            self._inside, start = True, self._now()
            try:
                return original(*args, **kwargs)
            finally:
                self._step[part] += self._now() - start
                self._inside = False

        setattr(owner, method, watched)

    def time(self, step: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
        """The result of a step, and its seconds by part with the whole step last."""
        self._step = dict.fromkeys(self._step, 0.0)
        self._inside, start = False, self._now()
        result = step()
        total = self._now() - start
        self._inside = True
        return result, {**self._step, REST: total - sum(self._step.values()), WHOLE: total}

    def _now(self) -> float:
        if self._device.type != "cpu":
            torch.get_device_module(self._device).synchronize()
        return self._read()
