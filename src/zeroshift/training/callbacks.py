"""Callbacks: functions that follow a run step by step, and may stop it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from zeroshift.config.settings import AdaptConfig
from zeroshift.generators.base import Generator
from zeroshift.training.previews import Samples

__all__ = ["Callback", "StepEvent"]


@dataclass(frozen=True)
class StepEvent:
    """A finished step of a run.

    Attributes:
        stage: name of the stage, such as "prompts"; the last one is "adapt".
        title: the stage in words.
        step: number of finished steps of this stage; 0 once, before the first step of a new run.
        steps: number of steps of this stage.
        losses: "loss" and its parts, by name; empty at step 0.
        config: the settings of the run.
        source: the source generator. Do not change it.
        generator: the adapted generator so far, a moving average. Do not change it; copy it to keep it.
    """

    stage: str
    title: str
    step: int
    steps: int
    losses: Mapping[str, float]
    config: AdaptConfig
    source: Generator
    generator: Generator
    _samples: Samples = field(repr=False)
    _stop: Callable[[], None] = field(repr=False)

    def images(self, num: int = 4) -> tuple[Tensor, Tensor]:
        """Samples 0 to num - 1 of the run's seed from both generators: source and adapted [num, 3, R, R].

        They are in [-1, 1], on the CPU. Those of the source are computed once per number.
        """
        return self._samples.source(num).clone(), self._samples.adapted(self.generator, num)

    def stop(self) -> None:
        """Ends the run after this step. In a run folder, the same call of `adapt` continues it."""
        self._stop()


Callback = Callable[[StepEvent], None]
"""Called by `adapt` after every step, in the leading process."""
