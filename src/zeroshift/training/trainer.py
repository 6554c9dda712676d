"""Runs an adaptation from its configuration: the stages of its method, then the generator; resumes, logs, previews."""

import contextlib
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
from zeroshift.config.settings import AdaptConfig
from zeroshift.core.distributed import Distributed
from zeroshift.core.rng import normal
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator, save_generator
from zeroshift.io.downloads import cache_folder
from zeroshift.methods import method_class
from zeroshift.methods.base import Method, Stage
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.image_bank import ImageBank
from zeroshift.sampling.generate import class_labels, generate
from zeroshift.sampling.inversion import invert, read_folder
from zeroshift.training.adaptation import Adaptation
from zeroshift.training.run_folder import RunFolder

__all__ = ["AdaptResult", "Progress", "adapt"]

Record = dict[str, Any]  # {"stage", "step", "loss", ...}, as in metrics.jsonl


class Progress(Protocol):
    """Something that is told how a run goes."""

    def update(self, stage: str, step: int, steps: int, losses: Mapping[str, float]) -> None:
        """`step` of `steps` steps of a stage are done; `losses` are those of the last one."""


@dataclass(frozen=True)
class AdaptResult:
    """What came out of a run."""

    generator: Generator
    """The adapted generator: the moving average."""
    source: Generator
    """The one it was made from."""
    method: Method
    """The method with what it learnt, such as IPL's `mappers`."""
    history: list[Record]
    """A record a step: "stage", "step", "loss", further losses, "seconds"; from the beginning if there is a folder."""


def adapt(
    config: AdaptConfig,
    run: RunFolder | None = None,
    *,
    progress: Progress | None = None,
    generator: Generator | None = None,
    encoders: Sequence[Encoder] | None = None,
) -> AdaptResult:
    """Adapts a generator to a new domain.

    Started by `accelerate launch`, several processes share every batch and come to the result of one. With a run
    folder, the run resumes where its last checkpoint stands, and a run on one CPU ends bit for bit where it would have
    without the interruption.

    Args:
        config: the settings.
        run: where to keep checkpoints, metrics, previews and the adapted generator; None: nowhere.
        progress: is told of every step.
        generator, encoders: used instead of loading those that `config` names.
    Raises:
        ZeroshiftError: whatever is wrong with settings, files or folder, or a loss that is not finite.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint at the end of the step; on a second one at once.
    """
    config.validate()
    distributed = Distributed(config.device)
    source = (
        load_generator(config.generator, distributed.device) if generator is None else generator.to(distributed.device)
    )
    class_labels(source, config.class_index, 1)
    loaded = (
        [load_encoder(name, distributed.device, config.resize) for name in config.encoders]
        if encoders is None
        else encoders
    )
    for encoder in loaded:
        for label in (config.source, config.target):
            encoder.warn_unknown(label)
    source.eval().requires_grad_(False)
    source.set_sampling(config.diffusion)
    loaded = [encoder.to(distributed.device) for encoder in loaded]
    context = TrainingContext(config, source, loaded, distributed, _bank(config, source, loaded, distributed, progress))
    method = method_class(config.method)(context)
    adaptation = Adaptation(context, method)
    stages = [*method.stages(), adaptation]
    if config.compile:
        for module in (*source.children(), *(encoder.image_tower for encoder in context.encoders)):
            module.compile()
        if adaptation.fixed_layers:  # otherwise its graph changes with the layers that train
            for module in adaptation.target.children():
                module.compile()

    with run.alone() if run is not None and distributed.leads else contextlib.nullcontext():
        training = _Training(context, stages, run if distributed.leads else None, progress)
        training.resume(run)
        if run is not None and distributed.leads:
            run.begin()
        with _interrupts_at_step_ends() as stop_if_asked:
            training.train(adaptation, stop_if_asked)
        delivered = adaptation.target_ema.merged()
        if run is not None and distributed.leads:
            described = {"source": config.source, "target": config.target, "method": config.method}
            described["steps"] = str(config.adapt.steps)
            adaptation.target_ema.deliver(run.path)
            method.save(run.path, delivered)
            save_generator(delivered, run.generator_path, described)
            run.close()
    distributed.wait()
    return AdaptResult(delivered, source, method, training.history if run is None else run.records())


def _bank(
    config: AdaptConfig,
    source: Generator,
    encoders: Sequence[Encoder],
    distributed: Distributed,
    progress: Progress | None,
) -> ImageBank | None:
    """The images that the run draws from, if the configuration fixes them; inverted by the process that leads."""
    if config.num_latents:
        latents = normal(source.latent_shape, config.seed, "bank", samples=range(config.num_latents)).to(source.device)
        return ImageBank.of_latents(
            source, latents, class_labels(source, config.class_index, config.num_latents), encoders
        )
    if not config.source_images_dir:
        return None

    def done(number: int, of: int) -> None:
        if progress is not None and distributed.leads:
            progress.update("invert", number, of, {})

    images = read_folder(config.source_images_dir, source.resolution)
    if not distributed.leads:
        distributed.wait()
    codes = invert(source, images, cache_folder() / "inversions", done)
    if distributed.leads:
        distributed.wait()
    return ImageBank.of_images(source, images.to(source.device), codes, encoders)


@dataclass
class _Training:
    """Where a run stands, and the loop that takes it further."""

    context: TrainingContext
    stages: Sequence[Stage]
    run: RunFolder | None  # None where nothing is to be written
    progress: Progress | None
    history: list[Record] = field(default_factory=list)
    stage: int = 0  # index of the stage that is under way
    step: int = 0  # its next step
    unlogged: list[Record] = field(default_factory=list)  # records of finished steps that the folder does not have yet

    def train(self, adaptation: Adaptation, stop_if_asked: "_Stop") -> None:
        """Takes all steps that are left."""
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
                    stop_if_asked(self.context.distributed)
                if self.stage == len(self.stages) - 1:
                    return
                self.stage, self.step = self.stage + 1, 0
        except KeyboardInterrupt:
            if not stop_if_asked.within_step:
                self._checkpoint()
            raise

    def resume(self, run: RunFolder | None) -> None:
        """Takes up the last checkpoint of the folder, if there is one; every process reads it."""
        state = None if run is None else run.load_checkpoint()
        if state is None:
            if self.run is not None and self.run.records():
                self.run.rewind(self.stages[0].name, 0)
            return
        names = [stage.name for stage in self.stages]
        try:
            self.stage, self.step = names.index(state["stage"]), state["step"]
            for stage in self.stages[: self.stage + 1]:
                stage.load_state_dict(state["states"][stage.name])
        except (KeyError, ValueError, RuntimeError) as error:
            raise ZeroshiftError(
                "The checkpoint of this run does not fit its settings or generator. Start anew in another folder."
            ) from error
        if self.run is not None:
            self.run.rewind(state["stage"], self.step - len(state["unlogged"]))
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
    """Remembers that an interrupt was asked for; called between steps, it raises KeyboardInterrupt in all processes."""

    def __init__(self) -> None:
        self.asked = False
        self.within_step = False  # a second interrupt did not wait for the end of the step

    def __call__(self, distributed: Distributed) -> None:
        if distributed.any(self.asked):
            raise KeyboardInterrupt

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.within_step = True
            raise KeyboardInterrupt
        self.asked = True


@contextlib.contextmanager
def _interrupts_at_step_ends() -> Iterator[_Stop]:
    """Within it Ctrl-C (and SIGTERM, where it is set to do the same) waits for the end of a step."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():  # signals go to the main thread alone
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
