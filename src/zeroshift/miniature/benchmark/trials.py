"""Methods x targets x seeds in the miniature world, where the truth is known and the judge never guided anything.

A cell is one adaptation. It leaves a sheet of the exam's people (.png) and its measures (.json) in
OUT/cells/TARGET/ROW, named by the seed and by a hash of what they were made with, settings and weights: a second call
makes only what is missing, and one with other settings takes nothing away. Code has no part in the hash; who changes
what a method does takes another folder. The pictures are kept because measuring is cheap: with another judge, nothing
is adapted anew. The JSON of a page holds the measures too, without pictures: a benchmark can go on from it on another
machine, as long as nobody measures otherwise.
"""

import functools
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from zeroshift.config.settings import AdaptConfig, changed, flat, preset
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.catalogue import EMBEDDED
from zeroshift.io.atomic import atomic_write
from zeroshift.miniature.benchmark.bounds import BOUNDS, Draw
from zeroshift.miniature.networks.encoders import weights_folder
from zeroshift.miniature.world.domains import SOURCE, parse_domain
from zeroshift.miniature.world.renderer import render, sample_latents

__all__ = [
    "EXAM_SEED", "FITTED", "ROWS", "SOURCES", "TARGETS", "Cell", "Plan", "Row", "cores", "finished", "known_cell",
    "machine", "missing", "parse_changes", "parse_row", "read_cell", "read_known", "read_people", "run", "slug",
]  # fmt: skip

EXAM_SEED = 1_000_003  # of people whom neither training nor adaptation saw
_COLUMNS = 16  # of a sheet of people

Key = tuple[str, str, int]  # row, target, seed
Make = Callable[["Plan", "Cell"], str | None]


@dataclass(frozen=True)
class Row:
    """One way to adapt: what differs from the generator's preset, by dotted name, and the generator it moves."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    generator: str = "miniature"


ROWS: tuple[Row, ...] = (
    Row("nada", {"method": "nada"}),
    Row("ipl", {"method": "ipl"}),
    Row("ipl-label", {"method": "ipl", "prompts.base_text": "label"}),
    Row("ipl-published", {"method": "ipl", "prompts.base_text": "published"}),
    Row("air", {"method": "air"}),
    Row("svl", {"method": "svl"}),
    Row("domain-vector", {"method": "domain-vector"}),
    Row("diffusionclip", {"method": "nada"}, "miniature-diffusion"),
    Row("diff-ipl", {"method": "ipl"}, "miniature-diffusion"),
    Row("diffusionclip-autoencoder", {"method": "nada"}, "miniature-autoencoder"),
    Row("diff-ipl-autoencoder", {"method": "ipl"}, "miniature-autoencoder"),
)
# Each generator as it is: where doing nothing stands.
SOURCES = {
    "miniature": Row("source"),
    "miniature-diffusion": Row("source-diffusion", generator="miniature-diffusion"),
    "miniature-autoencoder": Row("source-autoencoder", generator="miniature-autoencoder"),
}
# Each fitted to the true images: what it can draw at all.
FITTED = {
    "miniature": Row("fitted"),
    "miniature-diffusion": Row("fitted-diffusion", generator="miniature-diffusion"),
    "miniature-autoencoder": Row("fitted-autoencoder", generator="miniature-autoencoder"),
}
# Media and beings by themselves, then pairs; the encoders never saw those of `domains.KEPT_OUT`.
TARGETS = (
    "zombie", "alien", "robot", "clown", "elf", "pencil sketch", "cartoon", "marble statue", "neon sign",
    "mosaic of a robot", "pencil sketch of a zombie", "watercolor of a zombie", "cartoon of a robot",
)  # fmt: skip


def parse_row(text: str) -> Row:
    """A row by its name, optionally with changes: "ipl:prompts.domain_weight=2,adapt.augmentations=0".

    Raises:
        ZeroshiftError: if there is no such row, or a change is none.
    """
    name, _, listed = text.partition(":")
    rows = {row.name: row for row in ROWS}
    if name not in rows:
        raise ZeroshiftError(f"The benchmark has no method {name!r}. Its methods are: {', '.join(rows)}.")
    row = rows[name]
    changes = re.split(r",(?=[\w.-]+=)", listed) if listed else []  # a list's own commas part no changes
    return Row(text, {**row.changes, **parse_changes(changes)}, row.generator)


def parse_changes(texts: Iterable[str]) -> dict[str, Any]:
    """{"adapt.lr": 0.005} from "adapt.lr=0.005"; a value is JSON, or else a text.

    Raises:
        ZeroshiftError: for a text without "=".
    """
    changes: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ZeroshiftError(f"{text!r} changes no setting. Write NAME=VALUE, such as adapt.lr=0.005.")
        try:
            read = json.loads(value)
        except json.JSONDecodeError:
            read = value.strip()
        changes[name.strip().replace("-", "_")] = tuple(read) if isinstance(read, list) else read
    return changes


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Cell:
    """One row, target and seed."""

    row: Row
    target: str
    seed: int

    def config(self, changes: Mapping[str, Any]) -> AdaptConfig:
        """The settings of the adaptation, with changes that hold for the whole benchmark."""
        start = preset(
            "miniature" if self.row.generator == "miniature" else "miniature-diffusion", self.target,
            method=self.row.changes.get("method", AdaptConfig.method), generator=self.row.generator, seed=self.seed,
            device="cpu",
        )  # fmt: skip
        return changed(changed(start, changes), self.row.changes).validate()

    @property
    def key(self) -> Key:
        """What tells it from other cells."""
        return self.row.name, self.target, self.seed


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        out: folder of the cells.
        rows, targets, seeds: all combinations of them; the rows of BOUNDS have the first seed alone.
        people: in the exam of every cell, the same for all.
        changes: settings that differ in every row.
        fit_steps: of the upper bound.
        processes: cells at a time.
        known: records of `read_known`, which count as made if they were made and measured as these would be.
    """

    out: Path
    rows: tuple[Row, ...]
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    people: int = 512
    changes: Mapping[str, Any] = field(default_factory=dict)
    fit_steps: int = 300
    processes: int = 1
    known: Mapping[Key, Mapping[str, Any]] = field(default_factory=dict)

    def validate(self) -> "Plan":
        """This plan, if all of its cells can be made.

        Raises:
            ZeroshiftError: naming what cannot.
        """
        if not (self.rows and self.targets and self.seeds):
            raise ZeroshiftError("A benchmark needs at least one method, one target and one seed.")
        for values in ([row.name for row in self.rows], self.targets, self.seeds):
            if len(set(values)) < len(values):
                raise ZeroshiftError(f"Something is named twice: {', '.join(map(str, values))}.")
        if self.people < 16 or self.processes < 1 or self.fit_steps < 0:
            raise ZeroshiftError("A benchmark needs at least 16 people, one process, and no negative number of steps.")
        for target in self.targets:
            if parse_domain(target) == SOURCE:
                raise ZeroshiftError(f"{target!r} is the source domain. Name another target.")
        for cell in self.cells():
            if cell.row.name not in BOUNDS:
                cell.config(self.changes)
        return self

    def cells(self) -> list[Cell]:
        """Seed by seed, so that a benchmark that is stopped has compared whole sets."""
        return [
            Cell(row, target, seed)
            for seed in self.seeds
            for target in self.targets
            for row in self.rows
            if row.name not in BOUNDS or seed == self.seeds[0]
        ]

    def made_with(self, cell: Cell) -> dict[str, Any]:
        """What the pictures of a cell depend on: settings that differ from the program's, people, weights."""
        facts: dict[str, Any] = {"people": self.people, "generator": _fingerprint(EMBEDDED[cell.row.generator][1])}
        plain, given = flat(AdaptConfig(target="")), flat(cell.config(self.changes))
        settings = {name: value for name, value in given.items() if name not in plain or value != plain[name]}
        if cell.row.name in BOUNDS:
            if cell.row.generator != "miniature":  # the others do not sample
                facts["settings"] = {name: value for name, value in settings.items() if name.startswith("diffusion.")}
            return {**facts, **({"steps": self.fit_steps, "seed": cell.seed} if cell.row in FITTED.values() else {})}
        return {**facts, "guide": _fingerprint("guide.safetensors"), "settings": settings}

    def path(self, cell: Cell) -> Path:
        """Of its measures; its pictures have the suffix .png."""
        made = hashlib.sha256(json.dumps(self.made_with(cell), sort_keys=True).encode()).hexdigest()[:8]
        return self.out / "cells" / slug(cell.target) / slug(cell.row.name) / f"seed{cell.seed}-{made}.json"


def slug(text: str) -> str:
    """A text in letters that every file system and web page takes."""
    return re.sub(r"[^\w.=]+", "-", text).strip("-.")


@functools.cache
def _fingerprint(name: str) -> str:
    """Tells the shipped weights of a model, a file or a folder, from other ones.

    Raises:
        ZeroshiftError: if they are not there.
    """
    path = weights_folder() / name
    files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
    if not files or not path.exists():
        raise ZeroshiftError(f"The miniature world's {name} is not there: {path}. Train it: zeroshift miniature train.")
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def _judges() -> dict[str, str]:
    return {name: _fingerprint(f"{name}.safetensors") for name in ("judge", "probe")}


def machine() -> str:
    """The processor and the library that it all runs on."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        processor = facts["model name"]  # a virtual one may tell its maker alone, in every generation of processors
        processor += f" (family {facts['cpu family']}, model {facts['model']})"
    except (OSError, KeyError):
        pass
    return f"{processor}, PyTorch {torch.__version__.partition('+')[0]}"


def read_known(path: Path) -> dict[Key, dict[str, Any]]:
    """The records in the JSON of a page.

    Raises:
        ZeroshiftError: if it is missing or no such file.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return {(cell["row"], cell["target"], cell["seed"]): cell for cell in cells}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ZeroshiftError(f"{path} cannot be read as the JSON of a benchmark's page ({error}).") from error


def read_cell(plan: Plan, cell: Cell) -> Mapping[str, Any] | None:
    """The record of a cell: how it was made, what that took, its "measures"; or None.

    None if the cell has not been made with just these settings and weights, or was measured by another judge.
    """
    found = _record(plan, cell)
    return found if found and found.get("judged_by") == _judges() else known_cell(plan, cell)


def known_cell(plan: Plan, cell: Cell) -> Mapping[str, Any] | None:
    """`read_cell`, of those cells alone that were known before."""
    found = plan.known.get(cell.key)
    if not found or found.get("judged_by") != _judges():
        return None
    return found if found.get("made_with") == json.loads(json.dumps(plan.made_with(cell))) else None


def _record(plan: Plan, cell: Cell) -> dict[str, Any] | None:
    """What lies in the folder of a cell, however it was judged."""
    path = plan.path(cell)
    if not path.exists() or not path.with_suffix(".png").exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ZeroshiftError(f"{path} is damaged ({error}). Delete it, and run the benchmark again.") from error


def read_people(path: Path, count: int) -> Tensor:
    """The first `count` images [count, 3, 64, 64] in [-1, 1] of a sheet of people."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as sheet:
        pixels = torch.from_numpy(np.array(sheet.convert("RGB")))
    size = pixels.shape[1] // _COLUMNS
    tiles = pixels.unflatten(0, (-1, size)).unflatten(2, (-1, size))  # [rows, size, columns, size, 3]
    return tiles.permute(0, 2, 4, 1, 3).flatten(0, 1)[:count].float() / 127.5 - 1


def missing(plan: Plan) -> list[Cell]:
    """The cells that are still to be made."""
    return [cell for cell in plan.cells() if read_cell(plan, cell) is None]


def run(plan: Plan, cells: Sequence[Cell], make: Make | None = None) -> Iterator[tuple[Cell, str | None]]:
    """Makes cells and yields each when it is done, with what went wrong, or None.

    Every cell has a process of its own, so that its peak memory is its own and it fails alone, even if it is killed.

    Args:
        make: what makes a cell (here for tests); says what went wrong, or None.
    """
    context: Any = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    context.set_forkserver_preload(
        ["zeroshift.training.trainer", "zeroshift.miniature.exams.truth"]
    )  # imported once, not by every cell
    waiting = list(reversed(cells))
    running: dict[int, tuple[Cell, Any, Connection]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < plan.processes:
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(there, make or _make, plan, waiting[-1]), daemon=True)
                process.start()
                there.close()
                running[process.sentinel] = (waiting.pop(), process, here)
            for ended in cast(list[int], multiprocessing.connection.wait(list(running))):
                cell, process, here = running.pop(ended)
                process.join()
                told = here.poll() and process.exitcode == 0
                yield cell, here.recv() if told else f"its process ended with {process.exitcode}, out of memory?"
    finally:
        for _, process, _ in running.values():
            process.terminate()


def _work(told: Connection, make: Make, plan: Plan, cell: Cell) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of us; the first process ends the others
    told.send(make(plan, cell))


def _make(plan: Plan, cell: Cell) -> str | None:
    """Adapts, unless the pictures are there, and measures."""
    torch.set_num_threads(max(1, cores() // plan.processes))
    try:
        record = _record(plan, cell)
        if record is None:
            record = _adapt(plan, cell)
            _write(plan, cell, record)
        _write(plan, cell, {**record, "judged_by": _judges(), "measures": _measure(plan, cell)})
    except ZeroshiftError as error:
        return str(error)
    except Exception as error:  # whatever it is, the other cells go on
        return f"{type(error).__name__}: {error}"
    return None


def _write(plan: Plan, cell: Cell, record: Mapping[str, Any]) -> None:
    with atomic_write(plan.path(cell)) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _adapt(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Adapts, draws the people of the exam, and says what it took."""
    import resource

    from zeroshift.generators.checkpoints.files import load_generator
    from zeroshift.io.images import make_grid, save_png
    from zeroshift.training.trainer import adapt

    source = load_generator(cell.row.generator)
    source.set_sampling(cell.config(plan.changes).diffusion)
    began, busy = time.perf_counter(), time.process_time()
    draw: Draw
    if cell.row.name in BOUNDS:
        draw = BOUNDS[cell.row.name](source, parse_domain(cell.target), cell.seed, plan.fit_steps)
    else:
        draw = adapt(cell.config(plan.changes), generator=source).generator.eval()
    took = {"seconds": time.perf_counter() - began, "processor_seconds": time.process_time() - busy}
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    images = _people(plan, cell, source, draw)
    path = plan.path(cell)
    save_png(path.with_suffix(".png"), make_grid(images, _COLUMNS, gap=0))
    names = {"row": cell.row.name, "target": cell.target, "seed": cell.seed}
    return {**names, "made_with": plan.made_with(cell), "machine": machine(), **took, "memory": memory}


@torch.inference_mode()
def _people(plan: Plan, cell: Cell, source: Generator, draw: Draw) -> Tensor:
    """The people of the exam as `draw` shows them: [N, 3, 64, 64].

    The world's latents are the GAN's own. A diffusion model knows people by their photos: the source inverts them, and
    `draw` goes on from there, in as many steps.
    """
    latents = sample_latents(EXAM_SEED, range(plan.people))
    if cell.row.generator == "miniature":
        return torch.cat([draw(part) for part in latents.split(32)])
    from zeroshift.sampling.inversion import invert

    codes = invert(source, render(latents), plan.out / "inversions")
    assert isinstance(draw, Generator)
    sampling = cell.config(plan.changes).diffusion
    draw.set_sampling(replace(sampling, steps=sampling.invert_steps))
    return torch.cat([draw.synthesize(part) for part in codes.split(32)])


def _measure(plan: Plan, cell: Cell) -> dict[str, float]:
    from zeroshift.miniature.exams.truth import TruthExam
    from zeroshift.miniature.networks.encoders import load_judge, load_probe

    latents = sample_latents(EXAM_SEED, range(plan.people))
    images = read_people(plan.path(cell).with_suffix(".png"), plan.people)
    return TruthExam.make(parse_domain(cell.target), latents, load_judge(), load_probe()).measure(images)


def finished(plan: Plan) -> Sequence[Mapping[str, Any]]:
    """The records of all cells that are done."""
    return [record for cell in plan.cells() if (record := read_cell(plan, cell)) is not None]
