"""A scene: the layers of n portraits, back to front, before any medium depicts them."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["PIXEL", "SIZE", "Layer", "Scene"]

SIZE = 64
PIXEL = 2.0 / SIZE


@dataclass
class Layer:
    """One painted shape of n portraits.

    Attributes:
        distance: [n, 64, 64] signed distance in picture units, negative inside.
        colour: [n, 3, 1, 1] or [n, 3, 64, 64] albedo in [0, 1].
        shade: [n, 64, 64] brightness under the scene's light, or None for the flat value 1.
        opacity: [n, 1, 1] or float; a class factor in its border zone gives values between 0 and 1.
        outline: whether line media draw its contour.
        heat: temperature in [0, 1] that a thermal camera sees.
        blank: a sculptor leaves it out (pupils, cosmetics).
        soft: width of its edge in pixels.
    """

    name: str
    distance: Tensor
    colour: Tensor
    shade: Tensor | None = None
    opacity: Tensor | float = 1.0
    outline: bool = True
    heat: float = 0.5
    blank: bool = False
    soft: float = 1.0

    def coverage(self) -> Tensor:
        """Antialiased share of each pixel that the layer covers, [n, 64, 64]."""
        return (0.5 - self.distance / (PIXEL * self.soft)).clamp(0, 1) * self.opacity


@dataclass
class Scene:
    """The layers, back to front, with what media need besides: the picture grid and the light."""

    layers: list[Layer]
    x: Tensor  # [1, 1, 64]
    y: Tensor  # [1, 64, 1]
    light_x: Tensor  # [n, 1, 1], -1 from the left
    light_y: Tensor  # [n, 1, 1], negative from above
