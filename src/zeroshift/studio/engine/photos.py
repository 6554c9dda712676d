"""Photos of the photo tab: received, cut, inverted, and drawn in the domains of runs."""

import contextlib
import json
import math
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from zeroshift.api.photos import result_shares
from zeroshift.api.pictures import as_pil
from zeroshift.errors import ZeroshiftError
from zeroshift.inversion.crops import Crop
from zeroshift.inversion.faces import can_find_faces, photo_crops
from zeroshift.inversion.inverted import Inverted
from zeroshift.inversion.inverter import InversionProgress
from zeroshift.inversion.portraits import alignment, make_inverter
from zeroshift.inversion.translate import Translator
from zeroshift.io.image_files import ImageReader
from zeroshift.io.images import to_uint8
from zeroshift.studio.engine.cache import ModelCache
from zeroshift.studio.engine.explorer import METADATA, Picture
from zeroshift.studio.engine.jobs import FunctionJob
from zeroshift.studio.engine.queue import JobQueue
from zeroshift.studio.engine.sessions import Session
from zeroshift.studio.engine.workspace import Workspace
from zeroshift.training.run_folder import RunFolder

__all__ = ["MAX_BYTES", "StudioPhotos"]

MAX_BYTES = 20 * 2**20
_MAX_PIXELS = 24_000_000
_SHOWN_SIDE = 512  # pixels of the longer side of the photo that is shown
_STAGES = {"optimize": "Looking for the person", "tune": "Adapting the generator to the photo", "done": "Finished"}


class StudioPhotos:
    """Photos of the open pages.

    Attributes:
        steps, tune_steps: steps of the inversion, see `make_inverter`; None: its defaults.

    Args:
        uploads: the folder in which the server puts uploaded files; no other file is read.
        work: a folder for files of running inversions.
    """

    def __init__(self, workspace: Workspace, models: ModelCache, queue: JobQueue, uploads: Path, work: Path):
        self._workspace, self._models, self._queue = workspace, models, queue
        self._uploads, self._work = uploads, work
        self.steps: int | None = None
        self.tune_steps: int | None = None

    def receive(self, session: Session, path: str, name: str) -> None:
        """Reads an uploaded file into a session, and removes the file, also if it is no photo.

        Raises:
            ZeroshiftError: a file outside the upload folder, one that is no image, or too large.
        """
        file = Path(path).resolve()
        if not file.is_relative_to(self._uploads.resolve()) or not file.is_file():
            raise ZeroshiftError("This is no uploaded file. Choose the photo again.")
        shown = Path(name).name[:80] or "photo"
        try:
            if file.stat().st_size > MAX_BYTES:
                raise ZeroshiftError(f"{shown} is larger than {MAX_BYTES >> 20} MB. Reduce it first.")
            session.set_photo(self._read(file, shown), shown)
            self.cancel(session)
        finally:
            file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                file.parent.rmdir()

    def cancel(self, session: Session) -> None:
        """Stops the inversion of a page, if one runs or waits."""
        for job in self._queue.jobs:
            if job.id == session.job:
                self._queue.stop(job)

    def _read(self, file: Path, shown: str) -> Tensor:
        size = (0, 0)
        with contextlib.suppress(Exception), Image.open(file) as image:  # of damaged files the reader says more
            size = image.size
        if size[0] * size[1] > _MAX_PIXELS:
            raise ZeroshiftError(
                f"{shown} has {size[0]} x {size[1]} pixels; at most {_MAX_PIXELS // 1_000_000} million are read. "
                "Reduce it first."
            )
        reader = ImageReader()  # what it leaves out of a photo, such as transparency, is visible on the page
        try:
            photo = reader.read(file)
        except ZeroshiftError as error:
            raise ZeroshiftError(str(error).replace(str(file), shown)) from error
        return torch.from_numpy(to_uint8(photo[None])[0]).permute(2, 0, 1)  # a quarter of the memory

    def align(self, session: Session, mode: str, left: float = 0, top: float = 0, side: float = 0) -> None:
        """Chooses the part of the photo.

        Args:
            mode: "face", "middle" or "square".
            left, top, side: the square, in percent: of width, height, and of the shorter side.

        Raises:
            ZeroshiftError: if no face is found, or the square does not fit the photo.
        """
        photo = session.require_photo()
        if mode == "square":
            height, width = photo.shape[-2:]
            pixels = (left * width / 100, top * height / 100, side * min(height, width) / 100)
            align = ",".join(f"{value:.1f}" for value in pixels)
        else:
            align = {"face": "auto", "middle": "none"}.get(mode, mode)
        try:
            photo_crops(_floats(photo), align)
        except ZeroshiftError as error:
            if mode == "face":
                raise ZeroshiftError(
                    'No face was found in this photo. Choose "The middle" or "A square of my choice".'
                ) from error
            raise
        session.align = align

    def can_find_faces(self) -> bool:
        """Whether faces can be found."""
        return can_find_faces()

    def default_mode(self, source: str) -> str:
        """How photos are aligned for a source generator: "face" or "middle"."""
        return "face" if alignment(None, source, photos=False) == "auto" and can_find_faces() else "middle"

    def square(self, session: Session) -> tuple[float, float, float]:
        """The part of the photo as in `align`: left, top, side in percent."""
        photo, crop = session.require_photo(), self._crop(session)
        height, width = photo.shape[-2:]
        left, top = crop.center[0] - crop.side / 2, crop.center[1] - crop.side / 2
        return 100 * left / width, 100 * top / height, 100 * crop.side / min(height, width)

    def views(self, session: Session) -> tuple[Image.Image, Image.Image]:
        """The photo with its square outlined, and the square alone."""
        photo = session.require_photo()
        crop = self._crop(session)
        image = ImageOps.contain(Image.fromarray(photo.permute(1, 2, 0).numpy()), (_SHOWN_SIDE, _SHOWN_SIDE))
        scale = image.width / photo.shape[-1]
        (cx, cy), (ax, ay) = crop.center, crop.axis
        corners = [(cx + u * ax - v * ay, cy + u * ay + v * ax) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        points = [(x * scale, y * scale) for x, y in corners]
        draw = ImageDraw.Draw(image)
        for color, line in (("black", 5), ("white", 2)):
            draw.line([*points, points[0]], fill=color, width=line)
        return image, as_pil(crop.cut(_floats(photo), _SHOWN_SIDE // 2)[None])[0]

    def _crop(self, session: Session) -> Crop:
        return photo_crops(_floats(session.require_photo()), session.align)[0]

    def inverted(self, session: Session, runs: Sequence[RunFolder]) -> Inverted | None:
        """The photo in the source generator of runs, if that is done."""
        return session.inverted.get((runs[0].source, session.align))

    def invert(self, session: Session, names: Sequence[str]) -> FunctionJob:
        """Adds the inversion of the photo into the source generator of runs to the queue.

        Raises:
            ZeroshiftError: if there is no photo or no run, or the queue is full.
        """
        if not names:
            raise ZeroshiftError("Choose one or more runs: the domains to show the photo in.")
        runs = self._workspace.finished(names)
        photo, crop, key = session.require_photo(), self._crop(session), (runs[0].source, session.align)

        def work(job: FunctionJob) -> None:
            session.keep_inverted(photo, key, self._inverted(runs, photo, crop, job))

        job = FunctionJob(title=f"Photo into {runs[0].config.generator}", kind="invert", function=work)
        session.job = job.id
        self._queue.add(job)
        return job

    def _inverted(self, runs: Sequence[RunFolder], photo: Tensor, crop: Crop, job: FunctionJob) -> Inverted:
        def report(progress: InversionProgress) -> None:
            shown = None if progress.images is None else as_pil(progress.images[:1])[0]
            job.report(progress.step, progress.steps, _STAGES[progress.stage], shown)

        source, _ = self._models.for_photos(runs)
        self._work.mkdir(parents=True, exist_ok=True)
        cache = Path(tempfile.mkdtemp(dir=self._work))  # photos of visitors stay in no cache
        try:
            inverter = make_inverter(source, runs[0].source, steps=self.steps, tune_steps=self.tune_steps, cache=cache)
            (inverted,) = inverter(crop.cut(_floats(photo), source.resolution)[None], report)
            return inverted.to("cpu")
        finally:
            shutil.rmtree(cache, ignore_errors=True)

    def results(
        self, session: Session, names: Sequence[str], strength: float, mix: Sequence[float] | None
    ) -> list[Picture]:
        """The inverted photo: as the source draws it, then in the domain of each run, or in their mixture.

        Raises:
            ZeroshiftError: if the photo is not inverted into the source of these runs.
        """
        runs = self._workspace.finished(names)
        inverted = self.inverted(session, runs) if runs else None
        if inverted is None:
            raise ZeroshiftError("This photo is not in the generator of these runs yet. Start the translation.")
        source, targets = self._models.for_photos(runs)
        inverter = make_inverter(source, runs[0].source, encoder="none")
        shares = result_shares(len(runs), strength, mix, separate=mix is None)
        images = [inverter.reconstruct(inverted)[None]]
        images += [Translator(inverter, targets, share).draw(inverted) for share in shares]
        targets_text = [run.config.target for run in runs]
        labels = [f"{runs[0].config.source}, redrawn", *(targets_text if mix is None else [" + ".join(targets_text)])]
        command = _command(runs, session, strength, mix)
        pictures = []
        for label, image in zip(labels, as_pil(torch.cat(images)), strict=True):
            image.info[METADATA] = json.dumps({"command": command, "shows": label, "strength": strength, "mix": mix})
            pictures.append(Picture(image, label, command))
        return pictures


def _command(runs: Sequence[RunFolder], session: Session, strength: float, mix: Sequence[float] | None) -> str:
    photo = f"./{session.name}" if session.name.startswith("-") else session.name
    words = ["zeroshift", "translate", *(str(run.path) for run in runs), photo, "--align", session.align]
    if not math.isclose(strength, 1):
        words += ["--strength", f"{strength:g}"]
    if mix is not None:
        words += ["--mix", ",".join(f"{share:g}" for share in mix)]
    elif len(runs) > 1:
        words.append("--separate")
    return shlex.join(words)


def _floats(photo: Tensor) -> Tensor:
    """An 8-bit photo [3, H, W] as float32 in [-1, 1]."""
    return photo.float() / 127.5 - 1
