"""Data sets of registered source and target pairs: WebDataset shards, or an image folder with JSON lines.

A pair depends on its number only. Memory does not grow with the number of pairs, and an interrupted data set continues
after the last complete part, with the same bytes as if it had never stopped.
"""

import contextlib
import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.io.atomic import append_record, atomic_write, made_folder
from zeroshift.io.foreign import read_json
from zeroshift.io.images import save_png, to_uint8
from zeroshift.io.leftovers import TEMPORARY_PREFIX
from zeroshift.io.locks import locked_folder
from zeroshift.io.numbering import numbered
from zeroshift.io.outputs import require_writable
from zeroshift.sampling.generate import render_batches

__all__ = ["INDEX", "METADATA", "Describe", "Draw", "Layout", "PairSet", "sampled_pairs", "write_pairs"]

INDEX = "dataset.json"
METADATA = "metadata.jsonl"
_MAX_LATENT = 4096  # numbers; longer latents, of diffusion models, follow from seed and number

Layout = Literal["webdataset", "folder"]
Describe = Callable[[Tensor], Sequence[Mapping[str, Any]] | None]  # latents [N, ...] -> what is known of each sample
Draw = Callable[[range], tuple[Tensor, Tensor, Sequence[Mapping[str, Any]]]]
"""Numbers of pairs -> source and target images [N, 3, R, R] in [-1, 1], and what is known of each pair; JSON-able."""


@dataclass(frozen=True)
class PairSet:
    """What a data set holds.

    Attributes:
        num: number of pairs.
        batch_size: pairs that are drawn together.
        shard_size: pairs per shard, or per part of a folder; a multiple of the batch size.
        layout: "webdataset": pairs-00000000.tar, ...; "folder": source/, target/ and metadata.jsonl.
        described: all that the pairs depend on, such as run and seed; JSON-able.
    """

    num: int
    batch_size: int
    shard_size: int
    layout: Layout
    described: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        """The content of the index: the same settings give the same files. More pairs may be added later."""
        return {
            "command": "zeroshift generate --format pairs", **self.described, "layout": self.layout,
            "batch_size": self.batch_size, "shard_size": self.shard_size,
        }  # fmt: skip


def sampled_pairs(
    generators: Sequence[Generator],
    seed: int,
    truncation_psi: float,
    class_index: int | None = None,
    describe: Describe = lambda latents: None,
) -> Draw:
    """Pairs of the samples of a seed; pair i is sample i.

    Args:
        generators: source and target.
        seed, truncation_psi, class_index: see `generate`.
        describe: what is known of samples, such as factors, by their latents.
    """

    def draw(numbers: range) -> tuple[Tensor, Tensor, list[dict[str, Any]]]:
        latents = generators[0].sample_latents(seed, numbers)
        (images,) = render_batches(
            generators, latents, truncation_psi=truncation_psi, class_index=class_index, batch_size=len(numbers)
        )
        known = describe(latents) or [{}] * len(numbers)
        records = []
        for row, latent in zip(known, latents, strict=True):
            record: dict[str, Any] = {"seed": seed}
            if class_index is not None:
                record["class"] = class_index
            record |= row
            if latent.numel() <= _MAX_LATENT:
                record["latent"] = latent.flatten().tolist()
            records.append(record)
        return images[0], images[1], records

    return draw


def write_pairs(out: Path, draw: Draw, pairs: PairSet) -> Iterator[int]:
    """Writes a data set; yields the number of finished pairs after each batch, and first of those that exist already.

    Args:
        out: a new or empty folder, or one of an earlier call with the same settings.
        draw: makes the pairs, from what `pairs.described` describes.
    Raises:
        ZeroshiftError: a folder of others, with other settings or in use, or files that cannot be written.
    """
    _require_folder(out, pairs)
    write = _write_shard if pairs.layout == "webdataset" else _write_part
    with made_folder(out), locked_folder(out, "writing a data set"):
        _write_index(out, pairs)
        done = _finished(out, pairs)
        if done > pairs.num:
            raise ZeroshiftError(f"{out} holds more than {pairs.num} pairs already. Choose another folder.")
        yield done
        while done < pairs.num:
            last = min(pairs.num, (done // pairs.shard_size + 1) * pairs.shard_size)
            for count in write(out, _samples(draw, pairs, done, last), done):
                yield done + count
            done = last


@dataclass(frozen=True)
class _Sample:
    """One pair: pixels [R, R, 3] and its description."""

    number: int
    source: Any
    target: Any
    record: dict[str, Any]

    @property
    def key(self) -> str:
        return numbered(self.number)


def _samples(draw: Draw, pairs: PairSet, first: int, last: int) -> Iterator[list[_Sample]]:
    """Batches of the pairs first to last - 1."""
    for start in range(first, last, pairs.batch_size):
        numbers = range(start, min(last, start + pairs.batch_size))
        sources, targets, records = draw(numbers)
        yield [
            _Sample(number, source, target, {"number": number, **record})
            for number, source, target, record in zip(
                numbers, to_uint8(sources), to_uint8(targets), records, strict=True
            )
        ]


def _write_shard(out: Path, batches: Iterator[list[_Sample]], first: int) -> Iterator[int]:
    """Writes one shard; yields the number of its pairs so far. It appears when it is complete."""
    count = 0
    with (
        atomic_write(_shard(out, first)) as temporary,
        tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for batch in batches:
            for one in batch:
                record = json.dumps(one.record).encode()
                parts = {"json": record, "source.png": _png(one.source), "target.png": _png(one.target)}
                for ending, content in parts.items():
                    member = tarfile.TarInfo(f"{one.key}.{ending}")  # without times or owners: always the same bytes
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
            count += len(batch)
            yield count


def _png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _write_part(out: Path, batches: Iterator[list[_Sample]], first: int) -> Iterator[int]:
    """Writes a part of a folder; yields the number of its pairs so far. A line stands for a complete pair."""
    count = 0
    for batch in batches:
        for one in batch:
            names = {side: f"{side}/{one.key}.png" for side in ("source", "target")}
            for side, pixels in (("source", one.source), ("target", one.target)):
                save_png(out / names[side], pixels)
            append_record(
                out / METADATA,
                {"file_name": names["target"], "source_file_name": names["source"], **one.record},
            )
        count += len(batch)
        yield count


def _shard(out: Path, first: int) -> Path:
    return out / f"pairs-{numbered(first)}.tar"


def _finished(out: Path, pairs: PairSet) -> int:
    """The number of pairs that are complete. The last part of an earlier call may be short; it is written again."""
    if pairs.layout == "folder":
        count = _good_lines(out / METADATA)
        done = count - count % pairs.batch_size
        if count == pairs.num:
            done = count
        _keep_lines(out / METADATA, done)
        return done
    done = 0
    while length := _length(_shard(out, done)):
        if length != pairs.shard_size:  # the last one, which is complete only if no more are wanted
            return done + length if done + length == pairs.num else done
        done += length
    return done


def _good_lines(path: Path) -> int:
    """The number of lines at the start of a file that are records in order."""
    count = 0
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError), open(path, encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n") or json.loads(line)["number"] != count:
                break
            count += 1
    return count


def _keep_lines(path: Path, count: int) -> None:
    """Shortens a file of lines, atomically."""
    if not path.exists():
        return
    with atomic_write(path) as temporary, open(path, "rb") as file, open(temporary, "wb") as kept:
        kept.writelines(itertools.islice(file, count))


def _length(shard: Path) -> int:
    """The number of pairs in a shard; 0 if there is none."""
    try:
        with tarfile.open(shard) as tar:
            return sum(name.endswith(".json") for name in tar.getnames())
    except (OSError, tarfile.TarError):
        return 0


def _require_folder(out: Path, pairs: PairSet) -> None:
    """Checks that the data set can be written or continued there."""
    require_writable(out)
    if not out.exists() or all(path.name.startswith(TEMPORARY_PREFIX) for path in out.iterdir()):
        return
    if not (out / INDEX).is_file():
        raise ZeroshiftError(f"{out} is not empty and holds no data set of zeroshift. Choose another folder.")
    earlier = read_json(out / INDEX)
    settings = json.loads(json.dumps(pairs.settings()))
    if not isinstance(earlier, dict):
        raise ZeroshiftError(f"{out / INDEX} is damaged. Remove the folder, or choose another one.")
    different = [name for name in settings if earlier.get(name) != settings[name]]
    if different:
        name = different[0]
        raise ZeroshiftError(
            f"{out} holds a data set with other settings ({name}: {earlier.get(name)!r:.60}, now "
            f"{settings[name]!r:.60}). Choose another folder."
        )


def _write_index(out: Path, pairs: PairSet) -> None:
    with atomic_write(out / INDEX) as temporary:
        temporary.write_text(json.dumps(pairs.settings(), indent=2) + "\n", encoding="utf-8")
