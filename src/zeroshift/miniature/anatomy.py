"""From factors to a scene: the layers of a portrait, back to front, before any medium depicts them.

Coordinates: the picture spans [-1, 1] x [-1, 1], y down. Head coordinates have their origin in the middle of the head
and are turned by `tilt` and divided by `scale`; face coordinates follow the yaw as if painted on a cylinder, so that
one mirrored half face draws both sides with the right foreshortening.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .shapes import box, capsule, ellipse, mix, smooth, smooth_union

__all__ = ["SIZE", "Layer", "Scene", "build_scene"]

SIZE = 64
PIXEL = 2.0 / SIZE

HAIR = (
    (0.11, 0.10, 0.13),
    (0.37, 0.22, 0.12),
    (0.80, 0.36, 0.11),
    (0.94, 0.78, 0.40),
    (0.89, 0.89, 0.92),
    (0.24, 0.40, 0.88),
)
EYES = ((0.36, 0.19, 0.07), (0.16, 0.44, 0.95), (0.16, 0.64, 0.24))
CLOTHES = (
    (0.80, 0.16, 0.18), (0.95, 0.77, 0.18), (0.16, 0.56, 0.28),
    (0.18, 0.34, 0.78), (0.52, 0.24, 0.66), (0.93, 0.93, 0.92),
)  # fmt: skip
BACKGROUNDS = (
    (0.56, 0.58, 0.62), (0.20, 0.56, 0.56), (0.84, 0.72, 0.50),
    (0.84, 0.48, 0.56), (0.46, 0.70, 0.94), (0.50, 0.55, 0.26),
)  # fmt: skip
SKIN = ((0.99, 0.85, 0.75), (0.90, 0.68, 0.51), (0.66, 0.43, 0.29), (0.36, 0.23, 0.16))


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
    extra: dict[str, Tensor] = field(default_factory=dict)


def _palette(weights: Tensor, colours: tuple[tuple[float, float, float], ...]) -> Tensor:
    """[n, 3, 1, 1] colour of mixture weights [n, classes]."""
    return (weights @ torch.tensor(colours, dtype=weights.dtype, device=weights.device))[:, :, None, None]


def _ramp(u: Tensor, colours: tuple[tuple[float, float, float], ...]) -> Tensor:
    """[n, 3, 1, 1] colour at positions u [n] along a piecewise linear ramp."""
    stops = torch.arange(len(colours), dtype=u.dtype, device=u.device)
    weights = (1 - (u[:, None] * (len(colours) - 1) - stops).abs()).clamp(min=0)
    return _palette(weights, colours)


class _Builder:
    """Shapes one being from factor values; every method paints one part of the body."""

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
        self.hair_colour = _palette(v["hair_colour"], HAIR)
        skin = _ramp(v["skin_tone"], SKIN)
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
        self.heat = {"zombie": 0.42, "robot": 0.30, "alien": 0.66}.get(being, 0.84)
        self.cloth = _palette(v["clothing_colour"], CLOTHES)
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

    # -- parts --------------------------------------------------------------------------------------------------

    def background(self) -> None:
        base = _palette(self.v["background_colour"], BACKGROUNDS)
        light = self.s["background_lightness"][:, None]
        base = mix(base * 0.55, base * 0.6 + 0.4, light)
        lx, ly, _ = self.light
        radius = self.x * self.x + (self.y + 0.1) * (self.y + 0.1)
        shade = 1.06 - 0.16 * radius + 0.16 * (self.x * lx + self.y * ly)
        self.add("background", torch.full_like(self.hx, -1.0), base, shade, outline=False, heat=0.10)

    def hair_mass(self) -> Tensor:
        """Distance to the whole volume of the hair, before the face is cut out."""
        a, b, x, y = self.a, self.b, self.hx, self.hy
        wavy, curly = self.weight("hair_style", 1), self.weight("hair_style", 2)
        cropped = self.weight("hair_length", 0)
        volume = 0.045 + 0.05 * curly + 0.02 * wavy - 0.02 * cropped
        cap = ellipse(x, y + 0.05, a + volume, b + volume + 0.01)
        end = self.choose("hair_length", -0.06, 0.42, 0.90)
        flare = self.choose("hair_length", 0.0, 0.05, 0.09) * smooth(y, 0.0, 0.8)
        curtain = box(x, y - (end - 0.2) / 2, a + volume - 0.01 + flare, (end + 0.2) / 2 + 0.04, 0.14)
        mass = smooth_union(cap, curtain, 0.08)
        mass = torch.where(cropped > 0.999, torch.maximum(cap, y - 0.06), mass)  # nothing below the ear
        ripple = 0.022 * wavy * (11.0 * y + 2.0).sin()
        angle = torch.atan2(y + 0.05, x)
        ripple = ripple + 0.026 * curly * ((angle * 13).sin() + 0.6 * (y * 21).sin())
        return mass + ripple

    def hair_shade(self) -> Tensor:
        """Light on the hair: volume, strands that follow the style, and a soft band of gloss."""
        x, y, a, b = self.hx, self.hy, self.a, self.b
        wavy, curly = self.weight("hair_style", 1), self.weight("hair_style", 2)
        straight = 1 - wavy - curly
        strands = straight * (44 * x + 4 * y).sin() + wavy * (30 * x + 2.2 * (11.0 * y + 2.0).sin()).sin()
        strands = strands + 1.1 * curly * (22 * x + 9 * y + 3 * (7 * y).sin()).sin() * (24 * y - 8 * x).sin()
        volume = self.lambert(x / (a * 1.35), (y + 0.05) / (b * 1.35), ambient=0.42, gain=0.74)
        gloss = (-((y + 0.36 - 0.5 * x * x) / 0.07).square()).exp() * (1 - curly)
        return volume * (1 + 0.16 * strands) + 0.16 * gloss

    def back_hair(self) -> None:
        if self.has_hair:
            self.mass, self.strands = self.hair_mass(), self.hair_shade()
            self.add("back hair", self.mass, self.hair_colour * 0.72, self.strands, heat=0.36)
        elif self.being == "clown":  # two big tufts
            x, y = self.hx.abs() - self.a - 0.03, self.hy + 0.10
            bumps = 0.03 * ((torch.atan2(y, x) * 8).sin())
            colour = self.hair_colour * 0.9 + 0.06
            shade = self.lambert((x - 0.02) / 0.34, y / 0.36) * (1 + 0.18 * (30 * self.hx).sin() * (30 * self.hy).sin())
            self.add("hair tufts", ellipse(x, y, 0.21, 0.27) + bumps, colour, shade, heat=0.36)

    def neck_and_clothes(self) -> None:
        x, y, s = self.bx, self.by, self.s
        thin = {"alien": 0.62, "child": 0.72, "robot": 0.8}.get(self.being, 1.0)
        neck_shade = self.lambert(x / 0.24, 0.25 * torch.ones_like(x)) * (0.72 + 0.3 * smooth(y, 0.42, 0.72))
        self.add("neck", box(x, y - 0.6, 0.165 * thin, 0.3, 0.05), self.skin, neck_shade, heat=self.heat * 0.95)
        width = (
            0.70
            * s["shoulder_width"]
            * {"child": 0.66, "alien": 0.82, "robot": 1.06, "zombie": 0.96}.get(self.being, 1.0)
        )
        slope = 0.70 + 0.16 * (x / width).abs().pow(2.4)
        d = torch.maximum(box(x, y - 1.3, width, 0.64, 0.22), slope - y)
        d = torch.maximum(d, -ellipse(x, y - 0.64, 0.20 * (0.5 + 0.5 * thin), 0.15))  # neck line
        stripes = ((y - 0.05 * x * x) * 26).sin()
        stripes = (0.5 + stripes * 2.5).clamp(0, 1) * self.weight("clothing_pattern", 1)
        colour = self.cloth * (1 - 0.62 * stripes)[:, None]
        white = self.v["clothing_colour"][:, 5][:, None, None]
        colour = colour + (0.10 * stripes * (1 - white))[:, None]
        shade = self.lambert(x / (width * 1.15), (y - 1.1) / 0.9, ambient=0.5, gain=0.6)
        self.add("clothes", d, colour, shade, heat=0.46)
        if self.being == "clown":
            frill = 0.025 * (x * 34).sin()
            ring = ellipse(x, y - 0.70, 0.34, 0.10) + frill
            self.add("ruff", ring, self.rgb(0.98, 0.93, 0.80), 0.82 + 0.2 * (x * 34).sin(), heat=0.4)
        elif self.being == "robot":
            self.add("bolt", ellipse(x, y - 0.92, 0.06, 0.06), self.rgb(0.2, 0.85, 0.95), None, heat=0.9)

    def ears(self) -> None:
        yaw = self.s["yaw"]
        x, y = (self.hx + 0.05 * yaw).abs() - self.a, self.hy - 0.02
        if self.being in ("alien",):
            return
        if self.being == "robot":
            self.add("ears", box(x - 0.03, y, 0.055, 0.10, 0.02), self.rgb(0.42, 0.46, 0.52), self.head_shade, heat=0.3)
            return
        ear = ellipse(x, y, 0.062, 0.095)
        self.add("ears", ear, self.skin * 0.95, self.head_shade * 0.92, heat=self.heat * 0.8)

    def elf_ears(self) -> None:
        """Long ears that stand out of the hair."""
        x, y = (self.hx + 0.05 * self.s["yaw"]).abs() - self.a, self.hy - 0.0
        along = x * 0.72 - y * 0.70
        across = x * 0.70 + y * 0.72
        t = (along / 0.40).clamp(0, 1)
        d = torch.maximum(across.abs() - 0.085 * (1 - t) - 0.004, (along - 0.20).abs() - 0.24)
        self.add("elf ears", d, self.skin * 0.97, self.head_shade * 1.02, heat=0.8)
        self.add(
            "inner ears", d + 0.035, self.skin * self.rgb(0.86, 0.66, 0.62), self.head_shade, outline=False, heat=0.8
        )

    def head(self) -> None:
        x, y, a, b = self.hx, self.hy, self.a, self.b
        low = (y / b).clamp(0, 1.1)
        pointed = 0.52 - 0.66 * self.s["jaw"]
        pointed = {"alien": torch.full_like(pointed, 0.85), "child": torch.full_like(pointed, 0.12)}.get(
            self.being, pointed
        )
        if self.being == "elf":
            pointed = pointed + 0.10
        if self.being == "robot":
            d = box(x, y, a * 0.98, b * 0.97, 0.16)
        else:
            d = ellipse(x * (1 + pointed * low * low), y, a, b)
        if self.being == "alien":
            d = smooth_union(d, ellipse(x, y + 0.14, a * 1.14, b * 0.82), 0.1)
        self.head_d = d
        # occlusion under the hair, warm light, and a turn away from the viewer at the rim
        shade = self.head_shade * (1 - 0.22 * smooth(d, -0.10, 0.02))
        self.add("head", d, self.skin, shade, heat=self.heat)
        if self.being in ("person", "elf", "child"):
            d_cheek = ellipse(self.mx - 0.235, y - 0.14, 0.10, 0.075)
            blush = {"child": 0.70}.get(self.being, 0.26)
            warm = (self.skin * self.rgb(1.04, 0.66, 0.62)).clamp(max=1)
            self.add(
                "cheeks",
                torch.maximum(d_cheek, d),
                warm,
                shade,
                outline=False,
                opacity=blush,
                soft=5.0,
                heat=self.heat,
                blank=True,
            )
        if self.being == "robot":
            seam = torch.maximum((y + 0.26).abs() - 0.012, d + 0.03)
            self.add("seam", seam, self.rgb(0.30, 0.34, 0.40), None, heat=0.2)
            rivets = ellipse(self.mx - 0.30, (y - 0.02).abs() - 0.33, 0.025, 0.025)
            self.add_to_face("rivets", rivets, self.rgb(0.32, 0.36, 0.42), None, heat=0.2)
            self.add("antenna", capsule(x, y, 0.0, -b - 0.16, 0.0, -b, 0.018), self.rgb(0.4, 0.44, 0.5), None, heat=0.2)
            self.add("antenna tip", ellipse(x, y + b + 0.18, 0.05, 0.05), self.rgb(0.98, 0.30, 0.22), None, heat=0.95)
        self.face_shade = shade

    def eyes(self) -> None:
        s, y = self.s, self.hy
        size = s["eye_size"] * {"child": 1.42, "elf": 1.06, "zombie": 1.02}.get(self.being, 1.0)
        self.ex = self.mx - 0.172 * s["eye_spacing"] * (1.06 if self.being == "child" else 1.0)
        self.ey = y + (0.0 if self.being == "child" else 0.025)
        ex, ey = self.ex, self.ey
        if self.being == "alien":
            u, w = ex - 0.01, ey - 0.01
            u, w = u * 0.88 + w * 0.47, w * 0.88 - u * 0.47  # slanted
            d = ellipse(u, -w, 0.165 * size, 0.098 * size)
            self.add_to_face("eyes", d, self.rgb(0.03, 0.03, 0.06), None, heat=0.5)
            shine = ellipse(ex + 0.03, ey + 0.035, 0.030, 0.026)
            self.add_to_face(
                "shine", shine, self.rgb(0.85, 0.9, 1.0), None, outline=False, opacity=0.9, blank=True, heat=0.5
            )
            return
        if self.being == "robot":
            self.add_to_face(
                "sockets", ellipse(ex, ey, 0.115 * size, 0.115 * size), self.rgb(0.16, 0.18, 0.22), None, heat=0.3
            )
            glow = ellipse(ex, ey, 0.075 * size, 0.075 * size)
            self.add_to_face("eyes", glow, self.rgb(0.25, 0.95, 1.0), None, heat=1.0, soft=1.6)
            self.add_to_face(
                "pupils",
                ellipse(ex, ey, 0.028 * size, 0.028 * size),
                self.rgb(0.95, 1.0, 1.0),
                None,
                outline=False,
                heat=1.0,
            )
            return
        if self.being == "zombie":
            sockets = ellipse(ex, ey - 0.015, 0.150 * size, 0.120 * size)
            self.add_to_face(
                "sockets",
                sockets,
                self.rgb(0.20, 0.24, 0.17),
                self.face_shade,
                outline=False,
                opacity=0.85,
                soft=2.5,
                heat=0.25,
            )
        if self.being == "clown":
            u = ex.abs() / 0.075 + (ey + 0.01).abs() / 0.25
            self.add_to_face("eye paint", (u - 1) * 0.07, self.rgb(0.16, 0.36, 0.85), self.face_shade, heat=0.7)
        slant = ey + (0.22 * ex if self.being == "elf" else 0.0)
        lid = ellipse(ex, slant + 0.012, 0.116 * size, 0.080 * size)
        self.add_to_face("lids", lid, self.skin * 0.35, None, outline=False, heat=self.heat)
        white = ellipse(ex, slant, 0.100 * size, 0.066 * size)
        sclera = self.rgb(0.93, 0.86, 0.52) if self.being == "zombie" else self.rgb(0.97, 0.97, 0.98)
        self.add_to_face("eyes", white, sclera, 0.72 + 0.28 * smooth(ey, -0.06, 0.0), heat=0.93)
        if self.being == "zombie":
            self.add_to_face(
                "irises",
                ellipse(ex, ey, 0.032 * size, 0.032 * size),
                self.rgb(0.75, 0.10, 0.08),
                None,
                heat=0.3,
                blank=True,
            )
            return
        iris = torch.maximum(ellipse(ex, ey - 0.004, 0.062 * size, 0.062 * size), white)
        self.add_to_face(
            "irises", iris, _palette(self.v["eye_colour"], EYES), None, outline=False, heat=0.9, blank=True
        )
        pupil = torch.maximum(ellipse(ex, ey - 0.004, 0.026 * size, 0.026 * size), white)
        self.add_to_face("pupils", pupil, self.rgb(0.04, 0.03, 0.04), None, outline=False, heat=0.9, blank=True)
        shine = ellipse(self.fx.sign() * ex + 0.022, ey + 0.026, 0.017, 0.017)
        self.add_to_face("shine", shine, self.rgb(1, 1, 1), None, outline=False, opacity=0.85, heat=0.9, blank=True)

    def brows(self) -> None:
        s = self.s
        if self.being == "alien":
            return
        lift = {"child": 0.045, "elf": 0.01}.get(self.being, 0.0)
        u, w = self.ex, self.ey + 0.158 + lift
        slope = -s["brow_tilt"] * u + (-0.30 * u if self.being == "elf" else 0.0)
        w = w - slope + 0.9 * u * u
        thickness = 0.021 * (
            s["brow_thickness"] if self.being not in ("robot", "clown") else torch.ones_like(s["brow_thickness"])
        )
        if self.being == "child":
            thickness = thickness * 0.8
        d = box(u, w, 0.112, thickness, 0.012)
        colour = {"robot": self.rgb(0.24, 0.27, 0.32), "clown": self.rgb(0.1, 0.1, 0.12)}.get(
            self.being, self.hair_colour * 0.62
        )
        self.add_to_face("brows", d, colour, None, outline=False, heat=0.55)

    def nose(self) -> None:
        s, x, y = self.s, self.fx - 0.10 * self.s["yaw"].sin(), self.hy
        if self.being == "alien":
            self.add_to_face(
                "nostrils",
                ellipse(x.abs() - 0.03, y - 0.17, 0.012, 0.02),
                self.skin * 0.4,
                None,
                outline=False,
                heat=0.5,
            )
            return
        if self.being == "robot":
            d = torch.maximum((x.abs() * 1.6 + (y - 0.14) * -0.7) - 0.07, (y - 0.14).abs() - 0.07)
            self.add_to_face("nose", d, self.rgb(0.45, 0.50, 0.56), self.face_shade, heat=0.25)
            return
        if self.being == "clown":
            d = ellipse(x, y - 0.14, 0.105, 0.105)
            self.add_to_face(
                "nose", d, self.rgb(0.92, 0.10, 0.12), self.lambert(x / 0.12, (y - 0.14) / 0.12, 0.5, 0.7), heat=0.95
            )
            self.add_to_face(
                "nose shine",
                ellipse(x + 0.03, y - 0.105, 0.025, 0.02),
                self.rgb(1, 0.8, 0.8),
                None,
                outline=False,
                blank=True,
                heat=0.95,
            )
            return
        w = s["nose_width"] * {"child": 0.78, "elf": 0.9}.get(self.being, 1.0)
        tip_y = 0.165 if self.being != "child" else 0.15
        tip = ellipse(x, y - tip_y, 0.078 * w, 0.050)
        bridge = capsule(x, y, 0.0, 0.0, 0.0, tip_y - 0.02, 0.032)
        shade = self.lambert(x / (0.085 * w), (y - tip_y + 0.02) / 0.11, 0.52, 0.62)
        self.add_to_face(
            "bridge",
            bridge,
            self.skin,
            self.lambert(x / 0.05, torch.zeros_like(x), 0.55, 0.58),
            outline=False,
            opacity=0.55,
            soft=2.0,
            heat=self.heat * 0.8,
        )
        self.add_to_face("nose", tip, self.skin * 0.97, shade, heat=self.heat * 0.62)
        nostrils = ellipse(x.abs() - 0.040 * w, y - tip_y - 0.030, 0.021 * w, 0.015)
        self.add_to_face("nostrils", nostrils, self.skin * 0.30, None, outline=False, opacity=0.85, heat=0.5)

    def beard(self) -> None:
        if self.being in ("alien", "robot", "child"):
            return
        x, y = self.mx, self.hy
        colour = self.hair_colour * 0.80
        shade = self.face_shade * (1 + 0.12 * (38 * self.hx).sin() * (30 * y).sin())
        upper = 0.235 - 1.9 * x * x
        d = torch.maximum(self.head_d - 0.035, upper - y)
        self.add("beard", d, colour, shade, opacity=self.weight("beard", 2), heat=0.5)
        droop = y - 0.232 - 0.9 * x * x
        d = torch.maximum(box(x, droop, 0.165, 0.034, 0.03), 0.01 - y)
        self.add_to_face("moustache", d, colour * 0.9, shade, opacity=self.weight("beard", 1), heat=0.5)

    def mouth(self) -> None:
        s, y = self.s, self.hy
        x = self.fx - 0.04 * s["yaw"].sin()
        centre = {"child": 0.285, "alien": 0.345}.get(self.being, 0.315)
        half = {"child": 0.120, "alien": 0.075, "zombie": 0.165}.get(self.being, 0.150)
        u = x / half
        profile = 1 - u * u
        line = y - centre - 0.055 * s["mouth_curve"] * (profile - 0.45)
        opening = 0.062 * s["mouth_opening"]
        if self.being == "robot":
            d = torch.maximum(line.abs() - 0.035 - opening, x.abs() - half)
            self.add_to_face("mouth", d, self.rgb(0.14, 0.15, 0.18), None, heat=0.6)
            bars = torch.maximum(d + 0.012, -(0.35 - (x * 42).cos()) * 0.04)
            self.add_to_face("grille", bars, self.rgb(0.75, 0.80, 0.85), None, outline=False, heat=0.4)
            return
        lips = line.abs() - (0.030 + opening) * profile
        colour = {
            "zombie": self.rgb(0.26, 0.14, 0.16), "alien": self.skin * 0.5, "clown": self.rgb(0.88, 0.08, 0.12),
        }.get(self.being, self.skin * self.rgb(0.86, 0.48, 0.50))  # fmt: skip
        if self.being == "clown":
            paint = ellipse(x, line, 0.235, 0.095 + opening)
            self.add_to_face("mouth paint", paint, self.rgb(0.90, 0.10, 0.12), self.face_shade, heat=0.9)
            self.add_to_face("mouth", lips, self.rgb(0.25, 0.02, 0.04), None, heat=0.95)
            return
        self.add_to_face("lips", lips, colour, self.face_shade, heat=0.95 if self.being != "zombie" else 0.3)
        gap = line.abs() - (opening * 1.02 - 0.004) * (1 - (u / 0.86).square())
        self.add_to_face("mouth", gap, self.rgb(0.22, 0.05, 0.06), None, outline=False, heat=1.0)
        teeth = torch.maximum(gap + 0.008, line + 0.012)
        bone = self.rgb(0.80, 0.76, 0.48) if self.being == "zombie" else self.rgb(0.96, 0.95, 0.93)
        self.add_to_face(
            "teeth", teeth, bone, None, outline=False, opacity=smooth(s["mouth_opening"], 0.15, 0.5), heat=0.9
        )
        if self.being == "zombie":
            drip = capsule(x, y, 0.07, centre + 0.03, 0.075, centre + 0.14, 0.018)
            self.add_to_face("blood", drip, self.rgb(0.55, 0.05, 0.05), None, outline=False, heat=0.35)

    def front_hair(self) -> None:
        if not self.has_hair:
            return
        x, y, b = self.fx, self.hy, self.b
        full, side = self.weight("fringe", 1), self.weight("fringe", 2)
        line = -0.335 * b / 0.5 + 0.115 * full  # height of the hairline
        line = line + side * (0.13 * (x * 5.0).clamp(-1, 1) + 0.01)
        line = line + full * 0.016 * (x * 38).sin()
        width = self.a * 0.90
        span = 0.95
        opening = ellipse(x, y - line - span, width * 1.02, span)
        end = self.choose("hair_length", 0.02, 0.36, 0.52)
        d = torch.maximum(torch.maximum(self.mass, -opening), y - end)
        self.add("hair", d, self.hair_colour, self.strands, heat=0.36)

    def being_marks(self) -> None:
        x, y = self.fx, self.hy
        if self.being == "zombie":
            scar = capsule(x, y, -0.29, 0.02, -0.15, 0.26, 0.013)
            self.add_to_face("scar", scar, self.rgb(0.42, 0.12, 0.12), None, heat=0.3)
            t = (x + 0.22) * 0.5 + (y - 0.14) * 0.87
            stitches = torch.maximum(
                (t * 44).sin().abs() * 0.03 - 0.012, ((x + 0.22) * 0.87 - (y - 0.14) * 0.5).abs() - 0.045
            )
            stitches = torch.maximum(stitches, t.abs() - 0.15)
            self.add_to_face("stitches", stitches, self.rgb(0.20, 0.08, 0.08), None, outline=False, heat=0.3)
        elif self.being == "child":
            u, w = self.mx - 0.20, y - 0.135
            freckles = torch.minimum(ellipse(u, w, 0.015, 0.015), ellipse(u.abs() - 0.06, w + 0.04, 0.015, 0.015))
            self.add_to_face(
                "freckles", freckles, self.skin * self.rgb(0.62, 0.46, 0.40), None, outline=False, heat=0.8, blank=True
            )
        elif self.being == "elf":
            band = torch.maximum((y + 0.255 * self.b / 0.5 - 0.10 * (1 - x * x * 4)).abs() - 0.020, self.head_d - 0.01)
            self.add_to_face("circlet", band, self.rgb(0.95, 0.80, 0.30), self.head_shade * 1.1, heat=0.3)
            gem = x.abs() / 0.04 + (y + 0.145 * self.b / 0.5).abs() / 0.055 - 1
            self.add_to_face("gem", gem * 0.035, self.rgb(0.10, 0.80, 0.45), None, heat=0.3)

    def glasses(self) -> None:
        shown = self.weight("glasses", 1, 2)
        square = self.weight("glasses", 2) / shown.clamp(min=1e-3)
        u, w = self.ex, self.ey + (0.0 if self.being != "alien" else -0.01)
        round_d = ellipse(u, w, 0.138, 0.138)
        square_d = box(u, w, 0.148, 0.112, 0.02)
        d = mix(round_d, square_d, square)
        frame = torch.minimum(
            d.abs() - 0.019, torch.maximum((w + 0.02).abs() - 0.017, torch.maximum(-d, self.mx - 0.1))
        )
        temple = torch.maximum((w + 0.03).abs() - 0.015, torch.maximum(0.16 - u.abs(), self.head_d - 0.02))
        frame = torch.minimum(frame, torch.maximum(temple, -self.mx + 0.2))
        self.add_to_face(
            "lenses",
            d,
            self.rgb(0.80, 0.90, 1.0),
            None,
            over=0.03,
            outline=False,
            opacity=0.16 * shown,
            heat=0.30,
            blank=True,
        )
        self.add_to_face("glasses", frame, self.rgb(0.10, 0.09, 0.10), None, over=0.03, opacity=shown, heat=0.12)

    def earrings(self) -> None:
        if self.being in ("alien", "elf", "robot"):
            return
        x, y = (self.hx + 0.05 * self.s["yaw"]).abs() - self.a - 0.03, self.hy - 0.21
        gold = self.lambert(x / 0.08, y / 0.08, 0.6, 0.6)
        self.add(
            "earrings",
            ellipse(x, y, 0.056, 0.062),
            self.rgb(0.98, 0.78, 0.16),
            gold,
            opacity=self.weight("earrings", 1),
            heat=0.12,
        )

    def hat(self) -> None:
        x, y, a, b = self.hx, self.hy, self.a, self.b
        low = -0.60 * b  # lower edge on the forehead
        arc = 0.09 * (x / a).square()
        grow = 0.03 if self.being != "alien" else 0.09
        dome = ellipse(x, y + 0.05, a + 0.075 + grow, b + 0.13)
        beanie = torch.maximum(dome, y - low - arc * 0.4)
        w = self.weight("hat", 1)
        knit = self.lambert(x / 0.6, (y + 0.3) / 0.5) * (1 + 0.08 * (x * 46).sin())
        self.add("beanie", beanie, self.cloth * 0.85 + 0.05, knit, opacity=w, heat=0.30)
        fold = box(x, y - low - arc * 0.4 + 0.05, a + 0.085 + grow, 0.062, 0.04)
        self.add("beanie fold", fold, self.cloth * 0.65 + 0.22, knit, opacity=w, heat=0.30)
        w = self.weight("hat", 2)
        felt = self.rgb(0.33, 0.21, 0.13)
        crown = torch.maximum(box(x, y - low + 0.17, a * 0.86 + grow, 0.23, 0.08), y - low)
        shade = self.lambert(x / 0.5, (y + 0.4) / 0.8)
        self.add("crown", crown, felt, shade, opacity=w, heat=0.28)
        ribbon = torch.maximum(crown + 0.004, (y - low + 0.075).abs() - 0.035)
        self.add("ribbon", ribbon, self.rgb(0.78, 0.62, 0.30), shade, outline=False, opacity=w, heat=0.28)
        brim = ellipse(x, y - low - 0.01, a + 0.26, 0.062)
        self.add("brim", brim, felt * 1.25, shade, opacity=w, heat=0.28)


def build_scene(values: dict[str, Tensor], being: str) -> Scene:
    """The layers of n portraits of one being.

    Args:
        values: factor values as `factors.values` gives them.
        being: a name in `domains.BEINGS`.
    """
    paint = _Builder(values, being)
    paint.background()
    paint.back_hair()
    paint.neck_and_clothes()
    paint.ears()
    paint.head()
    paint.nose()
    paint.beard()
    paint.mouth()
    paint.eyes()
    paint.brows()
    paint.front_hair()
    if being == "elf":
        paint.elf_ears()
    paint.being_marks()
    paint.glasses()
    paint.earrings()
    paint.hat()
    return Scene(paint.layers, paint.x, paint.y, paint.light[0], paint.light[1])
