"""A run that its caller advances step by step, and the loop that advances several runs in turns."""

import contextlib
import functools
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import torch

from zeroshift.config.settings import AdaptConfig
from zeroshift.core.distributed import Distributed
from zeroshift.core.dtypes import tf32_products
from zeroshift.core.finite import require_finite_weights
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import save_generator
from zeroshift.io.checksums import digest
from zeroshift.methods.base import Method, Stage
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.registry import METHODS
from zeroshift.training.adaptation import Adaptation
from zeroshift.training.callbacks import Callback
from zeroshift.training.compilation import begin_step, compile_networks
from zeroshift.training.estimate import ShowsEstimate, estimate
from zeroshift.training.loop import Position, Training
from zeroshift.training.preparation import Progress
from zeroshift.training.result import AdaptResult
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.step_interrupts import interrupts_at_step_ends

__all__ = ["Steps", "advance_in_turns", "stepwise"]

Steps = Generator[Position | None, None, AdaptResult]
"""A run: gives its position before each step, and None when only the delivery is left; returns the result."""


def stepwise(
    config: AdaptConfig,
    run: RunFolder | str | Path | None,
    distributed: Distributed,
    make: Callable[[AdaptConfig, RunFolder | None], TrainingContext],
    progress: Progress | None,
    callbacks: Sequence[Callback],
    keep_source: bool,
) -> Steps:
    """A run that trains one step whenever it is advanced. The first advance prepares it, the last one delivers.

    A KeyboardInterrupt that is thrown into it writes a checkpoint.

    Args:
        config: resolved settings.
        run, progress, callbacks: see `zeroshift.training.trainer.adapt`.
        make: makes the training context of a configuration and its folder.
        keep_source: whether the folder keeps a copy of the source generator, which config.json cannot name.

    Raises:
        ZeroshiftError: see `zeroshift.training.trainer.adapt`.
    """
    tf32 = functools.partial(tf32_products, config.precision == "tf32")
    with _opened(run, config, distributed) as opened:
        context = make(config, opened)
        config = context.config
        method, adaptation, stages = _stages(context)
        written = opened if distributed.leads else None
        with contextlib.nullcontext() if written is None else written.lock():
            source = "" if opened is None else digest(context.source.state_dict())
            training = Training(context, stages, adaptation, written, progress, callbacks, source)
            with tf32():
                training.resume(opened)
                _show_estimate(training)
                if written is not None:
                    adaptation.target_ema.require_delivery(written.path)
                    written.write_config(_device_name(distributed.device))
                    if keep_source and not written.source_path.exists():
                        save_generator(context.source, written.source_path)
                training.begin()
            while True:
                try:
                    yield None if training.done else training.position
                except KeyboardInterrupt:
                    training.save()
                    raise
                if training.done:
                    break
                with tf32():
                    training.advance()
            with tf32():
                result = _deliver(training, method, opened)
    distributed.wait()
    return result


def advance_in_turns(
    runs: Sequence[Steps], distributed: Distributed, begin_round: Callable[[], None]
) -> list[AdaptResult | Exception]:
    """Advances runs to their ends, those that are furthest behind first: runs at the same step take turns.

    Args:
        begin_round: called before the runs that are furthest behind advance by one step.

    Returns:
        The result of each run, or its error, which does not affect the others.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after checkpoints of all runs at the end of the step; on a second one at once.
    """
    with contextlib.ExitStack() as stack:
        members = [_Member(stack.enter_context(contextlib.closing(run)), alone=len(runs) == 1) for run in runs]
        for member in members:
            member.advance()
        with interrupts_at_step_ends() as stop_if_requested:
            while positions := [member.position for member in members if member.position is not None]:
                begin_round()
                for member in [member for member in members if member.position == max(positions)]:
                    member.advance()
                    try:
                        stop_if_requested(distributed)
                    except KeyboardInterrupt:
                        for each in members:
                            each.interrupt()
                        if any(each.outcome is None for each in members):  # else all have failed
                            raise
                        break
        for member in members:
            member.advance()
        return [member.outcome for member in members if member.outcome is not None]


class _Member:
    """One of the runs that take turns.

    Attributes:
        position: before its next step; None: it has no further step.
        outcome: its result or error; None before its end.
    """

    def __init__(self, steps: Steps, *, alone: bool) -> None:
        self._steps, self._alone = steps, alone
        self.position: Position | None = None
        self.outcome: AdaptResult | Exception | None = None

    def advance(self) -> None:
        """Trains one step, or delivers the result; nothing after the end."""
        if self.outcome is not None:
            return
        try:
            self.position = next(self._steps)
        except StopIteration as end:
            self.outcome = end.value
        except Exception as error:
            self._fail(error)

    def interrupt(self) -> None:
        """Ends the run with a checkpoint."""
        if self.outcome is not None:
            return
        try:
            self._steps.throw(KeyboardInterrupt())
        except KeyboardInterrupt:
            self.position = None
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.outcome, self.position = error, None
        if not self._alone:
            traceback.clear_frames(error.__traceback__)  # frees the memory of this run for the others


def _stages(context: TrainingContext) -> tuple[Method, Adaptation, list[Stage]]:
    """The method of a run, its adapt stage, and all stages in order."""
    method = METHODS[context.config.method](context)
    adaptation = Adaptation(context, method)
    stages = [*method.stages(), adaptation]
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ZeroshiftError(
            f"Two stages of a run have the same name: {', '.join(names)}. Rename a stage of the method."
        )
    if context.config.compile:
        compile_networks(adaptation.target, mode=context.config.compile_mode)
    return method, adaptation, stages


def _show_estimate(training: Training) -> None:
    """Estimates time and memory of a new run, if its progress shows them."""
    progress, distributed = training.progress, training.context.distributed
    if isinstance(progress, ShowsEstimate) and training.stage == training.step == 0:
        begin = functools.partial(begin_step, training.context.config)
        found = estimate(training.stages, distributed.device, begin)
        if found is not None and distributed.leads:
            progress.starts([stage.steps for stage in training.stages], found)


def _deliver(training: Training, method: Method, opened: RunFolder | None) -> AdaptResult:
    """The result of a run whose steps are done or stopped; writes the adapted generator if they are done.

    Raises:
        NotFiniteError: if the adapted generator has weights that are not finite numbers.
    """
    context, run, target = training.context, training.run, training.adaptation.target_ema
    config = context.config
    adapted = target.merged()
    require_finite_weights(adapted, "The adapted generator")
    if run is not None:
        run.close()  # before the generator, which marks the run as finished: a killed run must log again
    if run is not None and not training.stopped:
        metadata = {"source": config.source, "target": config.target, "method": config.method}
        target.deliver(run.path)
        method.save(run.path, adapted)
        save_generator(adapted, run.generator_path, {**metadata, "steps": str(config.adapt.steps)})
        if not config.keep_checkpoints:
            run.remove_checkpoints()
    history = training.history if opened is None else opened.records()
    return AdaptResult(adapted, context.source, method, history, not training.stopped)


@contextlib.contextmanager
def _opened(
    run: RunFolder | str | Path | None, config: AdaptConfig, distributed: Distributed
) -> Iterator[RunFolder | None]:
    """The run in a folder, which is removed if it is given as a path and the body fails before its first step.

    Only the leading process writes and removes it.
    """
    if not isinstance(run, str | Path):
        yield run
        return
    if not distributed.leads:
        yield RunFolder(run, config)
        return
    opened = RunFolder.open(run, config)
    try:
        yield opened
    except BaseException:
        opened.discard_if_unused()
        raise


def _device_name(device: torch.device) -> str:
    """Type of a device, with its product name on an NVIDIA or AMD card."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
