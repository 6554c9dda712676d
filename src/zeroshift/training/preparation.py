"""Prepares a run: loads its generator and encoders, makes its image bank, and checks its source images."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.labels import check_labels
from zeroshift.clip.loading import load_encoder
from zeroshift.config.settings import AdaptConfig, GeneratorOptions
from zeroshift.core.distributed import Distributed
from zeroshift.core.finite import is_finite, require_finite_weights
from zeroshift.core.rng import normal
from zeroshift.errors import NotFiniteError, ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.inversion.codes import invert, read_folder
from zeroshift.io.downloads import cache_folder
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.registry import METHODS
from zeroshift.methods.source_images import ImageBank
from zeroshift.sampling.generate import class_labels
from zeroshift.training.compilation import begin_step, compile_networks

__all__ = ["Progress", "make_context", "member_context"]


class Progress(Protocol):
    """Receives the progress of a run."""

    def update(self, stage: str, step: int, steps: int, losses: Mapping[str, float]) -> None:
        """`step` of `steps` steps of a stage are done; `losses` are those of the last one."""


def make_context(
    config: AdaptConfig,
    distributed: Distributed,
    generator: Generator | None,
    encoders: Sequence[Encoder] | None,
    progress: Progress | None,
    *,
    check_texts: bool = True,
) -> TrainingContext:
    """Loads the generator, encoders and source images of the configuration, and checks them.

    Args:
        generator, encoders, progress: see `zeroshift.training.trainer.adapt`.
        check_texts: False for several runs that share this context: `member_context` checks the texts of each.

    Raises:
        ZeroshiftError: if a file or a setting is invalid, or weights, source images or their features are not finite.
    """
    device = distributed.device
    if generator is not None:
        require_finite_weights(generator, "The generator")
    source = load_generator(config.generator, device) if generator is None else generator.to(device)
    config = _for_family(config, source)
    class_labels(source, config.class_index, 1)
    if encoders is None:
        encoders = [load_encoder(name, device, config.resize) for name in config.encoders]
    for encoder in encoders:
        require_finite_weights(encoder, "The encoder")
    if check_texts:
        _check_encoders(config, encoders)
    source.eval().requires_grad_(False)
    source.configure(config.sampling)
    encoders = [encoder.to(device) for encoder in encoders]
    bank = _image_bank(config, source, encoders, distributed, progress)
    context = TrainingContext(config, source, encoders, distributed, bank)
    _check_source(context)
    if config.compile:
        compile_networks(source, encoders, mode=config.compile_mode)
        begin_step(config)  # from here on, results last until the first step
    return context


def member_context(shared: TrainingContext, config: AdaptConfig) -> TrainingContext:
    """The context of one of several runs in lockstep.

    Args:
        shared: made by `make_context` from the same `zeroshift.training.trainer.SHARED_SETTINGS`.
        config: the settings of the run.

    Raises:
        ZeroshiftError: if a setting of this run is invalid.
    """
    config = _for_family(config, shared.source)
    _check_encoders(config, shared.encoders)
    return dataclasses.replace(shared, config=config)


def _check_encoders(config: AdaptConfig, encoders: Sequence[Encoder]) -> None:
    """Checks the number of encoders, and the labels, with a warning about words that an encoder does not know."""
    if len(encoders) != len(config.weights):
        raise ZeroshiftError(
            f"{len(encoders)} encoder objects were given, but the configuration names {len(config.weights)}. "
            "Name as many in `encoders`."
        )
    if not METHODS[config.method].reads_labels(config):
        return
    for encoder in encoders:
        encoder.warn_unknown(config.source)
        for text in config.weighted_texts:
            encoder.warn_unknown(text)
            check_labels(encoder, config.source, text)


@torch.no_grad()
def _check_source(context: TrainingContext) -> None:
    """Checks one source image, or the image bank, and its features before any work.

    Raises:
        NotFiniteError: if they hold values that are not finite numbers; then the settings of the training are not the
            cause.
    """
    config, bank = context.config, context.image_bank
    if bank is not None:
        images, features = bank.bank_images, bank.bank_features
    else:
        with context.autocast():
            batch = context.fresh_latents.draw("check", 0, range(1))
            images, features = batch.images, batch.features
    if not is_finite(images):
        raise NotFiniteError(
            f"The source generator {config.generator} makes images with values that are not finite numbers, before any "
            "training. Its weights or its settings are the cause, such as the noise schedule of a diffusion model or "
            f"the precision (here {config.precision}): use another generator."
        )
    for name, values in zip(config.encoders, features, strict=False):
        if not is_finite(values):
            raise NotFiniteError(
                f"The encoder {name} gives features that are not finite numbers for images of the source generator, "
                f"before any training. Use another encoder, or another precision (here {config.precision})."
            )


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
