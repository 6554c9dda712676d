"""Pictures from generators: the same people in several domains, walks through latents, blends of weights.

Everything follows from (seed, sample): neither the batch size nor the order changes what a sample looks like.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator

__all__ = ["blend_weights", "generate", "render_batches"]


def class_labels(generator: Generator, class_index: int | None, num: int) -> Tensor | None:
    """Class indices [num] for a class-conditional generator, None for an unconditional one.

    Raises:
        ZeroshiftError: if the generator needs a class and none is given, or the reverse, or it has no such class.
    """
    if not generator.num_classes:
        if class_index is not None:
            raise ZeroshiftError("This generator has no classes, so none can be chosen. Leave --class-index out.")
        return None
    if class_index is None:
        raise ZeroshiftError(
            f"This generator has {generator.num_classes} classes. Choose one, such as --class-index 0."
        )
    if not 0 <= class_index < generator.num_classes:
        raise ZeroshiftError(f"There is no class {class_index}: this generator has {generator.num_classes} classes.")
    return torch.full((num,), class_index, dtype=torch.long, device=generator.device)


@torch.inference_mode()
def render_batches(
    generators: Sequence[Generator],
    latents: Tensor,
    *,
    truncation_psi: float = 0.7,
    class_index: int | None = None,
    batch_size: int = 8,
) -> Iterator[list[Tensor]]:
    """Batches of images of latents [N, ...]: for each batch one tensor [n, 3, R, R] per generator, on the CPU.

    The codes are those of the first generator, the source: what an adaptation changes comes after them.
    """
    for part in latents.split(batch_size):
        labels = class_labels(generators[0], class_index, len(part))
        codes = generators[0].codes(part.to(generators[0].device), labels, truncation_psi=truncation_psi)
        yield [generator.synthesize(codes.to(generator.device)).float().cpu() for generator in generators]


def generate(
    generators: Sequence[Generator],
    num: int,
    *,
    seed: int = 0,
    truncation_psi: float = 0.7,
    class_index: int | None = None,
    batch_size: int = 8,
) -> Iterator[list[Tensor]]:
    """The same `num` samples of every generator (such as source and target), batch by batch as `render_batches`."""
    latents = generators[0].sample_latents(seed, range(num))
    return render_batches(
        generators, latents, truncation_psi=truncation_psi, class_index=class_index, batch_size=batch_size
    )


@torch.no_grad()
def blend_weights(
    source: Generator, targets: Sequence[Generator], amounts: Sequence[float], out: Generator | None = None
) -> Generator:
    """A generator with weights source + Σ amount_i (target_i − source), written into `out` if it is given.

    Amount 0 is the source, 1 the target; several targets of one source mix. Interpolating the weights of a generator
    and its fine-tuned copy: Wang et al., "Deep Network Interpolation for Continuous Imagery Effect Transition", 2019.

    Raises:
        ZeroshiftError: if the generators are not of one architecture and size.
    """
    if any(target.architecture != source.architecture or target.config != source.config for target in targets):
        raise ZeroshiftError("Only generators of one architecture and size can be blended: adapt them from one source.")
    out = copy.deepcopy(source) if out is None else out
    states = [target.state_dict() for target in targets]
    blended = out.state_dict()  # shares memory with out
    for name, weight in source.state_dict().items():
        if weight.is_floating_point():
            value = weight.clone()
            for amount, state in zip(amounts, states, strict=True):
                value += amount * (state[name].to(weight) - weight)
            blended[name].copy_(value)
    return out
