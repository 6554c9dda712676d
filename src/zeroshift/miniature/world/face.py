"""The parts of a face. Each function adds the layers of one part to a `BodyFigure`."""

import torch
from torch import Tensor

from zeroshift.miniature.world.figure import EYES, BodyFigure, palette
from zeroshift.miniature.world.shapes import box, capsule, ellipse, mix, smooth

__all__ = ["beard", "being_marks", "brows", "eyes", "glasses", "mouth", "nose"]


def nose(f: BodyFigure) -> None:
    x, y = f.fx - 0.10 * f.s["yaw"].sin(), f.hy
    if f.being == "alien":
        nostrils = ellipse(x.abs() - 0.03, y - 0.17, 0.012, 0.02)
        f.add_to_face("nostrils", nostrils, f.skin * 0.4, None, outline=False, heat=0.5)
    elif f.being == "robot":
        d = torch.maximum((x.abs() * 1.6 + (y - 0.14) * -0.7) - 0.07, (y - 0.14).abs() - 0.07)
        f.add_to_face("nose", d, f.rgb(0.45, 0.50, 0.56), f.face_shade, heat=0.25)
    elif f.being == "clown":
        d = ellipse(x, y - 0.14, 0.105, 0.105)
        f.add_to_face("nose", d, f.rgb(0.92, 0.10, 0.12), f.lambert(x / 0.12, (y - 0.14) / 0.12, 0.5, 0.7), heat=0.95)
        shine = ellipse(x + 0.03, y - 0.105, 0.025, 0.02)
        f.add_to_face("nose shine", shine, f.rgb(1, 0.8, 0.8), None, outline=False, blank=True, heat=0.95)
    else:
        _human_nose(f, x, y)


def _human_nose(f: BodyFigure, x: Tensor, y: Tensor) -> None:
    w = f.s["nose_width"] * {"child": 0.78, "elf": 0.9}.get(f.being, 1.0)
    tip_y = 0.165 if f.being != "child" else 0.15
    tip = ellipse(x, y - tip_y, 0.078 * w, 0.050)
    bridge = capsule(x, y, 0.0, 0.0, 0.0, tip_y - 0.02, 0.032)
    shade = f.lambert(x / (0.085 * w), (y - tip_y + 0.02) / 0.11, 0.52, 0.62)
    light = f.lambert(x / 0.05, torch.zeros_like(x), 0.55, 0.58)
    f.add_to_face("bridge", bridge, f.skin, light, outline=False, opacity=0.55, soft=2.0, heat=f.heat * 0.8)
    f.add_to_face("nose", tip, f.skin * 0.97, shade, heat=f.heat * 0.62)
    nostrils = ellipse(x.abs() - 0.040 * w, y - tip_y - 0.030, 0.021 * w, 0.015)
    f.add_to_face("nostrils", nostrils, f.skin * 0.30, None, outline=False, opacity=0.85, heat=0.5)


def beard(f: BodyFigure) -> None:
    if f.being in ("alien", "robot", "child"):
        return
    x, y = f.mx, f.hy
    color = f.hair_color * 0.80
    shade = f.face_shade * (1 + 0.12 * (38 * f.hx).sin() * (30 * y).sin())
    upper = 0.235 - 1.9 * x * x
    d = torch.maximum(f.head_d - 0.035, upper - y)
    f.add("beard", d, color, shade, opacity=f.weight("beard", 2), heat=0.5)
    droop = y - 0.232 - 0.9 * x * x
    d = torch.maximum(box(x, droop, 0.165, 0.034, 0.03), 0.01 - y)
    f.add_to_face("moustache", d, color * 0.9, shade, opacity=f.weight("beard", 1), heat=0.5)


def mouth(f: BodyFigure) -> None:
    s, y = f.s, f.hy
    x = f.fx - 0.04 * s["yaw"].sin()
    center = {"child": 0.285, "alien": 0.345}.get(f.being, 0.315)
    half = {"child": 0.120, "alien": 0.075, "zombie": 0.165}.get(f.being, 0.150)
    u = x / half
    profile = 1 - u * u
    line = y - center - 0.055 * s["mouth_curve"] * (profile - 0.45)
    opening = 0.062 * s["mouth_opening"]
    if f.being == "robot":
        d = torch.maximum(line.abs() - 0.035 - opening, x.abs() - half)
        f.add_to_face("mouth", d, f.rgb(0.14, 0.15, 0.18), None, heat=0.6)
        bars = torch.maximum(d + 0.012, -(0.35 - (x * 42).cos()) * 0.04)
        f.add_to_face("grille", bars, f.rgb(0.75, 0.80, 0.85), None, outline=False, heat=0.4)
        return
    lips = line.abs() - (0.030 + opening) * profile
    color = {
        "zombie": f.rgb(0.26, 0.14, 0.16), "alien": f.skin * 0.5, "clown": f.rgb(0.88, 0.08, 0.12),
    }.get(f.being, f.skin * f.rgb(0.86, 0.48, 0.50))  # fmt: skip
    if f.being == "clown":
        paint = ellipse(x, line, 0.235, 0.095 + opening)
        f.add_to_face("mouth paint", paint, f.rgb(0.90, 0.10, 0.12), f.face_shade, heat=0.9)
        f.add_to_face("mouth", lips, f.rgb(0.25, 0.02, 0.04), None, heat=0.95)
        return
    f.add_to_face("lips", lips, color, f.face_shade, heat=0.95 if f.being != "zombie" else 0.3)
    gap = line.abs() - (opening * 1.02 - 0.004) * (1 - (u / 0.86).square())
    f.add_to_face("mouth", gap, f.rgb(0.22, 0.05, 0.06), None, outline=False, heat=1.0)
    teeth = torch.maximum(gap + 0.008, line + 0.012)
    bone = f.rgb(0.80, 0.76, 0.48) if f.being == "zombie" else f.rgb(0.96, 0.95, 0.93)
    f.add_to_face("teeth", teeth, bone, None, outline=False, opacity=smooth(s["mouth_opening"], 0.15, 0.5), heat=0.9)
    if f.being == "zombie":
        drip = capsule(x, y, 0.07, center + 0.03, 0.075, center + 0.14, 0.018)
        f.add_to_face("blood", drip, f.rgb(0.55, 0.05, 0.05), None, outline=False, heat=0.35)


def eyes(f: BodyFigure) -> None:
    size = f.s["eye_size"] * {"child": 1.42, "elf": 1.06, "zombie": 1.02}.get(f.being, 1.0)
    f.ex = f.mx - 0.172 * f.s["eye_spacing"] * (1.06 if f.being == "child" else 1.0)
    f.ey = f.hy + (0.0 if f.being == "child" else 0.025)
    if f.being == "alien":
        _alien_eyes(f, size)
    elif f.being == "robot":
        _robot_eyes(f, size)
    else:
        _human_eyes(f, size)


def _alien_eyes(f: BodyFigure, size: Tensor) -> None:
    ex, ey = f.ex, f.ey
    u, w = ex - 0.01, ey - 0.01
    u, w = u * 0.88 + w * 0.47, w * 0.88 - u * 0.47  # slanted
    d = ellipse(u, -w, 0.165 * size, 0.098 * size)
    f.add_to_face("eyes", d, f.rgb(0.03, 0.03, 0.06), None, heat=0.5)
    shine = ellipse(ex + 0.03, ey + 0.035, 0.030, 0.026)
    f.add_to_face("shine", shine, f.rgb(0.85, 0.9, 1.0), None, outline=False, opacity=0.9, blank=True, heat=0.5)


def _robot_eyes(f: BodyFigure, size: Tensor) -> None:
    ex, ey = f.ex, f.ey
    f.add_to_face("sockets", ellipse(ex, ey, 0.115 * size, 0.115 * size), f.rgb(0.16, 0.18, 0.22), None, heat=0.3)
    glow = ellipse(ex, ey, 0.075 * size, 0.075 * size)
    f.add_to_face("eyes", glow, f.rgb(0.25, 0.95, 1.0), None, heat=1.0, soft=1.6)
    pupils = ellipse(ex, ey, 0.028 * size, 0.028 * size)
    f.add_to_face("pupils", pupils, f.rgb(0.95, 1.0, 1.0), None, outline=False, heat=1.0)


def _human_eyes(f: BodyFigure, size: Tensor) -> None:
    ex, ey, zombie = f.ex, f.ey, f.being == "zombie"
    if zombie:
        sockets = ellipse(ex, ey - 0.015, 0.150 * size, 0.120 * size)
        style = {"outline": False, "opacity": 0.85, "soft": 2.5, "heat": 0.25}
        f.add_to_face("sockets", sockets, f.rgb(0.20, 0.24, 0.17), f.face_shade, **style)
    if f.being == "clown":
        u = ex.abs() / 0.075 + (ey + 0.01).abs() / 0.25
        f.add_to_face("eye paint", (u - 1) * 0.07, f.rgb(0.16, 0.36, 0.85), f.face_shade, heat=0.7)
    slant = ey + (0.22 * ex if f.being == "elf" else 0.0)
    lid = ellipse(ex, slant + 0.012, 0.116 * size, 0.080 * size)
    f.add_to_face("lids", lid, f.skin * 0.35, None, outline=False, heat=f.heat)
    white = ellipse(ex, slant, 0.100 * size, 0.066 * size)
    sclera = f.rgb(0.93, 0.86, 0.52) if zombie else f.rgb(0.97, 0.97, 0.98)
    f.add_to_face("eyes", white, sclera, 0.72 + 0.28 * smooth(ey, -0.06, 0.0), heat=0.93)
    if zombie:
        iris = ellipse(ex, ey, 0.032 * size, 0.032 * size)
        f.add_to_face("irises", iris, f.rgb(0.75, 0.10, 0.08), None, heat=0.3, blank=True)
        return
    iris = torch.maximum(ellipse(ex, ey - 0.004, 0.062 * size, 0.062 * size), white)
    f.add_to_face("irises", iris, palette(f.v["eye_color"], EYES), None, outline=False, heat=0.9, blank=True)
    pupil = torch.maximum(ellipse(ex, ey - 0.004, 0.026 * size, 0.026 * size), white)
    f.add_to_face("pupils", pupil, f.rgb(0.04, 0.03, 0.04), None, outline=False, heat=0.9, blank=True)
    shine = ellipse(f.fx.sign() * ex + 0.022, ey + 0.026, 0.017, 0.017)
    f.add_to_face("shine", shine, f.rgb(1, 1, 1), None, outline=False, opacity=0.85, heat=0.9, blank=True)


def brows(f: BodyFigure) -> None:
    s = f.s
    if f.being == "alien":
        return
    lift = {"child": 0.045, "elf": 0.01}.get(f.being, 0.0)
    u, w = f.ex, f.ey + 0.158 + lift
    slope = -s["brow_tilt"] * u + (-0.30 * u if f.being == "elf" else 0.0)
    w = w - slope + 0.9 * u * u
    thickness = 0.021 * (
        s["brow_thickness"] if f.being not in ("robot", "clown") else torch.ones_like(s["brow_thickness"])
    )
    if f.being == "child":
        thickness = thickness * 0.8
    d = box(u, w, 0.112, thickness, 0.012)
    color = {"robot": f.rgb(0.24, 0.27, 0.32), "clown": f.rgb(0.1, 0.1, 0.12)}.get(f.being, f.hair_color * 0.62)
    f.add_to_face("brows", d, color, None, outline=False, heat=0.55)


def being_marks(f: BodyFigure) -> None:
    x, y = f.fx, f.hy
    if f.being == "zombie":
        scar = capsule(x, y, -0.29, 0.02, -0.15, 0.26, 0.013)
        f.add_to_face("scar", scar, f.rgb(0.42, 0.12, 0.12), None, heat=0.3)
        t = (x + 0.22) * 0.5 + (y - 0.14) * 0.87
        stitches = torch.maximum(
            (t * 44).sin().abs() * 0.03 - 0.012, ((x + 0.22) * 0.87 - (y - 0.14) * 0.5).abs() - 0.045
        )
        stitches = torch.maximum(stitches, t.abs() - 0.15)
        f.add_to_face("stitches", stitches, f.rgb(0.20, 0.08, 0.08), None, outline=False, heat=0.3)
        u, w = x - 0.205, y - 0.235 + 0.5 * (x - 0.205)  # the other cheek is an open wound with teeth
        wound = ellipse(u, w, 0.125, 0.085)
        f.add_to_face("wound", wound, f.rgb(0.24, 0.04, 0.05), None, heat=0.12)
        teeth = torch.maximum(torch.maximum(wound + 0.022, w.abs() - 0.046), (0.35 - (u * 66).cos()) * 0.03)
        f.add_to_face("jaw teeth", teeth, f.rgb(0.90, 0.86, 0.62), None, outline=False, heat=0.12)
    elif f.being == "child":
        u, w = f.mx - 0.20, y - 0.135
        freckles = torch.minimum(ellipse(u, w, 0.015, 0.015), ellipse(u.abs() - 0.06, w + 0.04, 0.015, 0.015))
        f.add_to_face("freckles", freckles, f.skin * f.rgb(0.62, 0.46, 0.40), None, outline=False, heat=0.8, blank=True)
    elif f.being == "elf":
        band = torch.maximum((y + 0.255 * f.b / 0.5 - 0.10 * (1 - x * x * 4)).abs() - 0.020, f.head_d - 0.01)
        f.add_to_face("circlet", band, f.rgb(0.95, 0.80, 0.30), f.head_shade * 1.1, heat=0.3)
        gem = x.abs() / 0.04 + (y + 0.145 * f.b / 0.5).abs() / 0.055 - 1
        f.add_to_face("gem", gem * 0.035, f.rgb(0.10, 0.80, 0.45), None, heat=0.3)


def glasses(f: BodyFigure) -> None:
    shown = f.weight("glasses", 1, 2)
    square = f.weight("glasses", 2) / shown.clamp(min=1e-3)
    u, w = f.ex, f.ey + (0.0 if f.being != "alien" else -0.01)
    round_d = ellipse(u, w, 0.138, 0.138)
    square_d = box(u, w, 0.148, 0.112, 0.02)
    d = mix(round_d, square_d, square)
    frame = torch.minimum(d.abs() - 0.019, torch.maximum((w + 0.02).abs() - 0.017, torch.maximum(-d, f.mx - 0.1)))
    temple = torch.maximum((w + 0.03).abs() - 0.015, torch.maximum(0.16 - u.abs(), f.head_d - 0.02))
    frame = torch.minimum(frame, torch.maximum(temple, -f.mx + 0.2))
    f.add_to_face(
        "lenses",
        d,
        f.rgb(0.80, 0.90, 1.0),
        None,
        over=0.03,
        outline=False,
        opacity=0.16 * shown,
        heat=0.30,
        blank=True,
    )
    f.add_to_face("glasses", frame, f.rgb(0.10, 0.09, 0.10), None, over=0.03, opacity=shown, heat=0.12)
