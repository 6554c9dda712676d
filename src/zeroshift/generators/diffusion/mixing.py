"""Mixes the noise predictions of diffusion models that share one source."""

import copy
from collections.abc import Sequence

from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.diffusion.model import Diffusion

__all__ = ["mix_predictions"]


def mix_predictions(source: Generator, targets: Sequence[Generator], shares: Sequence[float]) -> "Diffusion":
    """The source with the predictions source + Σ share_i (target_i - source) at every DDIM step.

    DiffusionCLIP (Kim et al., 2022), section 3.4: a share below 1 weakens the change; several targets mix their
    domains. The weights are shared with `source` and `targets`.

    Raises:
        ZeroshiftError: if the generators are not diffusion models of the same architecture and size.
    """
    if not isinstance(source, Diffusion):
        raise ZeroshiftError(
            f"Only diffusion models can translate real images, and this is a {source.architecture} generator."
        )
    alike = [one for one in targets if isinstance(one, Diffusion) and one.architecture == source.architecture]
    if len(alike) < len(targets) or any(one.config != source.config for one in alike):
        raise ZeroshiftError("Only diffusion models of the same architecture, size and sampling settings can be mixed.")

    def predict(x: Tensor, level: int, condition: Tensor | None) -> Tensor:
        base = mixed = source.predict(x, level, condition)
        for target, share in zip(alike, shares, strict=True):
            mixed = mixed + share * (target.predict(x, level, condition) - base)
        return mixed

    mixed = copy.copy(source)
    mixed.predict = predict  # type: ignore[method-assign]
    return mixed
