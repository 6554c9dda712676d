"""Registry of the feature networks that measures use, and a function that loads one by name.

A network is named "NETWORK" or "NETWORK:FILE" (docs/extending/measure.md). Nothing here needs torch before a network is
loaded, so that a plug-in can define its `Network` in a module that imports quickly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from zeroshift.core.registry import Registry
from zeroshift.errors import ZeroshiftError

if TYPE_CHECKING:
    import torch

    from zeroshift.networks.base import FeatureNetwork

__all__ = ["NETWORKS", "Network", "load_network"]


@dataclass(frozen=True)
class Network:
    """A feature network that can be loaded."""

    description: str
    load: "Callable[[str], FeatureNetwork]"  # (FILE of "NETWORK:FILE", or "") -> the network on the CPU
    for_photographs: bool = True  # whether it was trained on photographs; False: suitable for any kind of image


NETWORKS: Registry[Network] = Registry(
    "feature network",
    "zeroshift.networks",
    {
        "inception": "zeroshift.networks.inception:INCEPTION",
        "inception-maps": "zeroshift.networks.inception:INCEPTION_MAPS",
        "dinov2": "zeroshift.networks.dinov2:DINOV2",
        "open_clip": "zeroshift.networks.clip:OPEN_CLIP",
        "face": "zeroshift.networks.face:FACE",
        "lpips": "zeroshift.networks.lpips:LPIPS_VGG",
        "hed": "zeroshift.networks.edges:HED_EDGES",
        "sobel": "zeroshift.networks.edges:SOBEL_EDGES",
    },
)


@lru_cache(maxsize=16)
def load_network(name: str, device: "str | torch.device" = "cpu") -> "FeatureNetwork":
    """A network of `NETWORKS`, frozen and in eval mode; repeated calls return the same object.

    Args:
        name: "NETWORK", or "NETWORK:FILE" to read its weights from a file.
        device: where the weights are placed.
    Raises:
        ZeroshiftError: an unknown name, a missing or unsuitable file, or no network connection.
    """
    from zeroshift.core.finite import require_finite_weights

    kind, _, file = name.partition(":")
    network = NETWORKS[kind]
    try:
        loaded = network.load(file)
    except ZeroshiftError as error:
        if file in str(error):
            raise
        raise ZeroshiftError(f"{file} cannot be used as {kind}. {error}") from error
    except Exception as error:  # torch, timm and torch-fidelity raise many types for weights of another network
        raise ZeroshiftError(
            f"The weights for {name!r} do not fit the network {kind!r}. Give a file that holds its weights."
        ) from error
    require_finite_weights(loaded, f"The network {name}")
    return loaded.to(device).eval().requires_grad_(False)
