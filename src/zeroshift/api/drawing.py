"""Single pictures of runs with every setting that shapes them: `zeroshift.draw`."""

import math
import shlex
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from zeroshift.api.photos import result_shares
from zeroshift.api.runs import Runs, load_generators, open_runs
from zeroshift.core.distributed import Distributed
from zeroshift.core.finite import require_finite_images
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Codes, Generator, blend_weights, style_mix
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.methods.configure import default_config
from zeroshift.sampling.film import latents_between
from zeroshift.sampling.generate import class_labels

__all__ = ["Drawing", "Renderer", "draw", "drawing_command", "load_renderer"]

_KEPT = 8  # source images of the last drawings


@dataclass(frozen=True)
class Drawing:
    """The settings of a picture, besides its runs."""

    seed: int = 0
    """Seed of the latents."""
    samples: tuple[int, ...] = (0,)
    """Numbers of the samples of the seed."""
    truncation_psi: float | None = None
    """1 keeps the full variety of samples, smaller values move them toward the mean; None: the setting of the run."""
    strength: float = 1.0
    """Strength of adaptation: 0 is the source, 1 the target."""
    mix: tuple[float, ...] | None = None
    """One share per run: mixes the runs into one column; None: a column for each run."""
    style_seed: int | None = None
    """Seed of a second set of samples, whose styles the later layers use; None: no style mixing."""
    style_layer: int = 0
    """First row of the codes that comes from `style_seed`."""
    walk_seed: int | None = None
    """Seed of the samples toward which the latents move; None: they do not move."""
    position: float = 0.0
    """Position between the samples of `seed` (0) and those of `walk_seed` (1)."""

    def validate(self) -> None:
        """Checks the values.

        Raises:
            ZeroshiftError: naming the first setting with an invalid value.
        """
        for name in ("seed", "style_seed", "walk_seed", "style_layer"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 2**63:
                raise ZeroshiftError(f"{name} is {value}; it must be a whole number from 0.")
        if not self.samples or min(self.samples) < 0:
            raise ZeroshiftError("Give one or more numbers of samples, from 0.")
        if self.truncation_psi is not None and not 0 < self.truncation_psi < math.inf:
            raise ZeroshiftError(f"truncation_psi is {self.truncation_psi}; it must be positive.")
        if not 0 <= self.position <= 1:
            raise ZeroshiftError(f"position is {self.position}; it must lie between 0 and 1.")


class Renderer:
    """Draws pictures of a source and generators adapted from it.

    Source images, codes and mixed weights are kept, so that a changed setting computes only what depends on it.

    Args:
        source, targets: a generator, and generators adapted from it.
        truncation_psi: where a drawing gives none.
        class_index: class of a class-conditional generator.
    """

    def __init__(
        self, source: Generator, targets: Sequence[Generator], *, truncation_psi: float, class_index: int | None = None
    ):
        self.source, self.targets = source, list(targets)
        self._truncation_psi, self._class_index = truncation_psi, class_index
        self._drawn: OrderedDict[tuple[object, ...], tuple[Codes, Tensor]] = OrderedDict()
        self._mixed: dict[int, tuple[tuple[float, ...], Generator]] = {}  # by column

    @property
    def num_styles(self) -> int:
        """Rows of the codes that can be mixed; 0 if the codes are no styles."""
        space = self.source.style_space()
        return 0 if space is None else space.num_ws

    @torch.inference_mode()
    def __call__(self, drawing: Drawing) -> list[Tensor]:
        """The columns of a drawing, [N, 3, R, R] each on the CPU: source, then each run or their mixture.

        Every sample is drawn alone, so that it does not depend on the others, not even by rounding.

        Raises:
            ZeroshiftError: invalid settings, or images that are not finite numbers.
        """
        drawing.validate()
        shares = self._shares(drawing)
        codes, images = self._source_images(drawing)
        return [images, *(self._column(number, share, codes, images) for number, share in enumerate(shares))]

    def _shares(self, drawing: Drawing) -> list[tuple[float, ...]]:
        """The share of each target in each column."""
        if not self.targets:
            return []
        shares = result_shares(len(self.targets), drawing.strength, drawing.mix, separate=drawing.mix is None)
        return [tuple(share) for share in shares]

    def _source_images(self, drawing: Drawing) -> tuple[Codes, Tensor]:
        psi = self._truncation_psi if drawing.truncation_psi is None else drawing.truncation_psi
        walked = (drawing.walk_seed, drawing.position) if drawing.walk_seed is not None else ()
        styled = (drawing.style_seed, drawing.style_layer) if drawing.style_seed is not None else ()
        key = (drawing.seed, drawing.samples, psi, walked, styled)
        if key not in self._drawn:
            codes = torch.cat([self._codes(drawing, sample, psi) for sample in drawing.samples])
            self._drawn[key] = codes, _draw(self.source, codes)
        self._drawn.move_to_end(key)
        while len(self._drawn) > _KEPT:
            self._drawn.popitem(last=False)
        return self._drawn[key]

    def _codes(self, drawing: Drawing, sample: int, psi: float) -> Codes:
        """The codes [1, ...] of one sample."""
        source = self.source
        latents = source.sample_latents(drawing.seed, [sample])
        if drawing.walk_seed is not None:
            latents = latents_between(latents, source.sample_latents(drawing.walk_seed, [sample]), drawing.position)
        labels = class_labels(source, self._class_index, 1)
        codes = source.codes(latents, labels, truncation_psi=psi)
        if drawing.style_seed is None:
            return codes
        if not self.num_styles:
            raise ZeroshiftError(f"A {source.architecture} generator has no styles to mix. Leave the style seed out.")
        fine = source.codes(source.sample_latents(drawing.style_seed, [sample]), labels, truncation_psi=psi)
        return style_mix(codes, fine, drawing.style_layer)

    def _column(self, number: int, share: tuple[float, ...], codes: Codes, images: Tensor) -> Tensor:
        """The images of one mixture of the targets."""
        used = [index for index, part in enumerate(share) if part]
        if not used:
            return images
        if len(used) == 1 and share[used[0]] == 1:
            return _draw(self.targets[used[0]], codes)
        before, mixed = self._mixed.get(number, ((), None))
        if mixed is None or before != share:
            self._mixed.pop(number, None)
            mixed = blend_weights(self.source, self.targets, share, out=mixed)
            self._mixed[number] = share, mixed
        return _draw(mixed, codes)


def _draw(generator: Generator, codes: Codes) -> Tensor:
    drawn = torch.cat([generator.synthesize(one[None].to(generator.device)).float().cpu() for one in codes])
    require_finite_images(drawn)
    return drawn


def load_renderer(runs: Runs) -> Renderer:
    """The renderer of one or more finished runs of one source, or of a generator alone.

    Args:
        runs: run folders; or the name or file of a generator, if it is no run folder.

    Raises:
        ZeroshiftError: runs that are not finished or have different sources, or a generator that cannot be loaded.
    """
    if isinstance(runs, str | Path) and not (Path(runs) / "config.json").is_file():
        config = default_config(str(runs))
        source = load_generator(runs, device=Distributed(config.device).device)
        if type(config.sampling) is source.Options:
            source.configure(config.sampling)
        return Renderer(source, [], truncation_psi=config.truncation_psi, class_index=config.class_index)
    folders = open_runs(runs)
    source, targets = load_generators(folders)
    config = folders[0].config
    return Renderer(source, targets, truncation_psi=config.truncation_psi, class_index=config.class_index)


def draw(runs: Runs, drawing: Drawing | None = None) -> list[Tensor]:
    """Pictures of one or more runs with every setting that shapes them, as `zeroshift draw` makes them.

    Args:
        runs: run folders of one source; or the name or file of a generator.
        drawing: the settings.

    Returns:
        One tensor [N, 3, R, R] in [-1, 1] per column: the source, then each run, or with `Drawing.mix` their mixture.

    Raises:
        ZeroshiftError: as `load_renderer`, and for invalid settings.

    Examples:
        >>> before, after = draw("runs/zombie", zeroshift.Drawing(seed=3, strength=0.6))
        >>> after.shape
        torch.Size([1, 3, 64, 64])
    """
    return load_renderer(runs)(drawing or Drawing())


def drawing_command(runs: Sequence[str | Path], drawing: Drawing, column: int | None, out: str) -> str:
    """The command that draws a picture again.

    Args:
        runs: run folders, or one generator.
        column: see `zeroshift draw --help`.
        out: file name.
    """
    words = ["zeroshift", "draw", *map(str, runs)]
    for spec in fields(drawing):
        value = getattr(drawing, spec.name)
        if value != spec.default:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [f"--{spec.name.replace('_', '-')}", text]
    if column is not None:
        words += ["--column", str(column)]
    return shlex.join([*words, "--out", out])
