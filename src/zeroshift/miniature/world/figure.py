"""`BodyFigure`: coordinates, proportions, light and colors of n portraits of one being, to which parts are added.

Coordinates: the image spans [-1, 1] x [-1, 1], y down. Head coordinates have their origin in the middle of the head,
are rotated by `tilt` and divided by `scale`. Face coordinates lie on a cylinder turned by `yaw`, so one mirrored half
of the face gives both sides with the correct foreshortening.
"""

from typing import Any

import torch
from torch import Tensor

from zeroshift.miniature.world.scene import PIXEL, SIZE, Layer

__all__ = ["EYES", "BodyFigure", "palette"]

Colors = tuple[tuple[float, float, float], ...]

HAIR: Colors = (
    (0.11, 0.10, 0.13),
    (0.37, 0.22, 0.12),
    (0.80, 0.36, 0.11),
    (0.94, 0.78, 0.40),
    (0.89, 0.89, 0.92),
    (0.24, 0.40, 0.88),
)
EYES: Colors = ((0.36, 0.19, 0.07), (0.16, 0.44, 0.95), (0.16, 0.64, 0.24))
CLOTHES: Colors = (
    (0.80, 0.16, 0.18), (0.95, 0.77, 0.18), (0.16, 0.56, 0.28),
    (0.18, 0.34, 0.78), (0.52, 0.24, 0.66), (0.93, 0.93, 0.92),
)  # fmt: skip
BACKGROUNDS: Colors = (
    (0.56, 0.58, 0.62), (0.20, 0.56, 0.56), (0.84, 0.72, 0.50),
    (0.84, 0.48, 0.56), (0.46, 0.70, 0.94), (0.50, 0.55, 0.26),
)  # fmt: skip
SKIN: Colors = ((0.99, 0.85, 0.75), (0.90, 0.68, 0.51), (0.66, 0.43, 0.29), (0.36, 0.23, 0.16))


def palette(weights: Tensor, colors: Colors) -> Tensor:
    """Colors [n, 3, 1, 1] mixed with weights [n, classes]."""
    return (weights @ torch.tensor(colors, dtype=weights.dtype, device=weights.device))[:, :, None, None]


def ramp(u: Tensor, colors: Colors) -> Tensor:
    """Colors [n, 3, 1, 1] at positions u [n] on a piecewise linear ramp through `colors`."""
    stops = torch.arange(len(colors), dtype=u.dtype, device=u.device)
    weights = (1 - (u[:, None] * (len(colors) - 1) - stops).abs()).clamp(min=0)
    return palette(weights, colors)


# Appearance of beings that differ from a person.
_HEAD_WIDTH = {"zombie": 0.94, "alien": 1.10, "robot": 1.0, "child": 1.10, "elf": 0.95}
_HEAD_HEIGHT = {"alien": 1.08, "child": 0.90, "robot": 0.96, "elf": 1.03}
_SKIN = {
    "zombie": (0.46, 0.62, 0.36), "alien": (0.62, 0.66, 0.86), "robot": (0.66, 0.71, 0.77), "clown": (0.97, 0.96, 0.95),
}  # fmt: skip
_HEAT = {"zombie": 0.58, "robot": 0.30, "alien": 0.66}


class BodyFigure:
    """n portraits of one being under construction.

    Attributes:
        v: factor values by name, as `factors.values` returns them.
        s: the scalar ones among them, [n, 1, 1].
        layers: the parts added so far, back to front.
        x, y: image coordinates; hx, hy: head; bx, by: body; fx: face, mx: face, mirrored.
        a, b: half axes of the head.
        light: direction of the light, a unit vector of three [n, 1, 1].
        head_shade: light on the head.

    The attributes below are set by the parts that draw them, for later parts: distances or brightness [n, 64, 64].
    """

    head_d: Tensor  # distance to the head
    face_shade: Tensor  # light on its skin
    mass: Tensor  # distance to the whole volume of the hair
    strands: Tensor  # light on the hair
    ex: Tensor  # eye coordinates, mirrored
    ey: Tensor

    def __init__(self, v: dict[str, Tensor], being: str):
        self.v, self.being = v, being
        self.like = v["scale"]
        self.layers: list[Layer] = []
        self.s = {name: value[:, None, None] for name, value in v.items() if value.dim() == 1}
        self._set_coordinates()
        self._set_light()
        self._set_colors()
        self.has_hair = being not in ("alien", "robot", "clown")

    def _set_coordinates(self) -> None:
        s, child = self.s, self.being == "child"
        grid = (torch.arange(SIZE, dtype=self.like.dtype, device=self.like.device) + 0.5) * PIXEL - 1
        self.x, self.y = grid[None, None, :], grid[None, :, None]
        self.scale = s["scale"] * (0.90 if child else 1.0)
        cx, cy = s["x_position"], s["y_position"] - (-0.05 if child else 0.07)
        dx, dy = (self.x - cx) / self.scale, (self.y - cy) / self.scale
        cos, sin = s["tilt"].cos(), s["tilt"].sin()
        self.hx, self.hy = cos * dx + sin * dy, cos * dy - sin * dx
        self.bx, self.by = (self.x - 0.5 * cx) / self.scale, dy.expand(len(self.like), SIZE, SIZE)
        self.a = 0.40 * _HEAD_WIDTH.get(self.being, 1.0) * s["face_width"]
        self.b = 0.50 * _HEAD_HEIGHT.get(self.being, 1.0) * s["face_height"]
        # The face is on a cylinder of radius r that is turned by the yaw.
        r = self.a * 1.12
        t = (self.hx / r).clamp(-0.985, 0.985)
        depth = (1 - t * t).sqrt()
        self.fx = r * (t * s["yaw"].cos() - depth * s["yaw"].sin())
        self.mx = self.fx.abs()

    def _set_light(self) -> None:
        lx, ly = self.s["light_x"] * 0.85, 0.45 - 1.15 * self.s["light_height"]
        norm = (lx.square() + ly.square() + 0.55).rsqrt()
        self.light = (lx * norm, ly * norm, 0.74 * norm)
        self.head_shade = self.lambert(self.hx / (self.a * 1.12), self.hy / (self.b * 1.12))

    def _set_colors(self) -> None:
        self.hair_color = palette(self.v["hair_color"], HAIR)
        self.skin = ramp(self.v["skin_tone"], SKIN)
        if self.being in _SKIN:
            self.skin = torch.tensor(_SKIN[self.being]).to(self.skin)[None, :, None, None].expand_as(self.skin)
        self.heat = _HEAT.get(self.being, 0.84)
        self.cloth = palette(self.v["clothing_color"], CLOTHES)
        if self.being == "zombie":
            self.hair_color = self.hair_color * 0.75 + 0.03
            self.cloth = self.cloth * 0.7 + 0.03

    def lambert(self, nx: Tensor, ny: Tensor, ambient: float = 0.46, gain: float = 0.66) -> Tensor:
        """Lambertian brightness of a convex surface whose normal has the image-plane components (nx, ny)."""
        squared = nx * nx + ny * ny
        nz = (1 - squared).clamp(min=0.06).sqrt()
        inverse = (squared + nz * nz).rsqrt()
        lx, ly, lz = self.light
        return ambient + gain * ((nx * lx + ny * ly + nz * lz) * inverse).clamp(min=-0.25)

    def rgb(self, r: float, g: float, b: float) -> Tensor:
        """A constant color, [1, 3, 1, 1]."""
        return torch.tensor((r, g, b), dtype=self.like.dtype, device=self.like.device)[None, :, None, None]

    def add(self, name: str, d: Tensor, color: Tensor, shade: Tensor | None = None, **style: Any) -> None:
        """Adds a shape with distance d in head (or body) units; `style` holds further fields of `Layer`."""
        self.layers.append(Layer(name, d * self.scale, color, shade, **style))

    def add_to_face(
        self, name: str, d: Tensor, color: Tensor, shade: Tensor | None = None, *, over: float = 0.0, **style: Any
    ) -> None:
        """Adds a shape in face coordinates, clipped to the head plus `over`: the coordinates are invalid outside."""
        self.add(name, torch.maximum(d, self.head_d - over), color, shade, **style)

    def weight(self, factor: str, *classes: int) -> Tensor:
        """Total mixture weight of some classes of a class factor, [n, 1, 1]."""
        return self.v[factor][:, list(classes)].sum(dim=1)[:, None, None]

    def choose(self, factor: str, *numbers: float) -> Tensor:
        """One number per class of a class factor, mixed by the weights: [n, 1, 1]."""
        table = torch.tensor(numbers, dtype=self.like.dtype, device=self.like.device)
        return (self.v[factor] @ table)[:, None, None]
