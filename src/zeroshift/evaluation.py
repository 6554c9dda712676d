"""Measures a finished run: draws the samples once, shows them to every feature network, works out the measures."""

import difflib
import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

from .config import AdaptConfig
from .errors import ZeroshiftError
from .features import FeatureNetwork, load_network
from .generators import Generator
from .images import eight_bit, find_images, read_image, square
from .metrics.protocols import MEASURES, Measure, Seen
from .runs import RunFolder, append_record, read_records
from .sampling import class_labels, load_source_and_target
from .team import Team

__all__ = ["MINIATURE_SAMPLES", "Evaluation", "References", "Result", "evaluate", "read_results", "usual_network"]

MINIATURE_SAMPLES = 256  # instead of the thousands of a protocol: about a minute on two cores
LEAST = 10  # samples: the Inception Score has as many splits
# What fits most memories to start with; where it does not, batches are halved.
CPU_PIXELS, CPU_BATCH = 4 * 1024**2, 16
DEVICE_PIXELS, DEVICE_BATCH = 32 * 1024**2, 128

T = TypeVar("T")
Track = Callable[[Iterable[T], int, str], Iterable[T]]  # (items, how many, what): the items, with a progress bar


@dataclass(frozen=True)
class Result:
    """One measured number, a line of RUN/metrics-MEASURE.jsonl."""

    measure: str
    value: float | None  # None: it does not exist, as where no two samples share a reference
    spread: float | None  # standard deviation over splits or subsets, where the protocol has any
    better: str  # "higher" or "lower"
    protocol: str
    network: str
    samples: int
    references: int
    reference: str  # where they are from; "" where none are needed
    seed: int
    truncation: float
    time: str  # when it was measured, UTC
    steps: int = 0  # of the adaptation until then


@dataclass(frozen=True)
class Evaluation:
    """What came out, and which measures were left out for what reason."""

    results: list[Result]
    left_out: dict[str, str]


class References:
    """Real images of the target domain.

    Args:
        name: where they are from, for the record.
        images: files, or a tensor [N, 3, H, W] in [-1, 1].
    """

    def __init__(self, name: str, images: Sequence[Path] | Tensor):
        self.name, self._images = name, images
        self._kept: dict[tuple[str, int, int], Tensor] = {}

    @classmethod
    def from_folder(cls, folder: str | Path) -> "References":
        """All images in a folder and its folders.

        Raises:
            ZeroshiftError: if there are none.
        """
        return cls(str(folder), find_images(folder))

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, first: int, last: int, resolution: int) -> Tensor:
        """[last - first, 3, resolution, resolution]: the middle square of each, resampled without aliasing."""
        images = (each if isinstance(each, Tensor) else read_image(each) for each in self._images[first:last])
        return eight_bit(torch.stack([square(image, resolution) for image in images]))

    def seen_by(self, name: str, look: Callable[[Tensor], Tensor], count: int, resolution: int, track: Track) -> Tensor:
        """What the network `name` keeps of the first `count`, looked at once for all runs."""
        key = (name, count, resolution)
        if key not in self._kept:
            firsts = range(0, count, CPU_BATCH)
            parts = [
                look(self.batch(first, min(first + CPU_BATCH, count), resolution))
                for first in track(firsts, len(firsts), f"Reference images by {name}")
            ]
            self._kept[key] = torch.cat(parts)
        return self._kept[key]


class _Fitting:
    """A function of rows, called with as many at a time as memory allows: halved whenever it does not."""

    def __init__(self, function: Callable[[Tensor], Tensor], size: int):
        self._function, self._size = function, size

    @torch.inference_mode()
    def __call__(self, rows: Tensor) -> Tensor:
        while True:
            try:
                return torch.cat([self._function(part) for part in rows.split(self._size)])
            except RuntimeError as error:
                if self._size == 1 or not should_reduce_batch_size(error):
                    raise
            self._size //= 2
            clear_device_cache()


def evaluate(
    run: RunFolder,
    metrics: Sequence[str] | None = None,
    *,
    references: References | None = None,
    num: int | None = None,
    seed: int = 0,
    truncation: float | None = None,
    track: Track = lambda items, total, what: items,
) -> Evaluation:
    """Measures a finished run and appends the results to RUN/metrics-MEASURE.jsonl.

    Source and target are drawn from the same latents, once for all measures, and rounded to 8 bits as files are. Sample
    i depends on (seed, i) alone; a measure that needs fewer takes the first ones.

    Args:
        metrics: of `MEASURES`, each as "MEASURE" or "MEASURE:NETWORK"; None: all that can be had for this run, where
            the miniature world's generator has those that its own judge can measure.
        references: real images of the target domain.
        num: samples; None: as many as each protocol takes, in the miniature world `MINIATURE_SAMPLES`.
        seed: of the latents.
        truncation: None: the run's own.
        track: wraps what takes long, to show a progress bar.
    Raises:
        ZeroshiftError: an unfinished run, an unknown measure or network, one that cannot be had, missing references.
    """
    run.require_generator()
    config = run.config
    if num is not None and num < LEAST:
        raise ZeroshiftError(f"{num} samples are too few to measure anything. Take {LEAST} or more.")
    if config.generator == "miniature" and num is None:
        num = MINIATURE_SAMPLES
    truncation = config.truncation if truncation is None else truncation
    device = Team(config.device).device
    chosen, networks, left_out = _choose(metrics, config, references, device)
    if not chosen:
        return Evaluation([], left_out)
    amounts = {name: _amounts(measure, num, references) for name, (measure, _) in chosen.items()}
    wanted: dict[tuple[str, str], int] = {}  # (network, side) -> images
    for name, (_, network) in chosen.items():
        for side, amount in amounts[name].items():
            wanted[network, side] = max(amount, wanted.get((network, side), 0))

    looks = {
        name: _Fitting(_looking(network, device), CPU_BATCH if device.type == "cpu" else DEVICE_BATCH)
        for name, network in networks.items()
    }
    source, target = load_source_and_target(run)
    seen = _look_at_samples(source, target, wanted, looks, config.class_index, seed, truncation, track)
    for (network, side), amount in wanted.items():
        if side == "reference" and references is not None:
            seen[network, side] = references.seen_by(network, looks[network], amount, source.resolution, track)

    results = []
    for name, (measure, network) in track(chosen.items(), len(chosen), "Measuring"):
        sides = {side: seen[network, side][:amount] for side, amount in amounts[name].items()}
        value, spread = measure.protocol(
            Seen(networks[network], labels=(config.source, config.target), seed=seed, **sides)
        )
        result = Result(
            measure=name.partition(":")[0],
            value=value if math.isfinite(value) else None,
            spread=spread,
            better=measure.better,
            protocol=measure.protocol.__name__,
            network=network,
            samples=amounts[name]["target"],
            references=amounts[name].get("reference", 0),
            reference=references.name if "reference" in sides and references is not None else "",
            seed=seed,
            truncation=truncation,
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            steps=run.delivered_steps or 0,
        )
        append_record(run.path / f"metrics-{result.measure}.jsonl", asdict(result))
        results.append(result)
    return Evaluation(results, left_out)


def _look_at_samples(
    source: Generator,
    target: Generator,
    wanted: dict[tuple[str, str], int],
    looks: dict[str, _Fitting],
    class_index: int | None,
    seed: int,
    truncation: float,
    track: Track,
) -> dict[tuple[str, str], Tensor]:
    """What each network keeps of the samples, by (network, side); a side that nobody wants is not drawn."""
    wanted = {(network, side): amount for (network, side), amount in wanted.items() if side != "reference"}
    sides = {side for _, side in wanted}
    drawn = {side: one for side, one in (("source", source), ("target", target)) if side in sides}

    def draw(latents: Tensor) -> Tensor:  # [n, sides, 3, R, R]
        labels = class_labels(source, class_index, len(latents))
        codes = source.codes(latents, labels, truncation=truncation)  # the target's too: as when it was trained
        return torch.stack([generator.synthesize(codes).float().cpu() for generator in drawn.values()], dim=1)

    pixels = CPU_PIXELS if source.device.type == "cpu" else DEVICE_PIXELS
    size = max(1, min(pixels // source.resolution**2, DEVICE_BATCH))
    fitting = _Fitting(draw, size)
    kept: dict[tuple[str, str], list[Tensor]] = {key: [] for key in wanted}
    total = max(wanted.values())
    firsts = range(0, total, size)
    for first in track(firsts, len(firsts), "Samples"):
        latents = source.sample_latents(seed, range(first, min(first + size, total)))
        images = dict(zip(drawn, eight_bit(fitting(latents)).unbind(dim=1), strict=True))
        for (network, side), amount in wanted.items():
            if first < amount:
                kept[network, side].append(looks[network](images[side][: amount - first]))
    return {key: torch.cat(parts) for key, parts in kept.items()}


def read_results(run: RunFolder) -> list[Result]:
    """The last result of each measurement of a run's generator, in the order of `MEASURES`.

    Those of a generator that the run has left behind, by going on for more steps, do not count.
    """
    delivered = run.delivered_steps
    last: dict[tuple[Any, ...], Result] = {}
    for measure in MEASURES:
        for record in read_records(run.path / f"metrics-{measure}.jsonl"):
            result = Result(**record)
            if result.steps not in (0, delivered):
                continue
            last[measure, result.network, result.reference, result.samples, result.seed, result.truncation] = result
    return list(last.values())


def usual_network(measure: Measure, config: AdaptConfig) -> str:
    """The network that a measure looks through if none is named: in the miniature world its judge for any features."""
    if config.generator == "miniature" and measure.network.partition(":")[0] in ("dinov2", "open_clip"):
        return "miniature-judge"
    return measure.network


_Chosen = tuple[dict[str, tuple[Measure, str]], dict[str, FeatureNetwork], dict[str, str]]


def _choose(
    metrics: Sequence[str] | None, config: AdaptConfig, references: References | None, device: torch.device
) -> _Chosen:
    """Measures and networks by name, ready to be used, and why measures that nobody named are left out."""
    chosen: dict[str, tuple[Measure, str]] = {}
    networks: dict[str, FeatureNetwork] = {}
    failed: dict[str, ZeroshiftError] = {}
    left_out: dict[str, str] = {}
    for name in MEASURES if metrics is None else dict.fromkeys(metrics):
        try:
            measure, network = _named(name, config)
            _check_references(measure, references)
            if metrics is None and config.generator == "miniature" and network not in ("miniature-judge", "sobel"):
                raise ZeroshiftError(
                    "It is for photographs, not the miniature world; named in --metrics, it is measured."
                )
            if network in failed:
                raise failed[network]
            if network not in networks:
                try:
                    networks[network] = load_network(network, device)
                except ZeroshiftError as error:
                    failed[network] = error
                    raise
            provided = networks[network].provides
            if measure.needs not in provided:
                raise ZeroshiftError(
                    f"It needs a network that gives {measure.needs}; {network} gives {' and '.join(sorted(provided))}."
                )
        except ZeroshiftError as error:
            if metrics is not None:
                raise ZeroshiftError(f"{name}: {error}") from error
            left_out[name] = str(error)
        else:
            chosen[name] = (measure, network)
            if measure.needs == "texts" and network.partition(":")[2] in config.encoders:
                warnings.warn(
                    f"{name} is measured by the encoder that guided this run, which proves little. Name another: "
                    f"--metrics {name.partition(':')[0]}:open_clip:MODEL/WEIGHTS.",
                    stacklevel=3,
                )
    return chosen, networks, left_out


def _named(name: str, config: AdaptConfig) -> tuple[Measure, str]:
    base, _, network = name.partition(":")
    if base not in MEASURES:
        near = difflib.get_close_matches(base, MEASURES, n=2)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ZeroshiftError(f"There is no such measure.{hint} The measures are: {', '.join(MEASURES)}.")
    return MEASURES[base], network or usual_network(MEASURES[base], config)


def _check_references(measure: Measure, references: References | None) -> None:
    if "reference" not in measure.sides:
        return
    if references is None:
        raise ZeroshiftError("Real images of the target domain are needed: --reference FOLDER.")
    if measure.references is None and len(references) < 2:
        raise ZeroshiftError("One reference image has no distribution. Give a folder of many.")


def _amounts(measure: Measure, num: int | None, references: References | None) -> dict[str, int]:
    """How many images of each side a measure looks at."""
    amounts = dict.fromkeys(measure.sides, num or measure.samples)
    if "reference" in amounts and references is not None:
        amounts["reference"] = min(len(references), measure.references or len(references))
    return amounts


def _looking(network: FeatureNetwork, device: torch.device) -> Callable[[Tensor], Tensor]:
    return lambda images: network(images.to(device)).cpu()
