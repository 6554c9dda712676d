"""The Muon optimizer for the weight matrices and kernels of a network."""

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalize"]


def orthogonalize(matrix: Tensor) -> Tensor:
    """Approximately the nearest [M, N] matrix with all singular values 1; the actual ones are about 0.7 to 1.2.

    Five quintic Newton-Schulz steps with the coefficients of Jordan et al. (2024), "Muon".
    """
    x = matrix / (matrix.norm() + 1e-7)
    wide = x if x.shape[0] <= x.shape[1] else x.t()
    # Each step multiplies by a polynomial of the Gram matrix, so the product is accumulated on the smaller matrices.
    gram = wide @ wide.t()
    product = identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(5):
        factor: Tensor = 3.4445 * identity - 4.7750 * gram + 2.0315 * gram @ gram
        product, gram = factor @ product, factor @ gram @ factor
    result: Tensor = product @ wide
    return result if x.shape[0] <= x.shape[1] else result.t()


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024): Nesterov momentum, orthogonalized per matrix; a kernel [O, I, k, k] is [O, I k k].

    Deviation: the update of every matrix has root mean square `lr`, because the weights of equalized layers all have
    unit scale. PyTorch's `torch.optim.Muon` requires a newer PyTorch than this package and does not accept kernels.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float = 0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("Muon does not support a closure.")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(average, group["momentum"])
                direction = orthogonalize(ahead.flatten(1))
                scale = max(direction.shape) ** 0.5  # the RMS of an orthogonal [M, N] is max(M, N)^-0.5
                parameter.add_(direction.view_as(parameter), alpha=-group["lr"] * scale)
