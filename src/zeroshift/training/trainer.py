"""Runs adaptations from their configurations: one, or several in lockstep that share their source images."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zeroshift.clip.encoder import Encoder
from zeroshift.config.settings import AdaptConfig
from zeroshift.core.distributed import Distributed
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.io.checksums import digest, load_tensors
from zeroshift.methods.configure import flat, resolve
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.source_images import SharedImages
from zeroshift.training.callbacks import Callback
from zeroshift.training.compilation import begin_step
from zeroshift.training.loop import require_same_source
from zeroshift.training.preparation import Progress, make_context, member_context
from zeroshift.training.result import AdaptResult
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.stepwise import advance_in_turns, stepwise

__all__ = ["SHARED_SETTINGS", "AdaptResult", "Progress", "adapt", "adapt_together"]

SHARED_SETTINGS = (
    "generator", "sampling", "encoders", "resize", "seed", "class_index", "num_latents", "source_images_dir", "device",
    "precision", "compile", "compile_mode", "adapt.noise_mode",
)  # fmt: skip
"""Settings and groups that source images and their features depend on: the same in all runs of `adapt_together`."""


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
        >>> config = preset("miniature", target="zombie", method="ipl", steps=2, prompts={"steps": 2})
        >>> result = adapt(config, callbacks=[stop_early])
        >>> result.finished, [record["stage"] for record in result.history]
        (False, ['prompts', 'prompts', 'adapt'])
    """
    distributed = Distributed(config.device)
    if run is not None and not isinstance(run, RunFolder | str | Path):
        raise ZeroshiftError(f"The run is {run!r:.60}. Give the path of a folder, or a RunFolder.")

    def make(config: AdaptConfig, run: RunFolder | None) -> TrainingContext:
        if generator is not None:
            _require_kept_source(run, generator)
        source = _kept_source([(config, run)], distributed) if generator is None else generator
        return make_context(config, distributed, source, encoders, progress)

    steps = stepwise(resolve(config), run, distributed, make, progress, callbacks, generator is not None)
    (outcome,) = advance_in_turns([steps], distributed, functools.partial(begin_step, config))
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def adapt_together(
    configs: Sequence[AdaptConfig],
    runs: Sequence[RunFolder | str | Path | None] | None = None,
    *,
    progress: Progress | None = None,
    callbacks: Sequence[Callback] = (),
    generator: Generator | None = None,
    encoders: Sequence[Encoder] | None = None,
) -> list[AdaptResult | Exception]:
    """Adapts one source generator to several targets in lockstep: all runs train a step before any trains the next.

    The runs share the source generator, the encoders, and at each step the source images with their features, which
    are computed once. On one CPU, the results are bitwise identical to those of separate runs. Everything else exists
    once per run, in memory as well: the target, its moving average, the state of the optimizer.

    Runs at different steps, for example after an interruption, first catch up with each other. Records of steps have no
    "seconds": one of the runs computes what all share.

    Args:
        configs: the settings of the runs, which have the same `SHARED_SETTINGS`.
        runs: see `adapt`, one per configuration; None: nothing is written.
        progress: called after every step of every run, with the steps of all runs together.
        callbacks: called for every run; `StepEvent.config` tells which one.
        generator, encoders: see `adapt`.

    Returns:
        For each configuration, the result or the error that ended the run; it does not affect the others.

    Raises:
        ZeroshiftError: if settings are invalid, a shared setting differs, or the source generator, its images or the
            encoders cannot be used. No run has started then.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint of every run; on a second Ctrl-C at once.

    Examples:
        >>> config = preset("miniature", target="zombie", method="ipl", steps=2, prompts={"steps": 2})
        >>> results = zeroshift.adapt_together([config, config.replace(target="robot")])
        >>> [result.finished for result in results]
        [True, True]
    """
    configs = [resolve(config) for config in configs]
    folders = [None] * len(configs) if runs is None else list(runs)
    if not configs or len(folders) != len(configs):
        raise ZeroshiftError(f"There are {len(configs)} configurations and {len(folders)} runs. Give one run for each.")
    _require_shared_settings(configs)
    distributed = Distributed(configs[0].device)
    source = _kept_source(zip(configs, folders, strict=True), distributed) if generator is None else generator
    context = make_context(configs[0], distributed, source, encoders, progress, check_texts=False)
    images = SharedImages(context.source_images)
    shared = context if len(configs) == 1 else replace(context, shared_images=images)

    def make(config: AdaptConfig, run: RunFolder | None) -> TrainingContext:
        _require_kept_source(run, shared.source)
        return member_context(shared, config)

    finished: dict[tuple[str, int], int] = {}
    members = [
        stepwise(
            config, run, distributed, make,
            None if progress is None else _MemberProgress(progress, number, len(configs), finished),
            callbacks, source is not None,
        )
        for number, (config, run) in enumerate(zip(configs, folders, strict=True))
    ]  # fmt: skip

    def begin_round() -> None:
        images.free()
        begin_step(context.config)

    return advance_in_turns(members, distributed, begin_round)


@dataclass(frozen=True)
class _MemberProgress:
    """The progress of one of several runs, which shows the steps of all of them together."""

    progress: Progress
    number: int  # of the run
    count: int  # of runs
    finished: dict[tuple[str, int], int]  # steps by stage and number, of all runs

    def update(self, stage: str, step: int, steps: int, losses: Mapping[str, float]) -> None:
        """See `Progress`."""
        self.finished[stage, self.number] = step
        done = sum(finished for (name, _), finished in self.finished.items() if name == stage)
        self.progress.update(stage, done, self.count * steps, losses)


def _require_shared_settings(configs: Sequence[AdaptConfig]) -> None:
    """Raises ZeroshiftError if a shared setting has several values."""
    shared = [
        {name: value for name, value in flat(config).items() if {name, name.partition(".")[0]} & set(SHARED_SETTINGS)}
        for config in configs
    ]
    for other in shared:
        different = sorted(name for name in shared[0].keys() | other.keys() if shared[0].get(name) != other.get(name))
        if different:
            listed = ", ".join(f"{name} ({shared[0].get(name)}, {other.get(name)})" for name in different)
            raise ZeroshiftError(
                f"These runs cannot share their source images, because settings differ: {listed}. Adapt them one after "
                "another."
            )


def _kept_source(
    runs: Iterable[tuple[AdaptConfig, RunFolder | str | Path | None]], distributed: Distributed
) -> Generator | None:
    """The copy of the source generator in the first folder that has one."""
    for config, run in runs:
        folder = RunFolder(run, config) if isinstance(run, str | Path) else run
        if folder is not None and folder.source_path.exists():
            return load_generator(folder.source_path, distributed.device)
    return None


def _require_kept_source(run: RunFolder | None, source: Generator) -> None:
    """Raises ZeroshiftError if the copy of the source generator in a folder has other weights."""
    if run is not None and run.source_path.exists():
        require_same_source(digest(load_tensors(run.source_path)[0]), digest(source.state_dict()))
