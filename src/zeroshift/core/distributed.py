"""Data-parallel training: each process computes its share of every batch, and all take the same optimizer steps."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import torch
from accelerate import PartialState
from accelerate.utils import gather, reduce
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.io.foreign import first_line

__all__ = ["Distributed"]


class Distributed:
    """This process among those started by `torchrun` or `accelerate launch`, or a single process.

    Sums run over the whole batch, so that the number of processes changes results by rounding only.

    Args:
        device: "auto" (the accelerator, if there is one) or "cpu".

    Raises:
        ZeroshiftError: in any method, if another process has ended, so that this one cannot go on.

    Attributes:
        device: where this process computes.
        rank, size: number of this process, and how many there are.
        leads: whether this is the process that writes files.
    """

    def __init__(self, device: str = "auto"):
        with _lost_processes():
            state = self._state = PartialState(cpu=device == "cpu")
        self.device = torch.device("cpu") if device == "cpu" else state.device
        self.rank, self.size, self.leads = state.process_index, state.num_processes, state.is_main_process

    def share(self, samples: Sequence[int]) -> Sequence[int]:
        """This process's share of the samples of a batch, in order.

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
        """The rows of all processes, in order. Rows of this process keep their graph, the others are constants.

        If every process computes the same loss from all rows, `sum_gradients` turns the partial gradients into those
        that a single process would have.
        """
        if self.size == 1:
            return rows
        with _lost_processes():
            rows_of = list(gather(rows.detach().contiguous()).chunk(self.size))
        rows_of[self.rank] = rows
        return torch.cat(rows_of)

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, detached from the graph."""
        if self.size == 1:
            return value.detach()
        with _lost_processes():
            total: Tensor = reduce(value.detach(), "sum")
        return total

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replaces gradients by their sums over all processes, in one all-reduce."""
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in trained])
        for parameter, total in zip(trained, self.sum(flat).split([p.numel() for p in trained]), strict=True):
            parameter.grad = total.view_as(parameter)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in at least one process."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(int(flag), device=self.device)))

    def wait(self) -> None:
        """Waits until all processes have reached this point."""
        with _lost_processes():
            self._state.wait_for_everyone()


@contextlib.contextmanager
def _lost_processes() -> Iterator[None]:
    """Turns the errors of the communication between processes (gloo, NCCL) into a sentence."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # gloo has no type of its own
        raise ZeroshiftError(
            f"Another process of this run has ended or cannot be reached ({first_line(error).partition('. ')[0]}), so "
            "this one stops. Repeat the command to resume from the last checkpoint."
        ) from error
