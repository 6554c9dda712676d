"""The plan of an evaluation: the measures, their networks and their numbers of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.metrics.registry import MEASURES, Measure
from zeroshift.evaluation.references import References
from zeroshift.generators.checkpoints.catalogue import CatalogueEntry, find_entry
from zeroshift.networks.base import FeatureNetwork
from zeroshift.networks.registry import NETWORKS, load_network

__all__ = ["EvaluationPlan", "PlannedMeasure", "default_network", "make_plan"]

_MIN_SAMPLES = 10  # the number of splits of the Inception Score


@dataclass(frozen=True)
class PlannedMeasure:
    """A measure with its network and numbers of images."""

    name: str
    measure: Measure
    network: str
    amounts: Mapping[str, int]  # images of each side that the measure reads


@dataclass(frozen=True)
class EvaluationPlan:
    """The measures of an evaluation, in order, and everything they need."""

    measures: list[PlannedMeasure]
    networks: dict[str, FeatureNetwork]
    left_out: dict[str, str]  # reasons by measure name, for measures that are not available

    def required(self, yardsticks: Sequence[str] = ()) -> dict[tuple[str, str], int]:
        """How many images each network needs, by (side, network).

        Args:
            yardsticks: "source", "truth": sides that are measured in the place of the target, too.
        """
        required: dict[tuple[str, str], int] = {}
        for planned in self.measures:
            amounts = dict.fromkeys(yardsticks, planned.amounts["target"]) | dict(planned.amounts)
            for side, amount in amounts.items():
                key = (side, planned.network)
                required[key] = max(amount, required.get(key, 0))
        return required


def make_plan(
    config: AdaptConfig,
    metrics: Sequence[str] | None,
    references: References | None,
    num: int | None,
    device: torch.device,
    skip_unavailable: bool = False,
) -> EvaluationPlan:
    """Chooses the measures and loads their networks, each once.

    Args:
        config: the settings of the run.
        metrics: "MEASURE" or "MEASURE:NETWORK"; None: every measure that is available for the run's generator.
        references: real images of the target domain, if there are any.
        num: number of samples; None: the generator's default, or else each protocol's.
        device: where the networks are placed.
        skip_unavailable: leave out measures in `metrics` that are not available, with the reason, instead of raising.
    Raises:
        ZeroshiftError: too few samples, or a measure in `metrics` that is unknown or not available.
    """
    if num is not None and num < _MIN_SAMPLES:
        raise ZeroshiftError(f"{num} samples are too few to measure anything. Use {_MIN_SAMPLES} or more.")
    entry = find_entry(config.generator)
    num = num or (entry.num_samples if entry else None)
    loader = _Loader(device)
    measures: dict[tuple[str, str], PlannedMeasure] = {}
    left_out: dict[str, str] = {}
    for name in MEASURES if metrics is None else metrics:
        try:
            planned = _plan_measure(name, entry, references, num)
            if metrics is None:
                _check_suitable(planned.network, entry)
            _check_provides(planned, loader.load(planned.network))
        except ZeroshiftError as error:
            if metrics is not None and not (skip_unavailable and name.partition(":")[0] in MEASURES):
                raise ZeroshiftError(f"{name}: {error}") from error
            left_out[name] = str(error)
        else:
            measures[planned.name, planned.network] = planned
    return EvaluationPlan(list(measures.values()), loader.networks, left_out)


def default_network(measure: Measure, entry: CatalogueEntry | None) -> str:
    """The network of a measure for which the user names none.

    The held-out evaluator of the generator's catalogue entry, if it may replace the measure's default network.
    """
    return entry.evaluator if entry and entry.evaluator and measure.any_network else measure.network


class _Loader:
    """Loads each network once and remembers failures, which can take as long as a timeout."""

    def __init__(self, device: torch.device):
        self.networks: dict[str, FeatureNetwork] = {}
        self._failed: dict[str, ZeroshiftError] = {}
        self._device = device

    def load(self, name: str) -> FeatureNetwork:
        if name in self._failed:
            raise self._failed[name]
        if name not in self.networks:
            try:
                self.networks[name] = load_network(name, self._device)
            except ZeroshiftError as error:
                self._failed[name] = error
                raise
        return self.networks[name]


def _plan_measure(
    name: str, entry: CatalogueEntry | None, references: References | None, num: int | None
) -> PlannedMeasure:
    base, _, network = name.partition(":")
    measure = MEASURES[base]
    amounts = dict.fromkeys(measure.sides, num or measure.samples)
    if "reference" in amounts:
        if references is None:
            raise ZeroshiftError(
                "Real images of the target domain are needed: --reference FOLDER (of a benchmark: --references)."
            )
        if measure.references is None and len(references) < 2:
            raise ZeroshiftError("One reference image is too few for this measure. Give a folder with more images.")
        amounts["reference"] = min(len(references), measure.references or len(references))
    return PlannedMeasure(base, measure, network or default_network(measure, entry), amounts)


def _check_suitable(network: str, entry: CatalogueEntry | None) -> None:
    """Raises ZeroshiftError for a network for photographs if the generator has its own evaluator."""
    if entry is None or not entry.evaluator or network == entry.evaluator:
        return
    if NETWORKS[network.partition(":")[0]].for_photographs:
        raise ZeroshiftError(
            f"Its network is for photographs, not for images of {entry.name}. Name it in --metrics to use it anyway."
        )


def _check_provides(planned: PlannedMeasure, network: FeatureNetwork) -> None:
    if planned.measure.needs not in network.provides:
        raise ZeroshiftError(
            f"It needs a network that provides {planned.measure.needs}; {planned.network} provides "
            f"{' and '.join(sorted(network.provides))}."
        )
