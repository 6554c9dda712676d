"""FID's Inception v3: features, classes, and the shallow maps of SIFID."""

import io

import torch
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.networks.base import FeatureNetwork, Weights

__all__ = []


class _Inception(FeatureNetwork):
    """FID's own Inception v3 as torch-fidelity has it, TensorFlow's resizing included."""

    WEIGHTS = Weights(
        "weights-inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    )
    provides = frozenset({"features", "classes"})
    layer = "2048"

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ZeroshiftError(
                "Inception features need the package torch-fidelity: pip install 'zeroshift[metrics]'."
            ) from error
        plain = io.BytesIO()  # it would run whatever a file holds; what it gets here has been read as data
        torch.save(state, plain)
        plain.seek(0)
        self.network = FeatureExtractorInceptionV3("inception", [self.layer], feature_extractor_weights_path=plain)

    def forward(self, images: Tensor) -> Tensor:
        """[N, 2048]."""
        return self.network(((images + 1) * 127.5).round().to(torch.uint8))[0]

    def classify(self, features: Tensor) -> Tensor:
        """Logits [N, 1008] without bias, as the Inception Score takes them."""
        return features @ self.network.fc.weight.T.to(features)


class _ShallowInception(_Inception):
    """For SIFID: the Gaussian over the places of each image's map just before Inception's second pooling.

    SinGAN's program takes the same layer of another network, torchvision's Inception v3 of ImageNet, at the image's own
    size, while this is FID's at 299 pixels. So values are not comparable with those of papers that used that program.
    """

    provides = frozenset({"maps"})
    layer = "192"

    def forward(self, images: Tensor) -> Tensor:
        """[N, 1 + 192, 192] in float64: the mean above the root of the covariance."""
        from zeroshift.evaluation.metrics.frechet import gaussian

        maps: list[Tensor] = []
        handle = self.network.Conv2d_4a_3x3.register_forward_hook(lambda module, inputs, output: maps.append(output))
        try:
            super().forward(images)
        finally:
            handle.remove()
        mean, root = gaussian(maps[0].flatten(2).mT)  # of [N, 71 * 71, 192]
        return torch.cat([mean[:, None], root], dim=1)
