"""Runs an adaptation from its configuration: the stages of its method, then the generator; resumes, logs, previews."""

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder
from zeroshift.config.settings import AdaptConfig, GeneratorOptions
from zeroshift.core.distributed import Distributed
from zeroshift.core.rng import normal
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator, save_generator
from zeroshift.io.downloads import cache_folder
from zeroshift.methods.base import Method, Stage
from zeroshift.methods.configure import resolve
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.registry import METHODS
from zeroshift.methods.source_images import ImageBank
from zeroshift.sampling.generate import class_labels, generate
from zeroshift.sampling.inversion import invert, read_folder
from zeroshift.training.adaptation import Adaptation
from zeroshift.training.run_folder import RunFolder

__all__ = ["AdaptResult", "Progress", "adapt"]

Record = dict[str, Any]  # {"stage", "step", "loss", ...}, as in metrics.jsonl


class Progress(Protocol):
    """Receives the progress of a run."""

    def update(self, stage: str, step: int, steps: int, losses: Mapping[str, float]) -> None:
        """`step` of `steps` steps of a stage are done; `losses` are those of the last one."""


@dataclass(frozen=True)
class AdaptResult:
    """The result of a run."""

    generator: Generator
    """The adapted generator: the moving average."""
    source: Generator
    """The source generator."""
    method: Method
    """The method with what it has learned, such as IPL's `mappers`."""
    history: list[Record]
    """A record per step: "stage", "step", "loss", further losses, "seconds"; with a run folder, of all its steps."""


def adapt(
    config: AdaptConfig,
    run: RunFolder | None = None,
    *,
    progress: Progress | None = None,
    generator: Generator | None = None,
    encoders: Sequence[Encoder] | None = None,
) -> AdaptResult:
    """Adapts a generator to a new domain.

    Several processes (`accelerate launch`) share every batch and reach the result of one process. With a run folder,
    the run resumes from its last checkpoint; on one CPU, the result is bitwise identical to that of an uninterrupted
    run.

    Args:
        config: the settings.
        run: folder for checkpoints, metrics, previews and the adapted generator; None: nothing is written.
        progress: called after every step.
        generator, encoders: used instead of those that `config` names. A run folder keeps a copy of the generator.

    Raises:
        ZeroshiftError: if settings, files or the folder are invalid, or a loss is not a finite number.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint at the end of the step; on a second Ctrl-C at once.
    """
    distributed = Distributed(config.device)
    if generator is None and run is not None and run.source_path.exists():
        generator = load_generator(run.source_path, distributed.device)
    context = _make_context(resolve(config), distributed, generator, encoders, progress)
    config = context.config
    method = METHODS[config.method](context)
    adaptation = Adaptation(context, method)
    stages = [*method.stages(), adaptation]
    _check_names(stages)
    if config.compile:
        _compile(context, adaptation)
    written = run if distributed.leads else None
    with written.lock() if written is not None else contextlib.nullcontext():
        training = _Training(context, stages, written, progress)
        training.resume(run)
        if written is not None:
            written.write_config()
            if generator is not None and not written.source_path.exists():
                save_generator(context.source, written.source_path)  # config.json cannot name it
        with _interrupts_at_step_ends() as stop_if_requested:
            training.train(adaptation, stop_if_requested)
        adapted = adaptation.target_ema.merged()
        if written is not None:
            metadata = {"source": config.source, "target": config.target, "method": config.method}
            metadata["steps"] = str(config.adapt.steps)
            adaptation.target_ema.deliver(written.path)
            method.save(written.path, adapted)
            save_generator(adapted, written.generator_path, metadata)
            written.close()
    distributed.wait()
    return AdaptResult(adapted, context.source, method, training.history if run is None else run.records())


def _make_context(
    config: AdaptConfig,
    distributed: Distributed,
    generator: Generator | None,
    encoders: Sequence[Encoder] | None,
    progress: Progress | None,
) -> TrainingContext:
    """Loads the generator, encoders and source images of the configuration."""
    device = distributed.device
    source = load_generator(config.generator, device) if generator is None else generator.to(device)
    config = _for_family(config, source)
    class_labels(source, config.class_index, 1)
    if encoders is None:
        encoders = [load_encoder(name, device, config.resize) for name in config.encoders]
    for encoder in encoders:
        for label in (config.source, config.target):
            encoder.warn_unknown(label)
    source.eval().requires_grad_(False)
    source.configure(config.sampling)
    encoders = [encoder.to(device) for encoder in encoders]
    bank = _image_bank(config, source, encoders, distributed, progress)
    return TrainingContext(config, source, encoders, distributed, bank)


def _for_family(config: AdaptConfig, source: Generator) -> AdaptConfig:
    """The configuration with the family of the loaded generator and an instance of the family's own options.

    Raises:
        ZeroshiftError: if the sampling settings are those of another family.
    """
    sampling = config.sampling
    if type(sampling) is not source.Options:
        if type(sampling) is not GeneratorOptions:
            raise ZeroshiftError(
                f"The sampling settings are {type(sampling).__name__}, but a {source.architecture} generator takes "
                f"{source.Options.__name__}."
            )
        sampling = source.Options()
    return dataclasses.replace(config, family=source.architecture, sampling=sampling)


def _check_names(stages: Sequence[Stage]) -> None:
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ZeroshiftError(
            f"Two stages of a run have the same name: {', '.join(names)}. Rename a stage of the method."
        )


def _compile(context: TrainingContext, adaptation: Adaptation) -> None:
    for module in (*context.source.children(), *(encoder.image_tower for encoder in context.encoders)):
        module.compile()
    if adaptation.fixed_layers:  # otherwise the graph changes with the trained layers
        for module in adaptation.target.children():
            module.compile()


def _image_bank(
    config: AdaptConfig,
    source: Generator,
    encoders: Sequence[Encoder],
    distributed: Distributed,
    progress: Progress | None,
) -> ImageBank | None:
    """The fixed source images of the run, if the configuration asks for them; the leading process inverts."""
    if config.num_latents:
        latents = normal(source.latent_shape, config.seed, "bank", samples=range(config.num_latents)).to(source.device)
        labels = class_labels(source, config.class_index, config.num_latents)
        return ImageBank.of_latents(source, latents, labels, encoders, config.seed, distributed.size)
    if not config.source_images_dir:
        return None

    def report(number: int, total: int) -> None:
        if progress is not None and distributed.leads:
            progress.update("invert", number, total, {})

    images = read_folder(config.source_images_dir, source.resolution)
    if not distributed.leads:
        distributed.wait()
    codes = invert(source, images, cache_folder() / "inversions", report)
    if distributed.leads:
        distributed.wait()
    return ImageBank.of_images(source, images.to(source.device), codes, encoders, config.seed, distributed.size)


@dataclass
class _Training:
    """The state of a run and its training loop."""

    context: TrainingContext
    stages: Sequence[Stage]
    run: RunFolder | None  # None: nothing is written
    progress: Progress | None
    history: list[Record] = field(default_factory=list)
    stage: int = 0  # index of the current stage
    step: int = 0  # its next step
    unlogged: list[Record] = field(default_factory=list)  # records of finished steps that are not in the folder yet

    def train(self, adaptation: Adaptation, stop_if_requested: "_Stop") -> None:
        """Trains the remaining steps."""
        config = self.context.config
        try:
            while self.stage < len(self.stages):
                stage = self.stages[self.stage]
                while self.step < stage.steps:
                    self._one_step(stage)
                    last = self.step == stage.steps
                    if stage is adaptation and (last or _due(self.step, config.preview_every)):
                        self._preview(adaptation.target_ema)
                    if last or _due(self.step, config.checkpoint_every):
                        self._checkpoint()
                    stop_if_requested(self.context.distributed)
                if self.stage == len(self.stages) - 1:
                    return
                self.stage, self.step = self.stage + 1, 0
        except KeyboardInterrupt:
            if not stop_if_requested.within_step:
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
        try:
            self.stage, self.step = names.index(state["stage"]), state["step"]
            for stage in self.stages[: self.stage + 1]:
                stage.load_state_dict(state["states"][stage.name])
        except (KeyError, ValueError, RuntimeError) as error:
            raise ZeroshiftError(
                "The checkpoint of this run does not fit its settings or generator. "
                "Start again in another folder (--out)."
            ) from error
        if self.run is not None:
            self.run.truncate_log(state["stage"], self.step - len(state["unlogged"]), names)
            self.unlogged = state["unlogged"]
            self._log()

    def _one_step(self, stage: Stage) -> None:
        began = time.perf_counter()
        values = stage.step(self.step)
        record = {"stage": stage.name, "step": self.step, **values, "seconds": time.perf_counter() - began}
        self.step += 1
        self.unlogged.append(record)
        self.history.append(record)
        self._log()
        if self.progress is not None and self.context.distributed.leads:
            losses = {name: value for name, value in values.items() if isinstance(value, float)}
            self.progress.update(stage.name, self.step, stage.steps, losses)

    def _log(self) -> None:
        while self.unlogged:
            if self.run is not None:
                self.run.log(**self.unlogged[0])
            self.unlogged.pop(0)

    def _checkpoint(self) -> None:
        if self.run is None:
            return
        states = {stage.name: stage.state_dict() for stage in self.stages[: self.stage + 1]}
        self.run.save_checkpoint(
            {"stage": self.stages[self.stage].name, "step": self.step, "states": states, "unlogged": self.unlogged}
        )

    def _preview(self, target: Generator) -> None:
        if self.run is None:
            return
        config, source = self.context.config, self.context.source
        batches = generate(
            [source, target],
            config.preview_samples,
            seed=config.seed,
            truncation_psi=config.truncation_psi,
            class_index=config.class_index,
        )
        rows: list[Tensor] = [torch.cat(images) for images in zip(*batches, strict=True)]
        self.run.save_image(f"{self.step:06d}", torch.cat(rows), columns=config.preview_samples)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


class _Stop:
    """Remembers an interrupt request; called between steps, it raises KeyboardInterrupt in all processes."""

    def __init__(self) -> None:
        self.requested = False
        self.within_step = False  # a second interrupt did not wait for the end of the step

    def __call__(self, distributed: Distributed) -> None:
        if distributed.any(self.requested):
            raise KeyboardInterrupt

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            self.within_step = True
            raise KeyboardInterrupt
        self.requested = True


@contextlib.contextmanager
def _interrupts_at_step_ends() -> Iterator[_Stop]:
    """Lets Ctrl-C (and SIGTERM, if it is set to do the same) wait for the end of a step."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield stop
        return
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is signal.default_int_handler]
    for number in numbers:
        signal.signal(number, stop.handle)
    try:
        yield stop
    finally:
        for number in numbers:
            signal.signal(number, signal.default_int_handler)
