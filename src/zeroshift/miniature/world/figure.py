"""The frame of a portrait: coordinates, proportions, light and colours of one being, and how a part is added to it.

Coordinates: the picture spans [-1, 1] x [-1, 1], y down. Head coordinates have their origin in the middle of the head
and are turned by `tilt` and divided by `scale`; face coordinates follow the yaw as if painted on a cylinder, so that
one mirrored half face draws both sides with the right foreshortening.
"""

import torch
from torch import Tensor

from zeroshift.miniature.world.scene import PIXEL, SIZE, Layer

__all__ = ["EYES", "Figure", "palette"]

Colours = tuple[tuple[float, float, float], ...]

HAIR: Colours = (
    (0.11, 0.10, 0.13),
    (0.37, 0.22, 0.12),
    (0.80, 0.36, 0.11),
    (0.94, 0.78, 0.40),
    (0.89, 0.89, 0.92),
    (0.24, 0.40, 0.88),
)
EYES: Colours = ((0.36, 0.19, 0.07), (0.16, 0.44, 0.95), (0.16, 0.64, 0.24))
CLOTHES: Colours = (
    (0.80, 0.16, 0.18), (0.95, 0.77, 0.18), (0.16, 0.56, 0.28),
    (0.18, 0.34, 0.78), (0.52, 0.24, 0.66), (0.93, 0.93, 0.92),
)  # fmt: skip
BACKGROUNDS: Colours = (
    (0.56, 0.58, 0.62), (0.20, 0.56, 0.56), (0.84, 0.72, 0.50),
    (0.84, 0.48, 0.56), (0.46, 0.70, 0.94), (0.50, 0.55, 0.26),
)  # fmt: skip
SKIN: Colours = ((0.99, 0.85, 0.75), (0.90, 0.68, 0.51), (0.66, 0.43, 0.29), (0.36, 0.23, 0.16))


def palette(weights: Tensor, colours: Colours) -> Tensor:
    """[n, 3, 1, 1] colour of mixture weights [n, classes]."""
    return (weights @ torch.tensor(colours, dtype=weights.dtype, device=weights.device))[:, :, None, None]


def ramp(u: Tensor, colours: Colours) -> Tensor:
    """[n, 3, 1, 1] colour at positions u [n] along a piecewise linear ramp."""
    stops = torch.arange(len(colours), dtype=u.dtype, device=u.device)
    weights = (1 - (u[:, None] * (len(colours) - 1) - stops).abs()).clamp(min=0)
    return palette(weights, colours)


class Figure:
    """One being under construction; parts that later parts need are kept on it as distances [n, 64, 64]."""

    head_d: Tensor  # the head
    face_shade: Tensor  # light on its skin
    mass: Tensor  # the whole volume of the hair
    strands: Tensor  # light on the hair
    ex: Tensor  # eye coordinates, mirrored
    ey: Tensor

    def __init__(self, v: dict[str, Tensor], being: str):
        self.v, self.being = v, being
        n = v["scale"].shape[0]
        self.like = v["scale"]
        grid = (torch.arange(SIZE, dtype=self.like.dtype, device=self.like.device) + 0.5) * PIXEL - 1
        self.x, self.y = grid[None, None, :], grid[None, :, None]
        self.layers: list[Layer] = []
        s = {name: value[:, None, None] for name, value in v.items() if value.dim() == 1}
        self.s = s
        child = being == "child"
        self.scale = s["scale"] * (0.90 if child else 1.0)
        cx, cy = s["x_position"], s["y_position"] - (-0.05 if child else 0.07)
        dx, dy = (self.x - cx) / self.scale, (self.y - cy) / self.scale
        cos, sin = s["tilt"].cos(), s["tilt"].sin()
        self.hx, self.hy = cos * dx + sin * dy, cos * dy - sin * dx
        self.bx, self.by = (self.x - 0.5 * cx) / self.scale, dy.expand(n, SIZE, SIZE)
        # head half axes
        wide = {"zombie": 0.94, "alien": 1.10, "robot": 1.0, "child": 1.10, "elf": 0.95}.get(being, 1.0)
        tall = {"alien": 1.08, "child": 0.90, "robot": 0.96, "elf": 1.03}.get(being, 1.0)
        self.a, self.b = 0.40 * wide * s["face_width"], 0.50 * tall * s["face_height"]
        # face coordinates
        r = self.a * 1.12
        t = (self.hx / r).clamp(-0.985, 0.985)
        depth = (1 - t * t).sqrt()
        self.fx = r * (t * s["yaw"].cos() - depth * s["yaw"].sin())
        self.mx = self.fx.abs()  # mirrored
        # light
        self.lx, self.ly = s["light_x"] * 0.85, 0.45 - 1.15 * s["light_height"]
        norm = (self.lx.square() + self.ly.square() + 0.55).rsqrt()
        self.light = (self.lx * norm, self.ly * norm, 0.74 * norm)
        self.head_shade = self.lambert(self.hx / (self.a * 1.12), self.hy / (self.b * 1.12))
        # colours
        self.hair_colour = palette(v["hair_colour"], HAIR)
        skin = ramp(v["skin_tone"], SKIN)
        if being == "zombie":
            skin = torch.tensor((0.46, 0.62, 0.36)).to(skin)[None, :, None, None].expand_as(skin)
            self.hair_colour = self.hair_colour * 0.75 + 0.03
        elif being == "alien":
            skin = torch.tensor((0.62, 0.66, 0.86)).to(skin)[None, :, None, None].expand_as(skin)
        elif being == "robot":
            skin = torch.tensor((0.66, 0.71, 0.77)).to(skin)[None, :, None, None].expand_as(skin)
        elif being == "clown":
            skin = torch.tensor((0.97, 0.96, 0.95)).to(skin)[None, :, None, None].expand_as(skin)
        self.skin = skin
        self.heat = {"zombie": 0.58, "robot": 0.30, "alien": 0.66}.get(being, 0.84)
        self.cloth = palette(v["clothing_colour"], CLOTHES)
        if being == "zombie":
            self.cloth = self.cloth * 0.7 + 0.03
        self.has_hair = being not in ("alien", "robot", "clown")

    # -- helpers ------------------------------------------------------------------------------------------------

    def lambert(self, nx: Tensor, ny: Tensor, ambient: float = 0.46, gain: float = 0.66) -> Tensor:
        """Brightness of a convex surface whose normal leans by (nx, ny)."""
        squared = nx * nx + ny * ny
        nz = (1 - squared).clamp(min=0.06).sqrt()
        inverse = (squared + nz * nz).rsqrt()
        lx, ly, lz = self.light
        return ambient + gain * ((nx * lx + ny * ly + nz * lz) * inverse).clamp(min=-0.25)

    def rgb(self, r: float, g: float, b: float) -> Tensor:
        return torch.tensor((r, g, b), dtype=self.like.dtype, device=self.like.device)[None, :, None, None]

    def add(self, name: str, d: Tensor, colour: Tensor, shade: Tensor | None = None, **kwargs) -> None:
        """Adds a shape whose distance is in head (or body) units."""
        self.layers.append(Layer(name, d * self.scale, colour, shade, **kwargs))

    def add_to_face(
        self, name: str, d: Tensor, colour: Tensor, shade: Tensor | None = None, *, over: float = 0.0, **kwargs
    ) -> None:
        """Adds a shape in face coordinates, cut where the head ends (plus `over`): beyond it they have no meaning."""
        self.add(name, torch.maximum(d, self.head_d - over), colour, shade, **kwargs)

    def weight(self, factor: str, *classes: int) -> Tensor:
        """[n, 1, 1] total share of the named classes of a class factor."""
        return self.v[factor][:, list(classes)].sum(dim=1)[:, None, None]

    def choose(self, factor: str, *numbers: float) -> Tensor:
        """[n, 1, 1] the number that belongs to each class, mixed at borders."""
        table = torch.tensor(numbers, dtype=self.like.dtype, device=self.like.device)
        return (self.v[factor] @ table)[:, None, None]
