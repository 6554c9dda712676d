"""The training loop of a run, one step at a time: logs, previews, checkpoints, callbacks, resume."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from zeroshift.core.finite import first_not_finite
from zeroshift.errors import NotFiniteError, ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.methods.base import Stage
from zeroshift.methods.context import TrainingContext
from zeroshift.training.adaptation import Adaptation
from zeroshift.training.callbacks import Callback, StepEvent
from zeroshift.training.preparation import Progress
from zeroshift.training.previews import Samples, save_preview, save_stage_preview
from zeroshift.training.result import Record
from zeroshift.training.run_folder import RunFolder

__all__ = ["Position", "Training", "require_same_source"]

Position = tuple[int, int]  # of a run: number of later stages, minus the next step; the largest is furthest behind


@dataclass
class Training:
    """The state of a run.

    Attributes:
        context: what the stages share.
        stages: those of the method, then the adapt stage.
        adaptation: the adapt stage.
        run: the folder that is written; None: there is none, or another process writes it.
        source: digest of the source generator's weights.
        history: a record per step of this process.
        stage, step: number of the stage and of its next step.
        unlogged: records of finished steps that are not in the folder yet.
        stopped: whether a callback has stopped the run.
    """

    context: TrainingContext
    stages: Sequence[Stage]
    adaptation: Adaptation
    run: RunFolder | None
    progress: Progress | None
    callbacks: Sequence[Callback] = ()
    source: str = ""
    history: list[Record] = field(default_factory=list)
    stage: int = 0
    step: int = 0
    unlogged: list[Record] = field(default_factory=list)
    stopped: bool = False

    def __post_init__(self) -> None:
        # Two, because callbacks may draw another number of samples.
        self._preview_samples, self._callback_samples = (
            Samples(self.context.config, self.context.source) for _ in range(2)
        )

    @property
    def done(self) -> bool:
        """Whether all steps are done, or a callback has stopped the run."""
        return self.stopped or self._at_end

    @property
    def position(self) -> Position:
        """How far the run is, to compare it with others."""
        return len(self.stages) - 1 - self.stage, -self.step

    @property
    def _at_end(self) -> bool:
        return self.stage == len(self.stages) - 1 and self.step == self.stages[-1].steps

    def begin(self) -> None:
        """Shows a new run to the folder and the callbacks before its first step."""
        if self.stage == self.step == 0:
            self._preview()
            self._call_back({})
            self._stop_if_wanted()
        self._pass_finished_stages()

    def advance(self) -> None:
        """Trains one step, and does all that is due after it."""
        config, stage = self.context.config, self.stages[self.stage]
        losses = self._one_step(stage)
        last = self.step == stage.steps
        preview = last or _due(self.step, config.preview_every)
        checkpoint = last or _due(self.step, config.checkpoint_every)
        if preview or checkpoint:
            self._check_weights()
        if preview and stage is self.adaptation:
            self._preview(self.adaptation.target_ema)
        elif preview and self.run is not None:
            save_stage_preview(self.run, config, stage, step=self.step)
        if checkpoint:
            self._checkpoint()
        self._call_back(losses)
        self._stop_if_wanted()
        self._pass_finished_stages()

    def save(self) -> None:
        """Writes a checkpoint, from which the run resumes.

        Raises:
            NotFiniteError: if the last update made weights that are not finite numbers.
        """
        self._check_weights()
        self._checkpoint()

    def _pass_finished_stages(self) -> None:
        while not self.done and self.step == self.stages[self.stage].steps:
            self.stage, self.step = self.stage + 1, 0

    def resume(self, run: RunFolder | None) -> None:
        """Continues from the last checkpoint of the folder, if there is one; every process reads it."""
        names = [stage.name for stage in self.stages]
        state = None if run is None else run.load_checkpoint()
        if state is None:
            if self.run is not None and self.run.records():
                self.run.truncate_log(self.stages[0].name, 0, names)
            return
        require_same_source(state.get("source", self.source), self.source)  # earlier versions do not state it
        try:
            self.stage, self.step = names.index(state["stage"]), state["step"]
            for stage in self.stages[: self.stage + 1]:
                stage.load_state_dict(state["states"][stage.name])
        except (KeyError, ValueError, RuntimeError, TypeError, AttributeError, IndexError) as error:
            raise ZeroshiftError(
                "The checkpoint of this run does not fit its settings or generator. "
                "Start again in another folder (--out)."
            ) from error
        if self.run is not None:
            self.run.truncate_log(state["stage"], self.step - len(state["unlogged"]), names)
            self.unlogged = state["unlogged"]
            self._log()

    def _preview(self, target: Generator | None = None) -> None:
        """Saves samples of source and target; before the first step the target is a copy of the source."""
        if self.run is not None:
            num, step = self.context.config.preview_samples, self.step if target else 0
            save_preview(self.run, self._preview_samples, num, target, step=step)

    def _call_back(self, losses: Mapping[str, float]) -> None:
        """Calls the callbacks. If one raises, a checkpoint is written first."""
        if not self.callbacks or not self.context.distributed.leads:
            return
        stage = self.stages[self.stage]
        event = StepEvent(
            stage.name, stage.title, self.step, stage.steps, losses, self.context.config, self.context.source,
            self.adaptation.target_ema, self._callback_samples, self._stop,
        )  # fmt: skip
        try:
            for callback in self.callbacks:
                callback(event)
        except BaseException:
            self._checkpoint()
            raise

    def _stop(self) -> None:
        self.stopped = True

    def _stop_if_wanted(self) -> None:
        """Ends the run here with a checkpoint if a callback wants it, in all processes; not after its last step."""
        if not self.callbacks:
            return
        self.stopped = self.context.distributed.any(self.stopped) and not self._at_end
        if self.stopped:
            self.save()

    def _one_step(self, stage: Stage) -> dict[str, float]:
        """Trains one step; returns its losses."""
        began = time.perf_counter()
        values = stage.step(self.step)
        record = {"stage": stage.name, "step": self.step, **values}
        if self.context.shared_images is None:  # else the first of several runs computes what all share
            record["seconds"] = time.perf_counter() - began
        self.step += 1
        self.unlogged.append(record)
        self.history.append(record)
        self._log()
        losses = {name: value for name, value in values.items() if isinstance(value, float)}
        if self.progress is not None and self.context.distributed.leads:
            try:
                self.progress.update(stage.name, self.step, stage.steps, losses)
            except KeyboardInterrupt:
                self.save()
                raise
        return losses

    def _log(self) -> None:
        while self.unlogged:
            if self.run is not None:
                self.run.log(**self.unlogged[0])
            self.unlogged.pop(0)

    def _check_weights(self) -> None:
        """Checks the results of the last update, before they are drawn or saved.

        Raises:
            NotFiniteError: if a tensor holds values that are not finite numbers.
        """
        stage = self.stages[self.stage]
        tensor = first_not_finite(stage.state_dict())
        if tensor is not None:
            raise NotFiniteError(
                f"The update of step {self.step} of stage '{stage.name}' made weights that are not finite numbers "
                f"({tensor}). They were not saved; start again in another folder (--out) with a lower learning rate."
            )

    def _checkpoint(self) -> None:
        if self.run is None:
            return
        states = {stage.name: stage.state_dict() for stage in self.stages[: self.stage + 1]}
        name = self.stages[self.stage].name
        self.run.save_checkpoint(
            {"stage": name, "step": self.step, "states": states, "unlogged": self.unlogged, "source": self.source}
        )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def require_same_source(before: str, now: str) -> None:
    """Raises ZeroshiftError if the digests of the weights of two source generators differ."""
    if before != now:
        raise ZeroshiftError(
            "This run was started from another source generator: its weights were different. Use the same generator to "
            "continue the run, or give another folder (--out)."
        )
