"""Inverts photos by the means of a generator: its own inversion, or an encoder, optimization and pivotal tuning."""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.core.finite import is_finite
from zeroshift.errors import NotFiniteError, ZeroshiftError
from zeroshift.generators.base import Codes, Generator, StyleSpace
from zeroshift.inversion.codes import add_weights, generator_hash, generator_identity, invert
from zeroshift.inversion.distance import Distance, load_distance
from zeroshift.inversion.encoders import InversionEncoder
from zeroshift.inversion.inverted import Inverted, render
from zeroshift.inversion.options import InversionOptions
from zeroshift.inversion.pivotal import tune
from zeroshift.inversion.projection import project
from zeroshift.io.downloads import cache_folder

__all__ = ["InversionProgress", "Inverter"]

_BATCH_SIZE = 4


@dataclass(frozen=True)
class InversionProgress:
    """The state of an inversion, after a step.

    Attributes:
        stage: "optimize" (codes), "tune" (weights) or "done". Generators with an inversion of their own have only the
            last.
        photos: numbers of the photos in work.
        step, steps: the number of the step, from 1, and of all steps of this stage.
        images: [len(photos), 3, R, R], the current reconstructions; None when done.
    """

    stage: Literal["optimize", "tune", "done"]
    photos: Sequence[int]
    step: int
    steps: int
    images: Tensor | None


def _silent(progress: InversionProgress) -> None:
    pass


class Inverter:
    """Inverts photos into one generator. Finished ones are kept in a cache, so an interrupted inversion continues.

    Attributes:
        batch_size: number of photos that are optimized together.

    Args:
        generator: the source generator, on its device.
        options: how to invert into a StyleGAN. Generators with an inversion of their own, such as diffusion models,
            hold their options themselves.
        encoder: an encoder for this generator; its codes are the start of the optimization.
        cache: folder of finished inversions. Default: "inversions" in the cache folder.
    Raises:
        ZeroshiftError: invalid options; an encoder for another generator; or a generator that can invert no images.
    """

    def __init__(
        self,
        generator: Generator,
        options: InversionOptions | None = None,
        encoder: InversionEncoder | None = None,
        cache: Path | None = None,
    ):
        self.generator, self.batch_size = generator, _BATCH_SIZE
        self.options = (options or InversionOptions()).validate()
        self.encoder = None if encoder is None else encoder.to(generator.device)
        self._cache = cache_folder() / "inversions" if cache is None else cache
        self.space: StyleSpace | None = generator.style_space()
        if self.space is None and encoder is not None:
            raise ZeroshiftError(f"A {generator.architecture} generator has its own inversion. Leave the encoder out.")
        if self.encoder is not None:
            self.encoder.require_fit(generator)

    @cached_property
    def distance(self) -> Distance:
        """The distance that is minimized."""
        return load_distance(self.options.distance, self.generator.device)

    def __call__(self, photos: Tensor, progress: Callable[[InversionProgress], None] = _silent) -> list[Inverted]:
        """The inverted photos, on the device of the generator.

        Args:
            photos: [N, 3, R, R] in [-1, 1] on the CPU, R the resolution of the generator.
            progress: called after each step.
        Raises:
            ZeroshiftError: photos of another size, or an inversion that gives values that are not finite numbers.
        """
        size = self.generator.resolution
        if photos.ndim != 4 or photos.shape[1:] != (3, size, size):
            raise ZeroshiftError(f"Photos must be [N, 3, {size}, {size}], not {list(photos.shape)}.")
        if self.space is None:
            return self._own_inversion(photos, progress)
        settings = [self._settings(tuned) for tuned in (False, True)]
        found = [[self._read(photo, one) for one in settings] for photo in photos]
        missing = [number for number, (codes, tuned) in enumerate(found) if codes is None and tuned is None]
        for first in range(0, len(missing), self.batch_size):
            numbers = missing[first : first + self.batch_size]
            for number, one in zip(numbers, self._project(photos[numbers], numbers, progress), strict=True):
                found[number][0] = one
                self._keep(photos[number], settings[0], one)
        results = []
        for number, (pivot, tuned) in enumerate(found):
            if tuned is None:
                assert pivot is not None
                tuned = pivot
                if self.options.tuning_steps:
                    tuned = self._tune(photos[number], pivot, number, progress)
                    self._keep(photos[number], settings[1], tuned)
            results.append(tuned.to(self.generator.device))
            progress(InversionProgress("done", [number], number + 1, len(photos), None))
        return results

    @torch.no_grad()
    def reconstruct(self, inverted: Inverted) -> Tensor:
        """What the source generator draws of an inverted photo: [3, R, R] on the CPU."""
        inverted = inverted.to(self.generator.device)
        return render(self.generator, inverted.codes[None], inverted.changes)[0].float().cpu()

    def _own_inversion(self, photos: Tensor, progress: Callable[[InversionProgress], None]) -> list[Inverted]:
        def done(count: int, total: int) -> None:
            progress(InversionProgress("done", [count - 1], count, total, None))

        with torch.no_grad():
            codes = invert(self.generator, photos, self._cache, done)
        record = {"inversion": self.generator.architecture, "generator": self.identity}
        return [Inverted(one, {}, record) for one in codes]

    def _project(
        self, photos: Tensor, numbers: Sequence[int], progress: Callable[[InversionProgress], None]
    ) -> list[Inverted]:
        """Codes and noise maps of a batch of photos."""
        assert self.space is not None
        photos = photos.to(self.generator.device)
        start: Codes | None = None
        if self.encoder is not None:
            with torch.no_grad():
                start = self.encoder(photos, self.generator)

        def step_done(step: int, images: Tensor) -> None:
            progress(InversionProgress("optimize", numbers, step, self.options.steps, images))

        codes, changes = project(
            self.generator, self.space, photos, self.distance, self.options, start=start, step_done=step_done
        )
        return [
            self._result(photo[None], one, each, tuned=False)
            for photo, one, each in zip(photos, codes, _split(changes, len(photos)), strict=True)
        ]

    def _tune(
        self, photo: Tensor, pivot: Inverted, number: int, progress: Callable[[InversionProgress], None]
    ) -> Inverted:
        """Pivotal tuning of one photo."""
        pivot, photo = pivot.to(self.generator.device), photo[None].to(self.generator.device)

        def step_done(step: int, images: Tensor) -> None:
            progress(InversionProgress("tune", [number], step, self.options.tuning_steps, images))

        changes = tune(
            self.generator, photo, pivot.codes[None], pivot.changes, self.distance, self.options, step_done=step_done
        )
        return self._result(photo, pivot.codes, changes, tuned=True)

    def _result(self, photo: Tensor, codes: Codes, changes: Mapping[str, Tensor], *, tuned: bool) -> Inverted:
        """The inverted photo [1, 3, R, R], with the quality of its reconstruction in the record.

        Raises:
            NotFiniteError: if it holds values that are not finite numbers.
        """
        with torch.no_grad():
            image = render(self.generator, codes[None], changes).clamp(-1, 1)
        if not all(map(is_finite, (codes, image, *changes.values()))):
            raise NotFiniteError(
                "The inversion gave values that are not finite numbers. Lower the learning rates, or choose another "
                "generator."
            )
        psnr = 10 * torch.log10(4 / F.mse_loss(image, photo).clamp(min=1e-10)).item()
        return Inverted(
            codes, dict(changes), {**self._settings(tuned), "generator": self.identity, "psnr": round(psnr, 2)}
        )

    def _settings(self, tuned: bool) -> dict[str, Any]:
        """What a result depends on, besides the photo and the generator; JSON-able."""
        options = self.options if tuned else replace(self.options, tuning_steps=0)
        values = {**asdict(options), "distance": self.distance.name}
        if not options.tuning_steps:
            values = {name: value for name, value in values.items() if not name.startswith("tuning_")}
        return {"inversion": "stylegan", **values, "encoder": None if self.encoder is None else self.encoder.name}

    @cached_property
    def identity(self) -> str:
        """What the codes of inverted photos belong to, see `generator_identity`."""
        return generator_identity(self.generator)

    @cached_property
    def _common(self) -> "hashlib._Hash":
        """The hash of the generator and the encoder."""
        common = generator_hash(self.generator)
        if self.encoder is not None:
            add_weights(common, self.encoder)
        return common

    def _file(self, photo: Tensor, settings: Mapping[str, Any]) -> Path:
        key = self._common.copy()
        key.update(json.dumps(dict(settings), sort_keys=True).encode())
        key.update(photo.contiguous().numpy().data)
        return self._cache / f"{key.hexdigest()[:32]}.safetensors"

    def _read(self, photo: Tensor, settings: Mapping[str, Any]) -> Inverted | None:
        """The result in the cache; None if there is none, or if it is damaged."""
        try:
            return Inverted.load(self._file(photo, settings))
        except ZeroshiftError:
            return None

    def _keep(self, photo: Tensor, settings: Mapping[str, Any], result: Inverted) -> None:
        """Writes a result into the cache, or warns that this fails."""
        try:
            result.save(self._file(photo, settings))
        except ZeroshiftError as error:
            warnings.warn(f"{error} The inverted photos are used, but not kept for later runs.", stacklevel=3)


def _split(changes: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """The changes of noise maps of each photo: [R, R] each."""
    return [{name: value[index, 0] for name, value in changes.items()} for index in range(count)]
