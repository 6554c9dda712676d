"""IPL's directions with a domain vector's parameters: our own combination of the two.

An image-specific direction says where each image should go; so few parameters can hardly bring all images to one place.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from .domain_vector import DomainVector
from .ipl import IPL

__all__ = ["METHOD", "IPLVector"]


class IPLVector(IPL, DomainVector):
    """Prompts learned for each image (IPL), of G_t only the factors of the channels (HyperDomainNet)."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = DomainVector.presets


METHOD = IPLVector
