"""A scene: the layers of n portraits, back to front, before a medium turns them into images."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["PIXEL", "SIZE", "Layer", "Scene"]

SIZE = 64  # image width and height in pixels
PIXEL = 2.0 / SIZE  # size of a pixel in image units; the image spans [-1, 1]


@dataclass
class Layer:
    """One shape of n portraits.

    Attributes:
        distance: [n, 64, 64] signed distance in image units, negative inside.
        color: [n, 3, 1, 1] or [n, 3, 64, 64] albedo in [0, 1].
        shade: [n, 64, 64] brightness under the scene's light; None means 1 everywhere.
        opacity: [n, 1, 1] or float in [0, 1]; fractional where a class factor is in its border zone.
        outline: whether media that draw lines draw its contour.
        heat: temperature in [0, 1], for thermal images.
        blank: left out by media without color or surface detail (pupils, makeup).
        soft: width of its edge in pixels.
    """

    name: str
    distance: Tensor
    color: Tensor
    shade: Tensor | None = None
    opacity: Tensor | float = 1.0
    outline: bool = True
    heat: float = 0.5
    blank: bool = False
    soft: float = 1.0

    def coverage(self) -> Tensor:
        """Fraction of each pixel that the layer covers, antialiased: [n, 64, 64]."""
        return (0.5 - self.distance / (PIXEL * self.soft)).clamp(0, 1) * self.opacity


@dataclass
class Scene:
    """The layers, back to front, with the pixel grid and the light direction."""

    layers: list[Layer]
    x: Tensor  # [1, 1, 64]
    y: Tensor  # [1, 64, 1]
    light_x: Tensor  # [n, 1, 1], negative: light from the left
    light_y: Tensor  # [n, 1, 1], negative: light from above
