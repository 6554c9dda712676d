"""Edge detectors for the structural consistency score: images in, edge maps in [0, 1] out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2.functional import InterpolationMode, gaussian_blur, resize

from zeroshift.clip.weights import load_into, read_weights
from zeroshift.networks.base import FeatureNetwork, Weights
from zeroshift.networks.registry import Network

__all__ = ["HED", "HED_EDGES", "SOBEL_EDGES", "Sobel"]

SIZE = 256  # larger images are downsampled to this size, as in RSSA: finer detail is texture, not structure


def _limit_size(images: Tensor) -> Tensor:
    if images.shape[-1] <= SIZE:
        return images
    smaller: Tensor = resize(images, [SIZE, SIZE], InterpolationMode.BILINEAR, antialias=True)
    return smaller


class Sobel(FeatureNetwork):
    """Magnitude of the Sobel gradient of the blurred luminance, divided by its maximum in the image.

    The Gaussian blur has a standard deviation of 1/128 of the side. It keeps outlines and removes hatching and grain,
    so that a photo and a drawing of the same person can match.
    """

    provides = frozenset({"edges"})

    def forward(self, images: Tensor) -> Tensor:
        """[N, H, W] in [0, 1], for images [N, 3, H, W] in [-1, 1]; at most 256 pixels a side."""
        images = _limit_size(images)
        luminance = (images * images.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)
        sigma = images.shape[-1] / 128
        blurred = gaussian_blur(luminance, [2 * round(3 * sigma) + 1] * 2, [sigma] * 2)
        horizontal = images.new_tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
        kernels = torch.stack([horizontal, horizontal.T])[:, None]  # [2, 1, 3, 3]
        magnitude: Tensor = F.conv2d(F.pad(blurred, [1] * 4, mode="replicate"), kernels).norm(dim=1)  # [N, H, W]
        return magnitude / magnitude.amax(dim=(1, 2), keepdim=True).clamp(min=1e-8)


class HED(FeatureNetwork):
    """Holistically-nested edge detection (Xie and Tu, 2015): side outputs of VGG-16's five stages, fused.

    Args:
        state: weights of pytorch-hed, Niklaus's port of the authors' own model (BSDS500).
    """

    # pytorch-hed's own server has no https. ControlNet's repository has the same network, with this SHA-256.
    WEIGHTS = Weights(
        "network-bsds500.pth",
        "https://huggingface.co/lllyasviel/ControlNet/resolve/main/annotator/ckpts/network-bsds500.pth",
        "58a858782f5fa3e0ca3dc92e7a1a609add93987d77be3dfa54f8f8419d881a94",
    )
    provides = frozenset({"edges"})

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        widths, depths = [3, 64, 128, 256, 512, 512], [2, 2, 3, 3, 3]
        self.stages, self.scores = nn.ModuleList(), nn.ModuleList()
        for index, depth in enumerate(depths):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if index else []
            for layer in range(depth):
                inputs = widths[index + (layer > 0)]
                layers += [nn.Conv2d(inputs, widths[index + 1], 3, padding=1), nn.ReLU()]
            self.stages.append(nn.Sequential(*layers))
            self.scores.append(nn.Conv2d(widths[index + 1], 1, 1))
        self.fuse = nn.Conv2d(len(depths), 1, 1)
        load_into(self, {_our_name(name): value for name, value in state.items()}, "The file for HED")

    def forward(self, images: Tensor) -> Tensor:
        """[N, H, W] in [0, 1], for images [N, 3, H, W] in [-1, 1]; at most 256 pixels a side."""
        images = _limit_size(images)
        size = images.shape[-2:]
        mean = images.new_tensor([104.00698793, 116.66876762, 122.67891434])[:, None, None]
        x = (images.flip(1) + 1) * 127.5 - mean  # BGR, as in Caffe
        sides = []
        for stage, score in zip(self.stages, self.scores, strict=True):
            x = stage(x)
            sides.append(F.interpolate(score(x), size, mode="bilinear", align_corners=False))
        fused: Tensor = self.fuse(torch.cat(sides, dim=1))
        return fused.sigmoid()[:, 0]


def _our_name(name: str) -> str:
    """Renames "moduleVggOne.0.weight" to "stages.0.0.weight"; newer files have "net" instead of "module"."""
    for index, number in enumerate(("One", "Two", "Thr", "Fou", "Fiv")):
        for prefix in ("module", "net"):
            name = name.replace(f"{prefix}Vgg{number}.", f"stages.{index}.")
            name = name.replace(f"{prefix}Score{number}.", f"scores.{index}.")
    return name.replace("moduleCombine.0.", "fuse.").replace("netCombine.0.", "fuse.")


HED_EDGES = Network("HED's edges", lambda file: HED(read_weights(HED.WEIGHTS.find(file))))
SOBEL_EDGES = Network("Sobel's edges", lambda file: Sobel(), for_photographs=False)
