"""From factors to a scene: background, body, head, hair and hat. `face` has the parts of the face."""

import torch
from torch import Tensor

from zeroshift.miniature.world import face
from zeroshift.miniature.world.figure import BACKGROUNDS, BodyFigure, palette
from zeroshift.miniature.world.scene import Scene
from zeroshift.miniature.world.shapes import box, capsule, ellipse, mix, smooth, smooth_union

__all__ = ["build_scene"]


def background(f: BodyFigure) -> None:
    base = palette(f.v["background_color"], BACKGROUNDS)
    light = f.s["background_lightness"][:, None]
    base = mix(base * 0.55, base * 0.6 + 0.4, light)
    lx, ly, _ = f.light
    radius = f.x * f.x + (f.y + 0.1) * (f.y + 0.1)
    shade = 1.06 - 0.16 * radius + 0.16 * (f.x * lx + f.y * ly)
    f.add("background", torch.full_like(f.hx, -1.0), base, shade, outline=False, heat=0.10)


def hair_mass(f: BodyFigure) -> Tensor:
    """Distance to the whole volume of the hair, including the part that the face covers."""
    a, b, x, y = f.a, f.b, f.hx, f.hy
    wavy, curly = f.weight("hair_style", 1), f.weight("hair_style", 2)
    cropped = f.weight("hair_length", 0)
    volume = 0.045 + 0.05 * curly + 0.02 * wavy - 0.02 * cropped
    cap = ellipse(x, y + 0.05, a + volume, b + volume + 0.01)
    end = f.choose("hair_length", -0.06, 0.42, 0.90)
    flare = f.choose("hair_length", 0.0, 0.05, 0.09) * smooth(y, 0.0, 0.8)
    curtain = box(x, y - (end - 0.2) / 2, a + volume - 0.01 + flare, (end + 0.2) / 2 + 0.04, 0.14)
    mass = smooth_union(cap, curtain, 0.08)
    mass = torch.where(cropped > 0.999, torch.maximum(cap, y - 0.06), mass)  # cropped hair ends above the ears
    ripple = 0.022 * wavy * (11.0 * y + 2.0).sin()
    angle = torch.atan2(y + 0.05, x)
    ripple = ripple + 0.026 * curly * ((angle * 13).sin() + 0.6 * (y * 21).sin())
    return mass + ripple


def hair_shade(f: BodyFigure) -> Tensor:
    """Light on the hair: volume, strands that depend on the style, and a soft highlight."""
    x, y, a, b = f.hx, f.hy, f.a, f.b
    wavy, curly = f.weight("hair_style", 1), f.weight("hair_style", 2)
    straight = 1 - wavy - curly
    strands = straight * (44 * x + 4 * y).sin() + wavy * (30 * x + 2.2 * (11.0 * y + 2.0).sin()).sin()
    strands = strands + 1.1 * curly * (22 * x + 9 * y + 3 * (7 * y).sin()).sin() * (24 * y - 8 * x).sin()
    volume = f.lambert(x / (a * 1.35), (y + 0.05) / (b * 1.35), ambient=0.42, gain=0.74)
    gloss = (-((y + 0.36 - 0.5 * x * x) / 0.07).square()).exp() * (1 - curly)
    return volume * (1 + 0.16 * strands) + 0.16 * gloss


def back_hair(f: BodyFigure) -> None:
    if f.has_hair:
        f.mass, f.strands = hair_mass(f), hair_shade(f)
        f.add("back hair", f.mass, f.hair_color * 0.72, f.strands, heat=0.36)
    elif f.being == "clown":  # two big tufts
        x, y = f.hx.abs() - f.a - 0.03, f.hy + 0.10
        bumps = 0.03 * ((torch.atan2(y, x) * 8).sin())
        color = f.hair_color * 0.9 + 0.06
        shade = f.lambert((x - 0.02) / 0.34, y / 0.36) * (1 + 0.18 * (30 * f.hx).sin() * (30 * f.hy).sin())
        f.add("hair tufts", ellipse(x, y, 0.21, 0.27) + bumps, color, shade, heat=0.36)


def neck_and_clothes(f: BodyFigure) -> None:
    x, y, s = f.bx, f.by, f.s
    thin = {"alien": 0.62, "child": 0.72, "robot": 0.8}.get(f.being, 1.0)
    neck_shade = f.lambert(x / 0.24, 0.25 * torch.ones_like(x)) * (0.72 + 0.3 * smooth(y, 0.42, 0.72))
    f.add("neck", box(x, y - 0.6, 0.165 * thin, 0.3, 0.05), f.skin, neck_shade, heat=f.heat * 0.95)
    width = 0.70 * s["shoulder_width"] * {"child": 0.66, "alien": 0.82, "robot": 1.06, "zombie": 0.96}.get(f.being, 1.0)
    slope = 0.70 + 0.16 * (x / width).abs().pow(2.4)
    d = torch.maximum(box(x, y - 1.3, width, 0.64, 0.22), slope - y)
    d = torch.maximum(d, -ellipse(x, y - 0.64, 0.20 * (0.5 + 0.5 * thin), 0.15))  # neck line
    stripes = ((y - 0.05 * x * x) * 26).sin()
    stripes = (0.5 + stripes * 2.5).clamp(0, 1) * f.weight("clothing_pattern", 1)
    color = f.cloth * (1 - 0.62 * stripes)[:, None]
    white = f.v["clothing_color"][:, 5][:, None, None]
    color = color + (0.10 * stripes * (1 - white))[:, None]
    shade = f.lambert(x / (width * 1.15), (y - 1.1) / 0.9, ambient=0.5, gain=0.6)
    f.add("clothes", d, color, shade, heat=0.46)
    if f.being == "clown":
        frill = 0.025 * (x * 34).sin()
        ring = ellipse(x, y - 0.70, 0.34, 0.10) + frill
        f.add("ruff", ring, f.rgb(0.98, 0.93, 0.80), 0.82 + 0.2 * (x * 34).sin(), heat=0.4)
    elif f.being == "zombie":  # a torn collar
        rag = 0.055 * (torch.asin((x * 23).sin() * 0.98) + 0.5 * torch.asin((x * 41 + 1).sin() * 0.98))
        tear = torch.maximum(ellipse(x, y - 0.72, 0.40, 0.17) + rag, d + 0.02)
        f.add("tear", tear, f.skin * 0.82, shade, heat=f.heat * 0.9)
    elif f.being == "robot":
        f.add("bolt", ellipse(x, y - 0.92, 0.06, 0.06), f.rgb(0.2, 0.85, 0.95), None, heat=0.9)


def ears(f: BodyFigure) -> None:
    yaw = f.s["yaw"]
    x, y = (f.hx + 0.05 * yaw).abs() - f.a, f.hy - 0.02
    if f.being in ("alien",):
        return
    if f.being == "robot":
        f.add("ears", box(x - 0.03, y, 0.055, 0.10, 0.02), f.rgb(0.42, 0.46, 0.52), f.head_shade, heat=0.3)
        return
    ear = ellipse(x, y, 0.062, 0.095)
    f.add("ears", ear, f.skin * 0.95, f.head_shade * 0.92, heat=f.heat * 0.8)


def elf_ears(f: BodyFigure) -> None:
    """Long pointed ears in front of the hair."""
    x, y = (f.hx + 0.05 * f.s["yaw"]).abs() - f.a, f.hy - 0.0
    along = x * 0.72 - y * 0.70
    across = x * 0.70 + y * 0.72
    t = (along / 0.40).clamp(0, 1)
    d = torch.maximum(across.abs() - 0.085 * (1 - t) - 0.004, (along - 0.20).abs() - 0.24)
    f.add("elf ears", d, f.skin * 0.97, f.head_shade * 1.02, heat=0.8)
    f.add("inner ears", d + 0.035, f.skin * f.rgb(0.86, 0.66, 0.62), f.head_shade, outline=False, heat=0.8)


def head(f: BodyFigure) -> None:
    x, y, a, b = f.hx, f.hy, f.a, f.b
    low = (y / b).clamp(0, 1.1)
    pointed = 0.52 - 0.66 * f.s["jaw"]
    pointed = {"alien": torch.full_like(pointed, 0.85), "child": torch.full_like(pointed, 0.12)}.get(f.being, pointed)
    pointed = pointed + {"elf": 0.10, "zombie": 0.16}.get(f.being, 0.0)  # zombies have hollow cheeks
    d = ellipse(x * (1 + pointed * low * low), y, a, b)
    if f.being == "robot":
        d = box(x, y, a * 0.98, b * 0.97, 0.16)
    if f.being == "alien":
        d = smooth_union(d, ellipse(x, y + 0.14, a * 1.14, b * 0.82), 0.1)
    f.head_d = d
    # Darker toward the outline: occlusion by the hair, and skin that faces away from the viewer.
    shade = f.head_shade * (1 - 0.22 * smooth(d, -0.10, 0.02))
    f.add("head", d, f.skin, shade, heat=f.heat)
    if f.being in ("person", "elf", "child"):
        d_cheek = ellipse(f.mx - 0.235, y - 0.14, 0.10, 0.075)
        blush = {"child": 0.70}.get(f.being, 0.26)
        warm = (f.skin * f.rgb(1.04, 0.66, 0.62)).clamp(max=1)
        f.add(
            "cheeks",
            torch.maximum(d_cheek, d),
            warm,
            shade,
            outline=False,
            opacity=blush,
            soft=5.0,
            heat=f.heat,
            blank=True,
        )
    if f.being == "robot":
        seam = torch.maximum((y + 0.26).abs() - 0.012, d + 0.03)
        f.add("seam", seam, f.rgb(0.30, 0.34, 0.40), None, heat=0.2)
        rivets = ellipse(f.mx - 0.30, (y - 0.02).abs() - 0.33, 0.025, 0.025)
        f.add_to_face("rivets", rivets, f.rgb(0.32, 0.36, 0.42), None, heat=0.2)
        f.add("antenna", capsule(x, y, 0.0, -b - 0.16, 0.0, -b, 0.018), f.rgb(0.4, 0.44, 0.5), None, heat=0.2)
        f.add("antenna tip", ellipse(x, y + b + 0.18, 0.05, 0.05), f.rgb(0.98, 0.30, 0.22), None, heat=0.95)
    f.face_shade = shade


def front_hair(f: BodyFigure) -> None:
    if not f.has_hair:
        return
    x, y, b = f.fx, f.hy, f.b
    full, side = f.weight("fringe", 1), f.weight("fringe", 2)
    line = -0.335 * b / 0.5 + 0.115 * full  # height of the hairline
    line = line + side * (0.13 * (x * 5.0).clamp(-1, 1) + 0.01)
    line = line + full * 0.016 * (x * 38).sin()
    width = f.a * 0.90
    span = 0.95
    opening = ellipse(x, y - line - span, width * 1.02, span)
    end = f.choose("hair_length", 0.02, 0.36, 0.52)
    d = torch.maximum(torch.maximum(f.mass, -opening), y - end)
    f.add("hair", d, f.hair_color, f.strands, heat=0.36)


def earrings(f: BodyFigure) -> None:
    if f.being in ("alien", "elf", "robot"):
        return
    x, y = (f.hx + 0.05 * f.s["yaw"]).abs() - f.a - 0.03, f.hy - 0.21
    gold = f.lambert(x / 0.08, y / 0.08, 0.6, 0.6)
    f.add(
        "earrings",
        ellipse(x, y, 0.056, 0.062),
        f.rgb(0.98, 0.78, 0.16),
        gold,
        opacity=f.weight("earrings", 1),
        heat=0.12,
    )


def hat(f: BodyFigure) -> None:
    x, y, a, b = f.hx, f.hy, f.a, f.b
    low = -0.60 * b  # lower edge on the forehead
    arc = 0.09 * (x / a).square()
    grow = 0.03 if f.being != "alien" else 0.09
    dome = ellipse(x, y + 0.05, a + 0.075 + grow, b + 0.13)
    beanie = torch.maximum(dome, y - low - arc * 0.4)
    w = f.weight("hat", 1)
    knit = f.lambert(x / 0.6, (y + 0.3) / 0.5) * (1 + 0.08 * (x * 46).sin())
    f.add("beanie", beanie, f.cloth * 0.85 + 0.05, knit, opacity=w, heat=0.30)
    fold = box(x, y - low - arc * 0.4 + 0.05, a + 0.085 + grow, 0.062, 0.04)
    f.add("beanie fold", fold, f.cloth * 0.65 + 0.22, knit, opacity=w, heat=0.30)
    w = f.weight("hat", 2)
    felt = f.rgb(0.33, 0.21, 0.13)
    crown = torch.maximum(box(x, y - low + 0.17, a * 0.86 + grow, 0.23, 0.08), y - low)
    shade = f.lambert(x / 0.5, (y + 0.4) / 0.8)
    f.add("crown", crown, felt, shade, opacity=w, heat=0.28)
    ribbon = torch.maximum(crown + 0.004, (y - low + 0.075).abs() - 0.035)
    f.add("ribbon", ribbon, f.rgb(0.78, 0.62, 0.30), shade, outline=False, opacity=w, heat=0.28)
    brim = ellipse(x, y - low - 0.01, a + 0.26, 0.062)
    f.add("brim", brim, felt * 1.25, shade, opacity=w, heat=0.28)


def build_scene(values: dict[str, Tensor], being: str) -> Scene:
    """The layers of n portraits of one being.

    Args:
        values: factor values by name, as `factors.values` returns them.
        being: a name in `domains.BEINGS`.
    """
    f = BodyFigure(values, being)
    background(f)
    back_hair(f)
    neck_and_clothes(f)
    ears(f)
    head(f)
    face.nose(f)
    face.beard(f)
    face.mouth(f)
    face.eyes(f)
    face.brows(f)
    front_hair(f)
    if being == "elf":
        elf_ears(f)
    face.being_marks(f)
    face.glasses(f)
    earrings(f)
    hat(f)
    return Scene(f.layers, f.x, f.y, f.light[0], f.light[1])
