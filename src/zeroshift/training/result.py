"""The result of an adaptation, which a notebook shows as pictures."""

from dataclasses import dataclass
from html import escape
from typing import Any

from torch import Tensor

from zeroshift.generators.base import Generator
from zeroshift.io.images import data_uri, labeled_rows
from zeroshift.methods.base import Method
from zeroshift.training.previews import Samples

__all__ = ["AdaptResult", "Record"]

Record = dict[str, Any]  # {"stage", "step", "loss", ...}, as in metrics.jsonl
_SHOWN = 8  # samples in a notebook


@dataclass(frozen=True, repr=False)
class AdaptResult:
    """The result of a run. In a notebook it is shown as samples of both generators."""

    generator: Generator
    """The adapted generator: the moving average."""
    source: Generator
    """The source generator."""
    method: Method
    """The method with what it has learned, such as IPL's `mappers`."""
    history: list[Record]
    """A record per step: "stage", "step", "loss", further losses, "seconds"; with a run folder, of all its steps."""
    finished: bool = True
    """False if a callback stopped the run; the generator is that of its last step."""

    def images(self, num: int = _SHOWN) -> tuple[Tensor, Tensor]:
        """Samples 0 to num - 1 of the run's seed: source and adapted [num, 3, R, R] in [-1, 1], on the CPU."""
        samples = Samples(self.method.context.config, self.source)
        return samples.source(num), samples.adapted(self.generator, num)

    def __repr__(self) -> str:
        config = self.method.context.config
        state = "" if self.finished else ", stopped by a callback"
        loss = f", loss {self.history[-1]['loss']:.4f}" if self.history else ""
        run = f"{config.source} to {config.target}, {config.method}, {len(self.history)} steps"
        return f"<AdaptResult: {run}{loss}{state}>"

    def _repr_html_(self) -> str:
        config = self.method.context.config
        source, adapted = self.images()
        sheet = data_uri(labeled_rows({config.source: source, config.target: adapted}), lossy=True)
        return f'<p>{escape(repr(self)[1:-1])}</p><img src="{sheet}" alt="source and adapted samples">'
