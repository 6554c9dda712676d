"""A feature network without weights, and a measure that uses it."""

from torch import Tensor

from zeroshift.evaluation.metrics.features import Features
from zeroshift.evaluation.metrics.registry import measure
from zeroshift.networks.base import FeatureNetwork
from zeroshift.networks.registry import Network


class MeanColor(FeatureNetwork):
    """The mean color of an image."""

    provides = frozenset({"features"})

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))  # [N, 3]


MEAN_COLOR = Network("mean color", lambda file: MeanColor(), for_photographs=False)


@measure("color-shift", needs="features", network="mean-color", sides=("source", "target"), samples=200, better="lower")
def color_shift(features: Features) -> float:
    """Mean distance between the mean colors of source and target."""
    return float((features.target - features.source).norm(dim=1).mean())
