"""Runs an adaptation from its configuration: the stages of its method, then the generator; resumes, logs, previews."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zeroshift.clip.encoder import Encoder
from zeroshift.config.settings import AdaptConfig
from zeroshift.core.distributed import Distributed
from zeroshift.core.dtypes import tf32_products
from zeroshift.core.finite import first_not_finite, require_finite_weights
from zeroshift.errors import NotFiniteError, ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator, save_generator
from zeroshift.io.checksums import digest, load_tensors
from zeroshift.methods.base import Stage
from zeroshift.methods.configure import resolve
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.registry import METHODS
from zeroshift.training.adaptation import Adaptation
from zeroshift.training.callbacks import Callback, StepEvent
from zeroshift.training.estimate import ShowsEstimate, estimate
from zeroshift.training.preparation import Progress, make_context
from zeroshift.training.previews import Samples, save_preview, save_stage_preview
from zeroshift.training.result import AdaptResult, Record
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.step_interrupts import StopRequest, interrupts_at_step_ends

__all__ = ["AdaptResult", "Progress", "adapt"]


def adapt(
    config: AdaptConfig,
    run: RunFolder | str | Path | None = None,
    *,
    progress: Progress | None = None,
    callbacks: Sequence[Callback] = (),
    generator: Generator | None = None,
    encoders: Sequence[Encoder] | None = None,
) -> AdaptResult:
    """Adapts a generator to a new domain.

    Several processes (`torchrun`) share every batch and reach the result of one process. With a run folder, the run
    resumes from its last checkpoint; on one CPU, the result is bitwise identical to that of an uninterrupted run.

    Args:
        config: the settings.
        run: folder for checkpoints, metrics, previews and the adapted generator; None: nothing is written.
            `zeroshift.write_report` adds a report and a picture of pairs, as the command line does.
        progress: called after every step, for progress bars; if it has a method `starts`, also with an estimate of the
            time and memory before the first step.
        callbacks: functions that are called with a `StepEvent` after every step and once before the first one; they
            can draw images and stop the run. If one raises, the run can be resumed.
        generator, encoders: used instead of those that `config` names. A run folder keeps a copy of the generator.

    Raises:
        ZeroshiftError: if settings, files or the folder are invalid, another source generator started the run, or a
            loss, a weight or an image is not a finite number. The files of the last checkpoint are unchanged then.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint at the end of the step; on a second Ctrl-C at once.

    Examples:
        >>> def stop_early(event):
        ...     if event.stage == "adapt" and event.step == 1:
        ...         source, adapted = event.images(4)  # [4, 3, 64, 64] each
        ...         event.stop()
        >>> config = preset("miniature", target="zombie", steps=2, prompts={"steps": 2})
        >>> result = adapt(config, callbacks=[stop_early])
        >>> result.finished, [record["stage"] for record in result.history]
        (False, ['prompts', 'prompts', 'adapt'])
    """
    distributed = Distributed(config.device)
    if isinstance(run, str | Path):
        config = resolve(config)
        with _opened(Path(run), config, distributed) as opened:
            return adapt(config, opened, progress=progress, callbacks=callbacks, generator=generator, encoders=encoders)
    if run is not None and not isinstance(run, RunFolder):
        raise ZeroshiftError(f"The run is {run!r:.60}. Give the path of a folder, or a RunFolder.")
    if generator is not None:
        if run is not None and run.source_path.exists():
            _require_same_source(digest(load_tensors(run.source_path)[0]), digest(generator.state_dict()))
    elif run is not None and run.source_path.exists():
        generator = load_generator(run.source_path, distributed.device)
    context = make_context(resolve(config), distributed, generator, encoders, progress)
    config = context.config
    method = METHODS[config.method](context)
    adaptation = Adaptation(context, method)
    stages = [*method.stages(), adaptation]
    _check_names(stages)
    if config.compile:
        _compile(context, adaptation)
    written = run if distributed.leads else None
    folder = written.lock() if written is not None else contextlib.nullcontext()
    with folder, tf32_products(config.precision == "tf32"):
        source = "" if run is None else digest(context.source.state_dict())
        training = _Training(context, stages, written, progress, callbacks, source)
        training.resume(run)
        if isinstance(progress, ShowsEstimate) and training.stage == training.step == 0:
            found = estimate(stages, distributed.device)
            if found is not None and distributed.leads:
                progress.starts([stage.steps for stage in stages], found)
        if written is not None:
            adaptation.target_ema.require_delivery(written.path)
        if written is not None:
            written.write_config(_device_name(distributed.device))
            if generator is not None and not written.source_path.exists():
                save_generator(context.source, written.source_path)  # config.json cannot name it
        with interrupts_at_step_ends() as stop_if_requested:
            training.train(adaptation, stop_if_requested)
        finished = not training.stopped
        adapted = adaptation.target_ema.merged()
        require_finite_weights(adapted, "The adapted generator")
        if written is not None:
            written.close()  # before the generator, which marks the run as finished: a killed run must log again
        if written is not None and finished:
            metadata = {"source": config.source, "target": config.target, "method": config.method}
            metadata["steps"] = str(config.adapt.steps)
            adaptation.target_ema.deliver(written.path)
            method.save(written.path, adapted)
            save_generator(adapted, written.generator_path, metadata)
            if not config.keep_checkpoints:
                written.remove_checkpoints()
    distributed.wait()
    return AdaptResult(adapted, context.source, method, training.history if run is None else run.records(), finished)


@contextlib.contextmanager
def _opened(path: Path, config: AdaptConfig, distributed: Distributed) -> Iterator[RunFolder]:
    """The run in a folder, which is removed if the body fails before its first step.

    Only the leading process writes and removes it.
    """
    if not distributed.leads:
        yield RunFolder(path, config)
        return
    run = RunFolder.open(path, config)
    try:
        yield run
    except BaseException:
        run.discard_if_unused()
        raise


def _device_name(device: torch.device) -> str:
    """Type of a device, with its product name on an NVIDIA or AMD card."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def _require_same_source(before: str, now: str) -> None:
    """Raises ZeroshiftError if the digests of the weights of two source generators differ."""
    if before != now:
        raise ZeroshiftError(
            "This run was started from another source generator: its weights were different. Use the same generator to "
            "continue the run, or give another folder (--out)."
        )


def _check_names(stages: Sequence[Stage]) -> None:
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ZeroshiftError(
            f"Two stages of a run have the same name: {', '.join(names)}. Rename a stage of the method."
        )


def _compile(context: TrainingContext, adaptation: Adaptation, **options: Any) -> None:
    for module in (*context.source.children(), *adaptation.target.children()):
        module.compile(**options)
    for encoder in context.encoders:
        encoder.compile_towers(**options)


@dataclass
class _Training:
    """The state of a run and its training loop."""

    context: TrainingContext
    stages: Sequence[Stage]
    run: RunFolder | None  # None: nothing is written
    progress: Progress | None
    callbacks: Sequence[Callback] = ()
    source: str = ""  # digest of the source generator's weights
    history: list[Record] = field(default_factory=list)
    stage: int = 0  # index of the current stage
    step: int = 0  # its next step
    unlogged: list[Record] = field(default_factory=list)  # records of finished steps that are not in the folder yet
    stopped: bool = False  # by a callback
    preview_samples: Samples = field(init=False)
    callback_samples: Samples = field(init=False)  # separate, because callbacks may draw another number

    def __post_init__(self) -> None:
        self.preview_samples, self.callback_samples = (
            Samples(self.context.config, self.context.source) for _ in range(2)
        )

    def train(self, adaptation: Adaptation, stop_if_requested: StopRequest) -> None:
        """Trains the remaining steps, or until a callback stops the run."""
        config = self.context.config
        if self.stage == self.step == 0:
            self._preview()
            self._call_back(adaptation, {})
            if self._stops():
                return
        try:
            while self.stage < len(self.stages):
                stage = self.stages[self.stage]
                while self.step < stage.steps:
                    losses = self._one_step(stage)
                    last = self.step == stage.steps
                    preview = last or _due(self.step, config.preview_every)
                    checkpoint = last or _due(self.step, config.checkpoint_every)
                    if preview or checkpoint:
                        self._check_weights()
                    if preview and stage is adaptation:
                        self._preview(adaptation.target_ema)
                    elif preview and self.run is not None:
                        save_stage_preview(self.run, config, stage, step=self.step)
                    if checkpoint:
                        self._checkpoint()
                    stop_if_requested(self.context.distributed)
                    self._call_back(adaptation, losses)
                    if self._stops():
                        return
                if self.stage == len(self.stages) - 1:
                    return
                self.stage, self.step = self.stage + 1, 0
        except KeyboardInterrupt:
            if not stop_if_requested.within_step:
                self._check_weights()
                self._checkpoint()
            raise

    def resume(self, run: RunFolder | None) -> None:
        """Continues from the last checkpoint of the folder, if there is one; every process reads it."""
        names = [stage.name for stage in self.stages]
        state = None if run is None else run.load_checkpoint()
        if state is None:
            if self.run is not None and self.run.records():
                self.run.truncate_log(self.stages[0].name, 0, names)
            return
        _require_same_source(state.get("source", self.source), self.source)  # earlier versions do not state it
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
            save_preview(self.run, self.preview_samples, num, target, step=step)

    def _call_back(self, adaptation: Adaptation, losses: Mapping[str, float]) -> None:
        """Calls the callbacks. If one raises, a checkpoint is written first."""
        if not self.callbacks or not self.context.distributed.leads:
            return
        stage = self.stages[self.stage]
        event = StepEvent(
            stage.name, stage.title, self.step, stage.steps, losses, self.context.config, self.context.source,
            adaptation.target_ema, self.callback_samples, self._stop,
        )  # fmt: skip
        try:
            for callback in self.callbacks:
                callback(event)
        except BaseException:
            self._checkpoint()
            raise

    def _stop(self) -> None:
        self.stopped = True

    def _stops(self) -> bool:
        """Whether a callback has stopped the run; then a checkpoint is written, unless the run is at its end."""
        if not self.callbacks:
            return False
        self.stopped = self.context.distributed.any(self.stopped)
        at_end = self.stage == len(self.stages) - 1 and self.step == self.stages[self.stage].steps
        self.stopped = self.stopped and not at_end
        if self.stopped:
            self._check_weights()
            self._checkpoint()
        return self.stopped

    def _one_step(self, stage: Stage) -> dict[str, float]:
        """Trains one step; returns its losses."""
        began = time.perf_counter()
        values = stage.step(self.step)
        record = {"stage": stage.name, "step": self.step, **values, "seconds": time.perf_counter() - began}
        self.step += 1
        self.unlogged.append(record)
        self.history.append(record)
        self._log()
        losses = {name: value for name, value in values.items() if isinstance(value, float)}
        if self.progress is not None and self.context.distributed.leads:
            self.progress.update(stage.name, self.step, stage.steps, losses)
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
