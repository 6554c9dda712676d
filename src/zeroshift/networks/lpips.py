"""LPIPS as an embedding: the squared distance of two images' vectors is their perceptual distance."""

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import vgg16
from torchvision.transforms.v2.functional import InterpolationMode, resize

from zeroshift.clip.weights import load_into, read_weights
from zeroshift.errors import ZeroshiftError
from zeroshift.networks.base import FeatureNetwork, Weights
from zeroshift.networks.registry import Network

__all__ = ["LPIPS", "LPIPS_VGG"]

SIZE = 256  # as in the published evaluations of intra-LPIPS
STAGES = ((0, 4), (4, 9), (9, 16), (16, 23), (23, 30))  # layers of VGG-16, each stage up to its last ReLU


class LPIPS(FeatureNetwork):
    """Learned perceptual image patch similarity, version 0.1 on VGG-16 (Zhang et al., 2018, equation 1).

    d(x, y) = Σ_l mean over locations of Σ_c w_lc (x̂_lc - ŷ_lc)², where x̂ are the unit channel vectors of layer l. The
    concatenated vectors x̂_lc √(w_lc / locations) of all layers have d as their squared Euclidean distance, so an image
    passes through the network only once, regardless of the number of comparisons.

    Args:
        state: torchvision's VGG-16; only the convolutions are used.
    """

    WEIGHTS = Weights(
        "vgg16-397923af.pth",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af",  # the file's name has the first digits of its SHA-256
    )

    provides = frozenset({"perceptual"})
    shift: Tensor
    scale: Tensor

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        with torch.device("meta"):  # allocates no memory for the large fully connected layers, which are unused
            features = vgg16().features
        self.stages = nn.ModuleList(features[first:last] for first, last in STAGES)
        self.stages.to_empty(device="cpu")
        stage_of = {str(layer): index for index, (first, last) in enumerate(STAGES) for layer in range(first, last)}
        renamed = {}
        for name, value in state.items():
            part, _, rest = name.partition(".")  # "features", "0.weight"
            if part == "features":
                renamed[f"{stage_of[rest.partition('.')[0]]}.{rest}"] = value
        load_into(self.stages, renamed, "The file for LPIPS")
        linear = read_weights(_linear_weights())
        self._weights = [linear[f"lin{index}.model.1.weight"].flatten() for index in range(len(STAGES))]
        # ImageNet's mean and standard deviation for the range [-1, 1], rounded as in LPIPS
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """uint8 pixels of images [N, 3, H, W] in [-1, 1], at most 256 a side; the vectors are too large to keep."""
        if images.shape[-1] > SIZE:
            images = resize(images, [SIZE, SIZE], InterpolationMode.BILINEAR, antialias=True)
        return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    def embed(self, features: Tensor) -> Tensor:
        """Vectors [N, D] of uint8 pixels [N, 3, H, W]; D is 122 numbers per pixel."""
        x = (features / 127.5 - 1 - self.shift) / self.scale
        parts = []
        for stage, weight in zip(self.stages, self._weights, strict=True):
            x = stage(x)  # [N, C, h, w]
            scale = (weight.to(x) / (x.shape[-2] * x.shape[-1])).sqrt()
            parts.append((F.normalize(x, dim=1, eps=1e-10) * scale[:, None, None]).flatten(1))
        return torch.cat(parts, dim=1)


def _linear_weights() -> Path:
    """The file of learned channel weights in the package lpips, located without importing the package."""
    spec = importlib.util.find_spec("lpips")
    if spec is None or not spec.submodule_search_locations:
        raise ZeroshiftError("LPIPS needs the package lpips: pip install 'zeroshift[metrics]'.")
    return Path(spec.submodule_search_locations[0]) / "weights" / "v0.1" / "vgg.pth"


LPIPS_VGG = Network("LPIPS on VGG-16", lambda file: LPIPS(read_weights(LPIPS.WEIGHTS.find(file))))
