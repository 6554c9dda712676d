"""Muon: momentum whose direction is made orthogonal, for the matrices inside a network."""

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalize"]


def orthogonalize(matrix: Tensor) -> Tensor:
    """Roughly the nearest matrix [M, N] with singular values one (they end within about 0.7 to 1.2).

    Five quintic Newton-Schulz steps with the coefficients of Jordan et al. (2024), "Muon".
    """
    x = matrix / (matrix.norm() + 1e-7)
    wide = x if x.shape[0] <= x.shape[1] else x.t()
    # Each step is a polynomial of the Gram matrix, so the steps are gathered there, where the matrices are small.
    gram = wide @ wide.t()
    gathered = identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(5):
        factor = 3.4445 * identity - 4.7750 * gram + 2.0315 * gram @ gram
        gathered, gram = factor @ gathered, factor @ gram @ factor
    wide = gathered @ wide
    return wide if x.shape[0] <= x.shape[1] else wide.t()


class Muon(torch.optim.Optimizer):
    """Jordan et al. (2024): Nesterov momentum, orthogonalised per matrix. A kernel [O, I, k, k] counts as [O, I k k].

    The step has root mean square `lr` in every matrix, so that weights of unit scale (equalised layers) all move alike.
    PyTorch's own `torch.optim.Muon` is newer than the oldest PyTorch that we support, and takes no kernels.
    """

    def __init__(self, parameters, lr: float, momentum: float = 0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
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
                scale = max(direction.shape) ** 0.5  # an orthogonal [M, N] has root mean square max(M, N)^-0.5
                parameter.add_(direction.view_as(parameter), alpha=-group["lr"] * scale)
