"""Draws the samples of a run and computes each network's features of them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from zeroshift.core.batching import Fitting, Track
from zeroshift.core.finite import require_finite_images
from zeroshift.evaluation.feature_rows import FeatureRows
from zeroshift.generators.base import Generator
from zeroshift.io.images import eight_bit
from zeroshift.networks.base import FeatureNetwork
from zeroshift.sampling.generate import class_labels

__all__ = ["make_extractor", "sample_features"]

# Initial batch sizes, which fit most memory sizes; `Fitting` halves them otherwise.
_CPU_PIXELS, _CPU_BATCH = 4 * 1024**2, 16
_DEVICE_PIXELS, _DEVICE_BATCH = 32 * 1024**2, 128


def make_extractor(network: FeatureNetwork, device: torch.device) -> Fitting:
    """A function from images [N, 3, R, R] to the network's features [N, ...] on the CPU, in batches that fit memory."""
    return Fitting(
        lambda images: network(images.to(device)).cpu(), _CPU_BATCH if device.type == "cpu" else _DEVICE_BATCH
    )


def sample_features(
    source: Generator,
    target: Generator,
    required: Mapping[tuple[str, str], int],
    extractors: Mapping[str, Fitting],
    *,
    class_index: int | None,
    seed: int,
    truncation_psi: float,
    track: Track[Any],
    truth: Callable[[Tensor], Tensor] | None = None,
) -> dict[tuple[str, str], Tensor]:
    """Features [amount, ...] of source and target samples, by (side, network).

    Source and target share latents and codes. Images are drawn batch by batch and not kept. They are rounded to 8 bits,
    like those in files. A side that no measure uses is not drawn.

    Args:
        source, target: the generators.
        required: number of samples by (side, network), where side is "source", "target" or "truth".
        extractors: see `make_extractor`, by network.
        class_index, seed, truncation_psi: of the samples.
        track: progress callback.
        truth: maps latents to their true target images [n, 3, R, R], for the side "truth".

    Raises:
        NotFiniteError: if images have values that are not finite numbers.
    """
    sides = {side for side, _ in required}
    generators = {side: one for side, one in (("source", source), ("target", target)) if side in sides}

    def draw(latents: Tensor) -> Tensor:  # [n, sides, 3, R, R]
        labels = class_labels(source, class_index, len(latents))
        codes = source.codes(latents, labels, truncation_psi=truncation_psi)  # for the target too, as in training
        return torch.stack([generator.synthesize(codes).float().cpu() for generator in generators.values()], dim=1)

    on_cpu = source.device.type == "cpu"
    size = max(1, min((_CPU_PIXELS if on_cpu else _DEVICE_PIXELS) // source.resolution**2, _DEVICE_BATCH))
    draw_fitting = Fitting(draw, size)
    parts = {key: FeatureRows() for key in required}
    total = max(required.values())
    firsts = range(0, total, size)
    for first in track(firsts, len(firsts), "Samples"):
        latents = source.sample_latents(seed, range(first, min(first + size, total)))
        images = dict(zip(generators, draw_fitting(latents).unbind(dim=1), strict=True))
        if truth is not None and "truth" in sides:
            images["truth"] = truth(latents).float().cpu()
        for side, batch in images.items():
            require_finite_images(batch, f"The {'adapted' if side == 'target' else side} generator")
        for (side, network), amount in required.items():
            if first < amount:
                parts[side, network].add(extractors[network](eight_bit(images[side][: amount - first])))
    return {key: rows.tensor() for key, rows in parts.items()}
