"""Pivotal tuning (PTI): Roich et al., "Pivotal Tuning for Latent-based Editing of Real Images", 2021.

The codes of a photo, the pivot, stay; the weights of the generator are trained until it draws the photo. The difference
of the weights is kept, because it can be added to every generator that was adapted from the same source.
"""

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.generators.base import Codes, Generator
from zeroshift.inversion.distance import Distance
from zeroshift.inversion.options import InversionOptions
from zeroshift.inversion.projection import Step

__all__ = ["tune"]


def tune(
    generator: Generator,
    photo: Tensor,
    codes: Codes,
    changes: Mapping[str, Tensor],
    distance: Distance,
    options: InversionOptions,
    step_done: Step = lambda step, images: None,
) -> dict[str, Tensor]:
    """The changes of weights, and those in `changes`, after which the generator draws a photo from its codes.

    Minimizes the tuning loss of the paper, mean squared error + distance with both weights 1, with Adam over all
    adaptable layers.

    Args:
        photo: [1, 3, R, R] in [-1, 1].
        codes: [1, ...], which stay as they are.
        changes: differences to noise maps from the projection.
    """
    tuned = copy.deepcopy(generator).requires_grad_(False)
    original = {**dict(generator.named_parameters()), **dict(generator.named_buffers())}
    with torch.no_grad():
        own = {**dict(tuned.named_parameters()), **dict(tuned.named_buffers())}
        for name, change in changes.items():
            own[name] += change.reshape(own[name].shape)
    modules = tuned.layers()
    weights = {f"{layer}.{name}": value for layer, one in modules.items() for name, value in one.named_parameters()}
    optimizer = torch.optim.Adam([value.requires_grad_(True) for value in weights.values()], lr=options.tuning_lr)
    goal = distance.features(photo)
    for step in range(options.tuning_steps):
        image = tuned.synthesize(codes)
        apart = distance.between(distance.features(image), goal).sum()
        step_done(step + 1, image.detach())
        if distance.perceptual and apart.item() <= options.tuning_stop:
            break
        loss = F.mse_loss(image, photo) + apart
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return {**changes, **{name: (value.detach() - original[name].detach()) for name, value in weights.items()}}
