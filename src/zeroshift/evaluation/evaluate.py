"""Measures a finished run: draws the samples once, shows them to every feature network, works out the measures."""

import difflib
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from zeroshift.config.settings import AdaptConfig
from zeroshift.core.batching import Fitting, Track, untracked
from zeroshift.core.distributed import Distributed
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.metrics.protocols import MEASURES, Measure, Seen, fd_all_references, is_10_splits
from zeroshift.evaluation.references import References
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.catalogue import EMBEDDED
from zeroshift.io.atomic import append_record, read_records
from zeroshift.io.images import eight_bit
from zeroshift.networks.base import FeatureNetwork
from zeroshift.networks.registry import load_network
from zeroshift.sampling.generate import class_labels
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.run_generators import load_source_and_target

__all__ = ["MINIATURE_SAMPLES", "Evaluation", "References", "Result", "evaluate", "read_results", "usual_network"]

MINIATURE_SAMPLES = 256  # instead of the thousands of a protocol: about a minute on two cores
LEAST = 10  # samples: the Inception Score has as many splits
IS_LEAST = 1000  # samples: below, a split has too few for its mean to show the classes
# What fits most memories to start with; where it does not, batches are halved.
CPU_PIXELS, CPU_BATCH = 4 * 1024**2, 16
DEVICE_PIXELS, DEVICE_BATCH = 32 * 1024**2, 128

Key = tuple[str, str]  # measure or side, and network


@dataclass(frozen=True)
class Result:
    """One measured number, a line of RUN/metrics-MEASURE.jsonl."""

    measure: str
    value: float | None  # None: it does not exist, as where no two samples share a reference, or a run has diverged
    spread: float | None  # standard deviation over splits or subsets, where the protocol has any
    better: str  # "higher" or "lower"
    protocol: str
    network: str
    samples: int
    references: int
    reference: str  # where they are from; "" where none are needed
    seed: int
    truncation_psi: float
    time: str  # when it was measured, UTC
    steps: int = 0  # of the adaptation until then


@dataclass(frozen=True)
class Evaluation:
    """What came out, and which measures were left out for what reason."""

    results: list[Result]
    left_out: dict[str, str]


def evaluate(
    run: RunFolder,
    metrics: Sequence[str] | None = None,
    *,
    references: References | None = None,
    num: int | None = None,
    seed: int = 0,
    truncation_psi: float | None = None,
    track: Track = untracked,
) -> Evaluation:
    """Measures a finished run and appends the results to RUN/metrics-MEASURE.jsonl.

    Source and target are drawn from the same latents, once for all measures, and rounded to 8 bits as files are. Sample
    i depends on (seed, i) alone; a measure that needs fewer takes the first ones. A warning tells of numbers too small
    for a measure, of a network that guided the run, and of values that do not exist because the run has diverged.

    Args:
        metrics: of `MEASURES`, each as "MEASURE" or "MEASURE:NETWORK"; None: all that can be had for this run, where
            the miniature world's generators have those that its own judge can measure.
        references: real images of the target domain.
        num: samples; None: as many as each protocol takes, in the miniature world `MINIATURE_SAMPLES`.
        seed: of the latents.
        truncation_psi: None: the run's own.
        track: wraps what takes long, to show a progress bar.
    Raises:
        ZeroshiftError: an unfinished run, an unknown measure or network, one that cannot be had, missing references.
    """
    run.require_generator()
    config = run.config
    if num is not None and num < LEAST:
        raise ZeroshiftError(f"{num} samples are too few to measure anything. Take {LEAST} or more.")
    if config.generator in EMBEDDED and num is None:
        num = MINIATURE_SAMPLES
    truncation = config.truncation_psi if truncation_psi is None else truncation_psi
    device = Distributed(config.device).device
    chosen, networks, left_out = _choose(metrics, config, references, device)
    if not chosen:
        return Evaluation([], left_out)
    amounts = {key: _amounts(measure, num, references) for key, measure in chosen.items()}
    wanted: dict[Key, int] = {}  # (side, network) -> images
    for (_, network), sides in amounts.items():
        for side, amount in sides.items():
            wanted[side, network] = max(amount, wanted.get((side, network), 0))

    looks = {
        name: Fitting(_looking(network, device), CPU_BATCH if device.type == "cpu" else DEVICE_BATCH)
        for name, network in networks.items()
    }
    steps = run.delivered_steps or 0
    source, target = load_source_and_target(run)
    seen: dict[Key, Tensor] = {}
    for (side, network), amount in wanted.items():  # before the samples: what cannot be read is told at once
        if side == "reference" and references is not None:
            seen[side, network] = references.seen_by(network, looks[network], amount, source.resolution, track)
    _warn_of_few(amounts, seen)
    seen |= _look_at_samples(source, target, wanted, looks, config.class_index, seed, truncation, track)

    results: dict[Key, Result] = {}
    slow = [key for key, measure in chosen.items() if measure.needs == "perceptual"]  # these show bars of their own
    quick = [key for key in chosen if key not in slow]
    for key in chain(track(quick, len(quick), "Measuring"), slow):
        (name, network), measure = key, chosen[key]
        observed = {side: seen[side, network][:amount] for side, amount in amounts[key].items()}
        value, spread = None, None
        if all(features.isfinite().all() for features in observed.values()):
            labels, bar = (config.source, config.target), track if key in slow else untracked
            value, spread = measure.protocol(Seen(networks[network], labels=labels, seed=seed, track=bar, **observed))
        results[key] = Result(
            measure=name,
            value=_finite(value),
            spread=_finite(spread),
            better=measure.better,
            protocol=measure.protocol.__name__,
            network=network,
            samples=amounts[key]["target"],
            references=amounts[key].get("reference", 0),
            reference=references.name if "reference" in observed and references is not None else "",
            seed=seed,
            truncation_psi=truncation,
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            steps=steps,
        )
        append_record(run.path / f"metrics-{name}.jsonl", asdict(results[key]))
    _warn_of_divergence(run, seen)
    return Evaluation([results[key] for key in chosen], left_out)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _warn_of_few(amounts: Mapping[Key, Mapping[str, int]], seen: Mapping[Key, Tensor]) -> None:
    """Warns of numbers of images that a measure is not made for."""
    for (name, network), sides in amounts.items():
        protocol, samples = MEASURES[name].protocol, sides["target"]
        if protocol is is_10_splits and samples < IS_LEAST:
            warnings.warn(
                f"{name}: an Inception Score of {samples} samples says little, as it cannot be above {samples // 10}, "
                f"the size of a split. Take {IS_LEAST:,} or more (--num).",
                stacklevel=3,
            )
        if protocol is fd_all_references and min(sides.values()) <= (width := seen["reference", network].shape[1]):
            warnings.warn(
                f"{name}: {samples:,} samples and {sides['reference']:,} reference images are too few for the "
                f"{width:,} features of {network}, so the value comes out too high: compare it only with others of "
                f"equal numbers, or take more than {width:,} of each.",
                stacklevel=3,
            )


def _warn_of_divergence(run: RunFolder, seen: Mapping[Key, Tensor]) -> None:
    broken = sorted({network for (_, network), observed in seen.items() if not observed.isfinite().all()})
    if broken:
        warnings.warn(
            f"{run.path}: there are no values by {', '.join(broken)}, as the pictures, or what is seen in them, are no "
            "finite numbers. The run has diverged: repeat it in another folder with a lower --lr.",
            stacklevel=3,
        )


def _look_at_samples(
    source: Generator,
    target: Generator,
    wanted: Mapping[Key, int],
    looks: Mapping[str, Fitting],
    class_index: int | None,
    seed: int,
    truncation_psi: float,
    track: Track,
) -> dict[Key, Tensor]:
    """What each network keeps of the samples, by (side, network); a side that nobody wants is not drawn.

    Of a side whose pictures are not finite numbers there is nothing to be seen: NaN, [amount, 1].
    """
    wanted = {(side, network): amount for (side, network), amount in wanted.items() if side != "reference"}
    sides = {side for side, _ in wanted}
    drawn = {side: one for side, one in (("source", source), ("target", target)) if side in sides}

    def draw(latents: Tensor) -> Tensor:  # [n, sides, 3, R, R]
        labels = class_labels(source, class_index, len(latents))
        codes = source.codes(latents, labels, truncation_psi=truncation_psi)  # the target's too: as when it was trained
        return torch.stack([generator.synthesize(codes).float().cpu() for generator in drawn.values()], dim=1)

    pixels = CPU_PIXELS if source.device.type == "cpu" else DEVICE_PIXELS
    size = max(1, min(pixels // source.resolution**2, DEVICE_BATCH))
    fitting = Fitting(draw, size)
    kept: dict[Key, list[Tensor]] = {key: [] for key in wanted}
    broken: set[str] = set()
    total = max(wanted.values())
    firsts = range(0, total, size)
    for first in track(firsts, len(firsts), "Samples"):
        latents = source.sample_latents(seed, range(first, min(first + size, total)))
        images = dict(zip(drawn, fitting(latents).unbind(dim=1), strict=True))
        broken |= {side for side, batch in images.items() if not batch.isfinite().all()}
        for (side, network), amount in wanted.items():
            if first < amount and side not in broken:
                kept[side, network].append(looks[network](eight_bit(images[side][: amount - first])))
    return {
        (side, network): torch.full((wanted[side, network], 1), math.nan) if side in broken else torch.cat(parts)
        for (side, network), parts in kept.items()
    }


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
            last[measure, result.network, result.reference, result.samples, result.seed, result.truncation_psi] = result
    return list(last.values())


def usual_network(measure: Measure, config: AdaptConfig) -> str:
    """The network that a measure looks through if none is named: in the miniature world its judge for any features."""
    if config.generator in EMBEDDED and measure.network.partition(":")[0] in ("dinov2", "open_clip"):
        return "miniature-judge"
    return measure.network


def _choose(
    metrics: Sequence[str] | None, config: AdaptConfig, references: References | None, device: torch.device
) -> tuple[dict[Key, Measure], dict[str, FeatureNetwork], dict[str, str]]:
    """Measures, each network of them once, ready to be used, and why measures that nobody named are left out."""
    chosen: dict[Key, Measure] = {}
    networks: dict[str, FeatureNetwork] = {}
    failed: dict[str, ZeroshiftError] = {}
    left_out: dict[str, str] = {}
    for name in MEASURES if metrics is None else dict.fromkeys(metrics):
        try:
            base, network = _named(name, config)
            measure = MEASURES[base]
            _check_references(measure, references)
            if metrics is None and config.generator in EMBEDDED and network not in ("miniature-judge", "sobel"):
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
            chosen[base, network] = measure
    _warn_of_guides(chosen, config)
    return chosen, networks, left_out


def _warn_of_guides(chosen: Iterable[Key], config: AdaptConfig) -> None:
    """Warns of measures through a network that guided the run: it was trained to please that one."""
    guides = {f"open_clip:{encoder}" for encoder in config.encoders}
    if config.adapt.identity_weight:
        guides.add(config.adapt.identity_network)
    guides = {_plain(guide) for guide in guides}
    judged: dict[str, list[str]] = {}
    for name, network in chosen:
        if _plain(network) in guides:
            judged.setdefault(network, []).append(name)
    for network, names in judged.items():
        warnings.warn(
            f"{', '.join(names)}: measured by {network}, which guided this run, so it proves little. Name another "
            "network: --metrics MEASURE:NETWORK, such as open_clip:MODEL/WEIGHTS.",
            stacklevel=4,
        )


def _plain(network: str) -> str:
    """The name that a model has with either activation: OpenAI's weights go by both."""
    return network.replace("-quickgelu/", "/")


def _named(name: str, config: AdaptConfig) -> Key:
    base, _, network = name.partition(":")
    if base not in MEASURES:
        near = difflib.get_close_matches(base, MEASURES, n=2)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ZeroshiftError(f"There is no such measure.{hint} The measures are: {', '.join(MEASURES)}.")
    return base, network or usual_network(MEASURES[base], config)


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
