"""Warnings about unreliable results: too few images, a network that guided the run, divergence."""

from collections.abc import Mapping

from torch import Tensor

from zeroshift.config.settings import AdaptConfig
from zeroshift.evaluation.feature_rows import all_finite
from zeroshift.evaluation.plan import EvaluationPlan

__all__ = ["divergence_warnings", "guidance_warnings", "sample_size_warnings"]


def guidance_warnings(plan: EvaluationPlan, config: AdaptConfig) -> list[str]:
    """Warnings about measures whose network guided the run: the run was optimized for it."""
    guidance = {f"open_clip:{encoder}" for encoder in config.encoders}
    if config.adapt.identity_weight:
        guidance.add(config.adapt.identity_network)
    guidance = {_without_activation(network) for network in guidance}
    measured: dict[str, list[str]] = {}
    for planned in plan.measures:
        if _without_activation(planned.network) in guidance:
            measured.setdefault(planned.network, []).append(planned.name)
    return [
        f"{', '.join(names)}: measured by {network}, which guided this run, so the value is biased. Choose another "
        "network: --metrics MEASURE:NETWORK, such as open_clip:MODEL/WEIGHTS."
        for network, names in measured.items()
    ]


def sample_size_warnings(plan: EvaluationPlan, features: Mapping[tuple[str, str], Tensor]) -> list[str]:
    """Warnings about measures of too few images; `features` are those of the reference images."""
    sentences = []
    for planned in plan.measures:
        if planned.measure.check is not None:
            reference = features.get(("reference", planned.network), Tensor())[: planned.amounts.get("reference", 0)]
            reason = planned.measure.check(planned.amounts["target"], reference)
            if reason:
                sentences.append(f"{planned.name} by {planned.network}: {reason}")
    return sentences


def divergence_warnings(run: str, features: Mapping[tuple[str, str], Tensor]) -> list[str]:
    """Warnings about networks whose features are not finite. `run` is the name of the run."""
    networks = sorted({network for (_, network), values in features.items() if not all_finite(values)})
    if not networks:
        return []
    return [
        f"{run}: there are no values by {', '.join(networks)}, because its features of the images are not finite "
        "numbers. Measure with another network: --metrics MEASURE:NETWORK."
    ]


def _without_activation(network: str) -> str:
    """One name for a model with either activation function: OpenAI's weights are listed under both."""
    return network.replace("-quickgelu/", "/")
