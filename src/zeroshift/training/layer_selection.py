"""Chooses the layers of the target generator that train at a step: adaptively, all, or by name."""

import difflib
import fnmatch
from collections.abc import Sequence

import torch
from torch import Tensor

from zeroshift.clip.losses import clamp_images, global_similarity
from zeroshift.core.batching import Fitting
from zeroshift.core.dtypes import at_least_float32
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Codes, Generator
from zeroshift.methods.base import Method
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.source_images import SourceBatch

__all__ = ["LayerChoice", "chosen_count", "named_layers", "train_only"]

_PIXELS = 2**21  # with a graph at once: two images of 1024 pixels, which need 4 GiB in a StyleGAN2


def named_layers(generator: Generator, layers: Sequence[str]) -> list[str] | None:
    """The layers that the setting `adapt.layers` names; a name may be a pattern with * and ?.

    Returns:
        None for ("adaptive",) if the generator has layer candidates; without candidates it means all layers.

    Raises:
        ZeroshiftError: if the generator has no such layer.
    """
    names = list(generator.layers())
    if tuple(layers) == ("adaptive",) and generator.layer_candidates() is not None:
        return None
    if tuple(layers) in (("adaptive",), ("all",)):
        return names
    chosen: dict[str, None] = {}
    for name in layers:
        matching = [one for one in names if fnmatch.fnmatchcase(one, name)]
        if not matching:
            near = difflib.get_close_matches(name, names, n=2) or names[:3]
            raise ZeroshiftError(f"The generator has no layer {name!r}. Did you mean {' or '.join(near)}?")
        chosen.update(dict.fromkeys(matching))
    return list(chosen)


def chosen_count(candidates: int, wanted: int | None) -> int:
    """Number of layers to train: `wanted`, or two thirds of the candidates, rounded down.

    IPL, section 4.1: int(2 (2 log2(size) - 2) / 3), where 2 log2(size) - 2 is the number of candidates.

    Raises:
        ZeroshiftError: if `wanted` is larger than the number of candidates.
    """
    if wanted is not None and wanted > candidates:
        raise ZeroshiftError(f"adapt.num_layers is {wanted}, but the generator has {candidates} layers to choose from.")
    return max(1, 2 * candidates // 3) if wanted is None else wanted


def train_only(generator: Generator, layers: Sequence[str]) -> None:
    """Enables gradients for the parameters of the named layers only."""
    generator.requires_grad_(False)
    named = generator.layers()
    for name in layers:
        named[name].requires_grad_(True)


class LayerChoice:
    """The adaptive choice: the candidates that matter most for the target domain, NADA, section 4.2.

    Codes take SGD steps on the global CLIP loss of the target label. The score of a layer is the mean absolute change
    of its codes over samples and entries. The samples are independent of each other, so they are computed in parts
    that fit memory, which changes the scores by rounding only.

    Attributes:
        candidates: names of all layers to choose from, one per row of the codes.
    """

    def __init__(self, context: TrainingContext, method: Method, target: Generator):
        self._context, self._method, self._target = context, method, target
        settings = self._settings = context.config.adapt
        self.candidates = target.layer_candidates() or []
        self._count = chosen_count(len(self.candidates), settings.num_layers)
        self._part = max(1, _PIXELS // target.resolution**2)
        if settings.grad_accumulation_steps > 1:  # then as many samples at once as in training
            share = settings.batch_size // context.distributed.size
            self._part = max(1, min(self._part, share // settings.grad_accumulation_steps))

    def from_new_codes(self, batch: SourceBatch, step: int) -> list[str]:
        """The chosen layers, best first, by samples of their own and `layer_steps` SGD steps.

        The weights get no gradients.
        """
        settings = self._settings
        self._target.requires_grad_(False)
        with torch.no_grad():
            codes = batch.codes.detach()
        moved = codes

        def gradient(rows: Tensor) -> Tensor:
            some = slice(int(rows[0]), int(rows[-1]) + 1)
            part = moved[some].requires_grad_()
            loss = self._loss(self._features(part, batch.samples[some], step)) * len(rows) / settings.layer_batch_size
            return torch.autograd.grad(loss, part)[0]

        fitting = Fitting(gradient, self._part, gradients=True)
        for _ in range(settings.layer_steps):
            moved = moved - settings.layer_lr * fitting(torch.arange(len(codes)))
        self._part = fitting.size
        return self._best(moved - codes)

    def from_batch(self, codes: Codes, features: Sequence[Tensor]) -> list[str]:
        """The chosen layers, best first, by the training batch: one SGD step, without a forward pass of its own.

        Args:
            codes: [n, len(candidates), ...], with gradients enabled.
            features: features of the target images of these codes, with graph, one per encoder.
        """
        share = len(codes) / self._settings.batch_size
        (gradient,) = torch.autograd.grad(self._loss(features) * share, codes, retain_graph=True)
        return self._best(self._settings.layer_lr * gradient)

    def _features(self, codes: Codes, samples: Sequence[int], step: int) -> list[Tensor]:
        """Features of the target images of some codes, one per encoder, with graph."""
        context, settings = self._context, self._settings
        seed = context.noise_seed("layers", step)
        enabled = "bf16" in (settings.layer_precision, context.config.precision)
        with torch.autocast(context.distributed.device.type, torch.bfloat16, enabled=enabled):
            images = self._target.synthesize(codes, noise_mode=settings.noise_mode, noise_seed=seed, samples=samples)
            seen = at_least_float32(images)
            seen = clamp_images(seen) if settings.clamp_images else seen
            return [encoder.encode_image(seen) for encoder in context.encoders]

    def _loss(self, features: Sequence[Tensor]) -> Tensor:
        """The global CLIP loss, the mean over samples."""
        terms = [
            weight * global_similarity(feature, target, encoder.logit_scale)
            for weight, feature, target, encoder in zip(
                self._context.config.weights, features, self._method.targets, self._context.encoders, strict=True
            )
        ]
        return torch.stack(terms).sum()

    def _best(self, change: Tensor) -> list[str]:
        """The candidates whose codes changed most over the samples of all processes."""
        score = self._context.distributed.sum(change.abs().flatten(start_dim=2).mean(dim=2).sum(dim=0))  # [candidates]
        return [self.candidates[index] for index in score.topk(self._count).indices.tolist()]
