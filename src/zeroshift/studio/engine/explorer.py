"""Pictures of the explore and compare tabs."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from zeroshift.api.drawing import Drawing, Renderer, drawing_command
from zeroshift.api.pictures import as_pil
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.truth import load_truth
from zeroshift.generators.checkpoints.catalogue import find_entry
from zeroshift.studio.engine.cache import ModelCache
from zeroshift.studio.engine.workspace import Workspace
from zeroshift.training.run_folder import RunFolder

__all__ = ["METADATA", "Explorer", "Picture", "Sheet", "to_png"]

METADATA = "zeroshift"
"""Keyword of the text in a PNG file with the settings of a picture."""
MAX_SAMPLES = 16


@dataclass(frozen=True)
class Picture:
    """One picture with what it needs to be drawn again.

    Attributes:
        image: the image; its `info` holds the settings, which a PNG file keeps.
        label: what it shows.
        command: the command that draws it again.
    """

    image: Image.Image
    label: str
    command: str


@dataclass(frozen=True)
class Sheet:
    """Pictures of one drawing.

    Attributes:
        columns: for each column (source, runs or mixture, truth) the pictures of all samples.
        num_styles: rows of codes that can be mixed; 0: none.
    """

    columns: list[list[Picture]]
    num_styles: int

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, sample by sample."""
        return [picture for row in zip(*self.columns, strict=True) for picture in row]

    @property
    def nbytes(self) -> int:
        """Size of the pixels, in bytes."""
        return sum(3 * picture.image.width * picture.image.height for column in self.columns for picture in column)


class Explorer:
    """Draws samples of runs."""

    def __init__(self, workspace: Workspace, models: ModelCache):
        self._workspace, self._models = workspace, models

    def draw(self, names: Sequence[str], drawing: Drawing, *, generator: str = "", truth: bool = False) -> Sheet:
        """The pictures of finished runs, or of a generator alone.

        Args:
            names: runs of one source; if there is none, `generator` is drawn.
            truth: also show the true images of the targets, where they are known.

        Raises:
            ZeroshiftError: runs that are not finished or do not fit together, or invalid settings.
        """
        if len(drawing.samples) > MAX_SAMPLES:
            raise ZeroshiftError(f"At most {MAX_SAMPLES} pictures are drawn at once.")
        runs = self._workspace.finished(names)
        if not runs:
            self._workspace.require_generator(generator)
        renderer, lock = self._models.renderer(runs, generator)
        with lock:
            images = renderer(drawing)
            true = _true_images(runs, renderer, drawing) if truth else {}
        labels = _labels(runs, drawing)
        places = [str(run.path) for run in runs] or [generator]
        columns = [_column(column, labels[number], places, drawing, number) for number, column in enumerate(images)] + [
            _column(column, f"truth: {target}", places, drawing, None) for target, column in true.items()
        ]
        return Sheet(columns, renderer.num_styles)


def to_png(picture: Picture) -> bytes:
    """A picture as a PNG file with its settings."""
    from PIL.PngImagePlugin import PngInfo

    metadata, buffer = PngInfo(), io.BytesIO()
    metadata.add_itxt(METADATA, picture.image.info[METADATA])
    picture.image.save(buffer, "PNG", pnginfo=metadata)
    return buffer.getvalue()


def _labels(runs: Sequence[RunFolder], drawing: Drawing) -> list[str]:
    """What each column shows."""
    if not runs:
        return ["source"]
    targets = [run.config.target for run in runs]
    if drawing.mix is not None:
        parts = [f"{share:.0%} {target}" for share, target in zip(drawing.mix, targets, strict=True)]
        targets = [" + ".join(parts)]
    return [runs[0].config.source, *targets]


def _column(images: Tensor, label: str, places: Sequence[str], drawing: Drawing, number: int | None) -> list[Picture]:
    """The pictures of a column; number None: the truth, which the renderer of the miniature world draws."""
    pictures = []
    for sample, image in zip(drawing.samples, as_pil(images), strict=True):
        single = replace(drawing, samples=(sample,))
        command = "" if number is None else drawing_command(places, single, number, "picture.png")
        image.info[METADATA] = json.dumps({"command": command, "runs": list(places), "shows": label, **asdict(single)})
        pictures.append(Picture(image, label, command))
    return pictures


def _true_images(runs: Sequence[RunFolder], renderer: Renderer, drawing: Drawing) -> dict[str, Tensor]:
    """The true images of each target, where they are known: for whole samples without truncation or mixing."""
    if drawing.style_seed is not None or drawing.walk_seed is not None:
        return {}
    found = {}
    for run in runs:
        truth = load_truth(find_entry(run.source))
        if truth is not None:
            latents = renderer.source.sample_latents(drawing.seed, drawing.samples)
            images = truth.images(run.config.target, latents)
            if images is not None:
                found[run.config.target] = torch.as_tensor(images).cpu()
    return found
