"""Feature networks that measures look through: named, loaded when needed, from a file or their authors' address.

"NETWORK" or "NETWORK:FILE"; `NETWORKS` lists them. No code in a file is ever executed.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder
from zeroshift.errors import ZeroshiftError
from zeroshift.networks.base import FeatureNetwork, read_weights
from zeroshift.networks.dinov2 import _DINOv2
from zeroshift.networks.face import _load_face
from zeroshift.networks.inception import _Inception, _ShallowInception

__all__ = ["NETWORKS", "load_network"]


class _ImageTower(FeatureNetwork):
    """The image features of a CLIP encoder, whose text tower measures of text use."""

    provides = frozenset({"features", "texts"})

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """[N, E]."""
        return self.encoder.encode_image(images)


def _load_judge(given: str) -> FeatureNetwork:
    from zeroshift.miniature.networks.encoders import load_judge

    return _ImageTower(load_judge(given or None))


def _load_hed(given: str) -> FeatureNetwork:
    from zeroshift.networks.edges import HED, HED_WEIGHTS

    return HED(read_weights(HED_WEIGHTS.find(given)))


def _load_sobel(given: str) -> FeatureNetwork:
    from zeroshift.networks.edges import Sobel

    return Sobel()


def _load_lpips(given: str) -> FeatureNetwork:
    from zeroshift.networks.lpips import LPIPS, VGG_WEIGHTS

    return LPIPS(read_weights(VGG_WEIGHTS.find(given)))


NETWORKS: dict[str, tuple[str, Callable[[str], FeatureNetwork]]] = {
    "inception": ("FID's Inception v3", lambda given: _Inception(read_weights(_Inception.WEIGHTS.find(given)))),
    "inception-maps": (
        "its maps before the second pooling",
        lambda given: _ShallowInception(read_weights(_Inception.WEIGHTS.find(given))),
    ),
    "dinov2": ("Meta's DINOv2, ViT-L/14", lambda given: _DINOv2(read_weights(_DINOv2.WEIGHTS.find(given)))),
    "open_clip": ("open_clip:MODEL/WEIGHTS or open_clip:FILE", lambda given: _ImageTower(load_encoder(given))),
    "miniature-judge": ("the miniature world's judge, which never guides", _load_judge),
    "face": ("a face recogniser; face:FOLDER with timm's files", _load_face),
    "lpips": ("LPIPS on VGG-16", _load_lpips),
    "hed": ("HED's edges", _load_hed),
    "sobel": ("Sobel's edges", _load_sobel),
}


@lru_cache(maxsize=len(NETWORKS))
def load_network(name: str, device: str | torch.device = "cpu") -> FeatureNetwork:
    """A network of `NETWORKS`, frozen, in eval mode; one that was loaded before is given again.

    Args:
        name: "NETWORK", or "NETWORK:FILE" to read other weights, or the same ones without a network connection.
    Raises:
        ZeroshiftError: an unknown name, a file that is missing or of another kind, no network connection.
    """
    kind, _, given = name.partition(":")
    if kind not in NETWORKS:
        raise ZeroshiftError(f"There is no feature network {kind!r}. There are: {', '.join(NETWORKS)}.")
    try:
        network = NETWORKS[kind][1](given)
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ZeroshiftError(
            f"The weights given for {name!r} are of another kind: they do not fit the network {kind!r}."
        ) from error
    return network.to(device).eval().requires_grad_(False)
