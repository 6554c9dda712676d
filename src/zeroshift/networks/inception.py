"""FID's Inception v3: features, classes, and the early feature maps for SIFID."""

import io

import torch
from torch import Tensor

from zeroshift.clip.weights import read_weights
from zeroshift.core.finite import require_finite_weights
from zeroshift.errors import ZeroshiftError
from zeroshift.networks.base import FeatureNetwork, Weights
from zeroshift.networks.gaussian import gaussian
from zeroshift.networks.registry import Network

__all__ = ["INCEPTION", "INCEPTION_MAPS", "EarlyInception", "Inception"]

_ADDRESS = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
_FILE = "weights-inception-2015-12-05-6726825d.pth"
_SHA256 = "6726825d"  # the file's name has the first digits, as usual for PyTorch


class Inception(FeatureNetwork):
    """FID's own Inception v3 as in torch-fidelity, including TensorFlow's resizing to 299 pixels.

    Args:
        state: weights of torch-fidelity's release.
    """

    WEIGHTS = Weights(_FILE, _ADDRESS + _FILE, _SHA256)
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
        # torch-fidelity unpickles its input, so it gets only tensors that were already read safely.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        self.network = FeatureExtractorInceptionV3("inception", [self.layer], feature_extractor_weights_path=buffer)
        require_finite_weights(self.network, "The file for Inception")

    def forward(self, images: Tensor) -> Tensor:
        """Features [N, 2048] of images [N, 3, H, W] in [-1, 1]."""
        features: Tensor = self.network(((images + 1) * 127.5).round().to(torch.uint8))[0]
        return features

    def classify(self, features: Tensor) -> Tensor:
        """Logits [N, 1008] without bias, as used by the Inception Score."""
        weight: Tensor = self.network.fc.weight
        return features @ weight.T.to(features)


class EarlyInception(Inception):
    """For SIFID: the Gaussian over the locations of each image's feature map before Inception's second pooling.

    SinGAN's program uses the same layer of another network, torchvision's ImageNet Inception v3, at the image's own
    size; here it is FID's network at 299 pixels. The values are therefore not comparable with those of SinGAN.
    """

    provides = frozenset({"maps"})
    layer = "192"

    def forward(self, images: Tensor) -> Tensor:
        """[N, 1 + 192, 192] in float64: the mean, then the root of the covariance."""
        maps: list[Tensor] = []
        handle = self.network.Conv2d_4a_3x3.register_forward_hook(lambda module, inputs, output: maps.append(output))
        try:
            super().forward(images)
        finally:
            handle.remove()
        mean, root = gaussian(maps[0].flatten(2).mT)  # of [N, 71 * 71, 192]
        return torch.cat([mean[:, None], root], dim=1)


INCEPTION = Network("FID's Inception v3", lambda file: Inception(read_weights(Inception.WEIGHTS.find(file))))
INCEPTION_MAPS = Network(
    "its feature maps before the second pooling",
    lambda file: EarlyInception(read_weights(EarlyInception.WEIGHTS.find(file))),
)
