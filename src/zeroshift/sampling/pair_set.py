"""Data sets of registered source and target pairs: WebDataset shards, or an image folder with JSON lines.

Sample i depends on (seed, i) only. Memory does not grow with the number of samples, and an interrupted data set
continues after the last complete part, with the same bytes as if it had never stopped.
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
from zeroshift.io.outputs import require_writable
from zeroshift.sampling.generate import render_batches

__all__ = ["INDEX", "METADATA", "Layout", "PairSet", "write_pairs"]

INDEX = "dataset.json"
METADATA = "metadata.jsonl"
_MAX_LATENT = 4096  # numbers; longer latents, of diffusion models, follow from seed and number

Layout = Literal["webdataset", "folder"]
Describe = Callable[[Tensor], Sequence[Mapping[str, Any]] | None]  # latents [N, ...] -> what is known of each sample


@dataclass(frozen=True)
class PairSet:
    """What a data set holds.

    Attributes:
        num: number of pairs.
        seed: samples 0 to num - 1 of this seed.
        truncation_psi, class_index, batch_size: see `render_batches`.
        shard_size: pairs per shard, or per part of a folder; a multiple of the batch size.
        layout: "webdataset": pairs-00000000.tar, ...; "folder": source/, target/ and metadata.jsonl.
        described: what else the result depends on, such as the run; JSON-able.
    """

    num: int
    seed: int
    truncation_psi: float
    class_index: int | None
    batch_size: int
    shard_size: int
    layout: Layout
    described: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        """The content of the index: the same settings give the same files. More samples may be added later."""
        return {
            "command": "zeroshift generate --format pairs", **self.described, "layout": self.layout, "seed": self.seed,
            "truncation_psi": self.truncation_psi, "class_index": self.class_index, "batch_size": self.batch_size,
            "shard_size": self.shard_size,
        }  # fmt: skip


def write_pairs(
    out: Path, generators: Sequence[Generator], pairs: PairSet, describe: Describe = lambda latents: None
) -> Iterator[int]:
    """Writes a data set; yields the number of finished pairs after each batch, and first of those that exist already.

    Args:
        out: a new or empty folder, or one of an earlier call with the same settings.
        generators: source and target.
        describe: what is known of samples, such as factors, by their latents.
    Raises:
        ZeroshiftError: a folder of others or with other settings, or files that cannot be written.
    """
    _require_folder(out, pairs)
    write = _write_shard if pairs.layout == "webdataset" else _write_part
    with made_folder(out):
        _write_index(out, pairs)
        done = _finished(out, pairs)
        if done > pairs.num:
            raise ZeroshiftError(f"{out} holds more than {pairs.num} pairs already. Choose another folder.")
        yield done
        while done < pairs.num:
            last = min(pairs.num, (done // pairs.shard_size + 1) * pairs.shard_size)
            for count in write(out, _samples(generators, pairs, describe, done, last), done):
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
        return f"{self.number:08d}"


def _samples(
    generators: Sequence[Generator], pairs: PairSet, describe: Describe, first: int, last: int
) -> Iterator[list[_Sample]]:
    """Batches of the samples first to last - 1."""
    for start in range(first, last, pairs.batch_size):
        numbers = range(start, min(last, start + pairs.batch_size))
        latents = generators[0].sample_latents(pairs.seed, numbers)
        (images,) = render_batches(
            generators, latents, truncation_psi=pairs.truncation_psi, class_index=pairs.class_index,
            batch_size=len(numbers),
        )  # fmt: skip
        known = describe(latents) or [{}] * len(numbers)
        sources, targets = (to_uint8(each) for each in images)
        batch = []
        for row, number in enumerate(numbers):
            record: dict[str, Any] = {"number": number, "seed": pairs.seed}
            if pairs.class_index is not None:
                record["class"] = pairs.class_index
            record |= known[row]
            if latents[row].numel() <= _MAX_LATENT:
                record["latent"] = latents[row].flatten().tolist()
            batch.append(_Sample(number, sources[row], targets[row], record))
        yield batch


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
    return out / f"pairs-{first:08d}.tar"


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
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / INDEX).is_file():
        raise ZeroshiftError(f"{out} is not empty and holds no data set of zeroshift. Choose another folder.")
    earlier = read_json(out / INDEX)
    settings = json.loads(json.dumps(pairs.settings()))
    if not isinstance(earlier, dict):
        raise ZeroshiftError(f"{out / INDEX} is damaged. Remove the folder, or choose another one.")
    different = [name for name in settings if earlier.get(name) != settings[name]]
    if different:
        raise ZeroshiftError(
            f"{out} holds a data set with another {different[0]} ({earlier.get(different[0])!r:.60}, now "
            f"{settings[different[0]]!r:.60}). Choose another folder."
        )


def _write_index(out: Path, pairs: PairSet) -> None:
    with atomic_write(out / INDEX) as temporary:
        temporary.write_text(json.dumps(pairs.settings(), indent=2) + "\n", encoding="utf-8")
