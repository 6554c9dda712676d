"""The processes that train together: each works off its share of every batch, and all take the same steps."""

from collections.abc import Iterable, Sequence

import torch
from accelerate import PartialState
from accelerate.utils import gather, reduce
from torch import Tensor

from zeroshift.errors import ZeroshiftError

__all__ = ["Distributed"]


class Distributed:
    """This process among those that `accelerate launch` started, or the only one.

    What is summed here is summed over the whole batch, whoever holds the parts; so the number of processes changes
    results by rounding only.

    Args:
        device: "auto" (the accelerator, if there is one) or "cpu".
    """

    def __init__(self, device: str = "auto"):
        state = self._state = PartialState(cpu=device == "cpu")
        self.device = torch.device("cpu") if device == "cpu" else state.device
        self.rank, self.size, self.leads = state.process_index, state.num_processes, state.is_main_process

    def share(self, samples: Sequence[int]) -> Sequence[int]:
        """This process's part of the samples of a batch, in order.

        Raises:
            ZeroshiftError: if the batch does not split evenly.
        """
        if len(samples) % self.size:
            raise ZeroshiftError(
                f"A batch of {len(samples)} does not split evenly among {self.size} processes. Change one of them."
            )
        part = len(samples) // self.size
        return samples[self.rank * part : (self.rank + 1) * part]

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in order. The own ones keep their graph, the others are constants.

        A loss of all rows that every process computes from them has, for each parameter, the same gradient as in one
        process once `sum_gradients` has added the parts.
        """
        if self.size == 1:
            return rows
        everyone = list(gather(rows.detach().contiguous()).chunk(self.size))
        everyone[self.rank] = rows
        return torch.cat(everyone)

    def sum(self, value: Tensor) -> Tensor:
        """The sum over the processes, without graph."""
        return value.detach() if self.size == 1 else reduce(value.detach(), "sum")

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Adds up the gradients of all processes, in one message."""
        if self.size == 1:
            return
        held = [parameter for parameter in parameters if parameter.requires_grad]
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in held])
        for parameter, total in zip(held, reduce(flat, "sum").split([p.numel() for p in held]), strict=True):
            parameter.grad = total.view_as(parameter)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(int(flag), device=self.device)))

    def wait(self) -> None:
        """Until all processes are here."""
        self._state.wait_for_everyone()
