"""The media: one function per medium turns the layers of a scene into images.

Each function takes a `Scene` of n portraits and `noise`, which returns standard normal fields [n, *shape] of which
row i depends only on sample i and the number of the call. Each returns images [n, 3, 64, 64] in [0, 1].
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from zeroshift.miniature.world.scene import PIXEL, SIZE, Layer, Scene
from zeroshift.miniature.world.shapes import mix, smooth

__all__ = ["DEPICT", "Noise"]

Noise = Callable[..., Tensor]  # noise(*shape) -> [n, *shape]
_FAR = 10.0  # larger than any distance in an image


def _rgb(like: Tensor, r: float, g: float, b: float) -> Tensor:
    return torch.tensor((r, g, b), dtype=like.dtype, device=like.device)[None, :, None, None]


def _luminance(image: Tensor) -> Tensor:
    """[n, 64, 64] from [n, 3, 64, 64]."""
    return 0.30 * image[:, 0] + 0.59 * image[:, 1] + 0.11 * image[:, 2]


def _blur(image: Tensor, passes: int = 1) -> Tensor:
    """Binomial blur with the kernel [1, 2, 1], applied `passes` times."""
    for _ in range(passes):
        image = F.pad(image, (1, 1, 1, 1), mode="replicate")
        image = (image[..., :-2] + 2 * image[..., 1:-1] + image[..., 2:]) * 0.25
        image = (image[..., :-2, :] + 2 * image[..., 1:-1, :] + image[..., 2:, :]) * 0.25
    return image


def _cloud(noise: Noise, cells: int) -> Tensor:
    """Smooth noise [n, 64, 64] of about unit variance, with features of 64 / cells pixels."""
    return F.interpolate(noise(1, cells, cells), size=SIZE, mode="bicubic", align_corners=False)[:, 0] * 1.25


def _paint(scene: Scene, shade: Callable[[Layer], Tensor | None], skip_blank: bool = False) -> Tensor:
    """The layers' colors times `shade(layer)`, composited back to front."""
    image: Tensor | None = None
    for layer in scene.layers:
        if skip_blank and layer.blank:
            continue
        light = shade(layer)
        color = layer.color if light is None else layer.color * light[:, None]
        image = (
            color.expand(-1, 3, SIZE, SIZE) if image is None else image + (color - image) * layer.coverage()[:, None]
        )
    assert image is not None
    return image.clamp(0, 1)


def _shaded(layer: Layer) -> Tensor | None:
    return layer.shade


def _flat(layer: Layer) -> Tensor | None:
    return None


def _lines(scene: Scene, colors: bool = False) -> tuple[Tensor, Tensor | None]:
    """Distance [n, 64, 64] to the nearest visible contour; with `colors` also its color [n, 3, 64, 64]."""
    first = scene.layers[0].distance
    nearest = torch.full_like(first, _FAR)
    color = None
    for layer in scene.layers:
        if layer.name == "background":
            continue
        covered = layer.coverage()
        nearest = nearest + covered * _FAR
        if not layer.outline:
            continue
        contour = layer.distance.abs() + (1 - torch.as_tensor(layer.opacity)) * _FAR
        if colors:
            closer = (contour < nearest)[:, None]
            painted = layer.color.expand(-1, 3, SIZE, SIZE)
            color = torch.where(closer, painted, painted if color is None else color)
        nearest = torch.minimum(nearest, contour)
    return nearest, color


def _stroke(distance: Tensor, width: float, soft: float = 1.0) -> Tensor:
    """Coverage in [0, 1] of a line of `width` pixels along distance 0."""
    return (0.5 * width + 0.5 - distance / (PIXEL * soft)).clamp(0, 1)


def _figure(scene: Scene) -> Tensor:
    """Fraction of each pixel that shows the person and not the background, [n, 64, 64]."""
    bare = torch.ones_like(scene.layers[0].distance)
    for layer in scene.layers[1:]:
        bare = bare * (1 - layer.coverage())
    return 1 - bare


def _posterize(x: Tensor, levels: int) -> Tensor:
    return (x * (levels - 1)).round() / (levels - 1)


def photo(scene: Scene, noise: Noise) -> Tensor:
    return _paint(scene, _shaded)


def pencil_sketch(scene: Scene, noise: Noise) -> Tensor:
    dark = (1 - _luminance(_paint(scene, _shaded))) * _figure(scene)
    distance, _ = _lines(scene)
    wobble = 0.35 * _cloud(noise, 16) * PIXEL
    line = _stroke(distance + wobble, 1.0) * (0.82 + 0.12 * _cloud(noise, 10))
    x, y = scene.x / PIXEL, scene.y / PIXEL
    hatch = 0.5 + 0.5 * ((x + y) * (math.pi / 2.5)).sin()
    cross = 0.5 + 0.5 * ((x - y) * (math.pi / 2.5)).sin()
    tone = smooth(dark, 0.35, 0.75) * hatch * 0.62 + smooth(dark, 0.66, 0.95) * cross * 0.45
    grain = 0.035 * noise(SIZE, SIZE)
    gray = (0.95 + grain - tone * 0.8 - line.clamp(0, 1) * 0.8).clamp(0.05, 1)
    return gray[:, None] * _rgb(gray, 1.0, 0.99, 0.96)


def cartoon(scene: Scene, noise: Noise) -> Tensor:
    def two_tone(layer: Layer) -> Tensor | None:
        return None if layer.shade is None else 0.80 + 0.25 * smooth(layer.shade, 0.80, 0.86)

    flat = _paint(scene, two_tone)
    gray = _luminance(flat)[:, None]
    vivid = (gray + (flat - gray) * 1.75).clamp(0, 1) * 0.92 + 0.08
    distance, _ = _lines(scene)
    return vivid * (1 - _stroke(distance, 1.3))[:, None]


def pixel_art(scene: Scene, noise: Noise) -> Tensor:
    image = _paint(scene, _shaded)
    distance, _ = _lines(scene)
    image = image * (1 - 0.75 * _stroke(distance, 0.9))[:, None]
    small = F.avg_pool2d(image, 2)
    small = _posterize(((small - 0.5) * 1.25 + 0.5).clamp(0, 1), 5)
    return F.interpolate(small, scale_factor=2, mode="nearest")


def neon_sign(scene: Scene, noise: Noise) -> Tensor:
    distance, color = _lines(scene, colors=True)
    assert color is not None
    low, high = color.amin(1, keepdim=True), color.amax(1, keepdim=True)
    strength = smooth(high - low, 0.06, 0.30)
    tube = mix(_rgb(color, 0.55, 0.85, 1.0), 0.12 + 0.88 * (color - low) / (high - low + 1e-3), strength)
    tube = _blur(tube, 2)
    d = distance[:, None]
    glow = (-d / 0.075).exp()
    core = _stroke(distance, 0.9)[:, None]
    brick_y = ((scene.y / PIXEL) % 8 < 1).to(d)
    brick_x = (((scene.x / PIXEL) + 8 * ((scene.y / PIXEL / 8).floor() % 2)) % 16 < 1).to(d)
    wall = 0.07 * (1 - 0.6 * torch.maximum(brick_y, brick_x))[:, None] * _rgb(d, 0.9, 0.75, 1.25)
    image = wall * (1 + 5 * _blur(glow * tube, 3)) + 0.62 * glow * tube
    return (image + core * (0.55 * tube + 0.40)).clamp(0, 1)


def watercolor(scene: Scene, noise: Noise) -> Tensor:
    image = _paint(scene, lambda layer: None if layer.shade is None else 0.55 + 0.5 * layer.shade)
    wash = _blur(image, 1)
    cloud = _cloud(noise, 9)
    pigment = 1 - wash
    gray = pigment.mean(1, keepdim=True)
    pigment = (gray * 0.55 + (pigment - gray) * 1.25 + 0.02).clamp(min=0)
    edge = (_blur(image, 3) - _blur(image, 1)).abs().mean(1)
    pigment = pigment * (0.97 + 0.11 * cloud)[:, None] + (1.5 * edge)[:, None] * pigment.clamp(min=0.06)
    radius = torch.maximum(scene.x.abs(), scene.y.abs()) + 0.06 * _cloud(noise, 7) + 0.03 * cloud
    sheet = 1 - smooth(radius, 0.82, 0.93)
    granulation = 1 + 0.06 * noise(SIZE, SIZE)
    paper = _rgb(image, 0.985, 0.975, 0.94)
    return (paper - pigment * (sheet * granulation)[:, None] * paper).clamp(0, 1)


def _cells(noise: Noise, cell: int) -> tuple[Tensor, Tensor, Tensor]:
    """Voronoi cells of a jittered grid: each pixel's cell, and its distances in pixels to the two nearest seeds."""
    count = SIZE // cell
    jitter = 0.30 * noise(2, count, count).clamp(-1.4, 1.4)
    n = jitter.shape[0]
    index = torch.arange(SIZE, device=jitter.device)
    row, column = index // cell, index // cell
    first = torch.full((n, SIZE, SIZE), 1e9, device=jitter.device)
    second = first.clone()
    owner = torch.zeros((n, SIZE, SIZE), dtype=torch.long, device=jitter.device)
    for dr in (-1, 0, 1):
        for dc in (-1, 0, 1):
            r, c = (row + dr).clamp(0, count - 1), (column + dc).clamp(0, count - 1)
            at = jitter[:, :, r][:, :, :, c]  # [n, 2, 64, 64]
            sx = (c[None, None, :] + 0.5 + at[:, 0]) * cell - 0.5
            sy = (r[None, :, None] + 0.5 + at[:, 1]) * cell - 0.5
            distance = ((index[None, None, :] - sx).square() + (index[None, :, None] - sy).square()).sqrt()
            same = (r[:, None] * count + c[None, :])[None].expand(n, -1, -1)
            closer = (distance < first) & (owner.ne(same) | first.gt(1e8))
            tie = same.eq(owner) & first.lt(1e8)
            second = torch.where(closer, first, torch.where(tie, second, torch.minimum(second, distance)))
            owner = torch.where(closer, same, owner)
            first = torch.where(closer, distance, first)
    return owner, first, second


def stained_glass(scene: Scene, noise: Noise) -> Tensor:
    flat = _paint(scene, _flat)
    gray = _luminance(flat)[:, None]
    glass = (gray + (flat - gray) * 1.9).clamp(0.02, 1)
    owner, first, second = _cells(noise, 8)
    tint = noise(64).gather(1, owner.flatten(1)).view_as(first)  # one brightness per pane
    glass = glass * (0.96 + 0.17 * tint)[:, None] + 0.05
    ripple = 0.05 * _cloud(noise, 16)
    distance, _ = _lines(scene)
    lead = torch.maximum(_stroke(distance, 1.7), (1.25 - (second - first) * 0.75).clamp(0, 1))
    radius = scene.x * scene.x + scene.y * scene.y
    glow = (1.16 - 0.22 * radius + ripple)[:, None]
    return ((glass * glow) * (1 - lead[:, None]) + 0.05 * lead[:, None]).clamp(0, 1)


def marble_statue(scene: Scene, noise: Noise) -> Tensor:
    stone: Tensor | None = None
    for layer in scene.layers:  # all of one stone: only light and a trace of the tone remain
        if layer.blank:
            continue
        tone = _luminance(layer.color.expand(-1, 3, -1, -1))
        shade = layer.shade if layer.shade is not None else torch.full_like(layer.distance, 0.86)
        if layer.name == "background":
            value = 0.20 * shade.expand_as(layer.distance)
        else:
            value = (0.80 + 0.10 * smooth(tone, 0.0, 1.0)) * (0.25 + 0.80 * shade)
        stone = value if stone is None else stone + (value - stone) * layer.coverage()
    assert stone is not None
    distance, _ = _lines(scene)
    stone = stone * (1 - 0.42 * _stroke(distance, 0.9, 1.2))
    vein = (_cloud(noise, 5) * 1.3 + 0.6 * _cloud(noise, 10) + 3 * scene.x + 2 * scene.y).sin().abs()
    stone = stone * (1 - 0.20 * (1 - smooth(vein, 0.0, 0.22)) * _figure(scene))
    return stone.clamp(0, 1)[:, None] * _rgb(stone, 1.0, 0.985, 0.955)


def woodblock_print(scene: Scene, noise: Noise) -> Tensor:
    image = _paint(scene, lambda layer: None if layer.shade is None else 0.75 + 0.25 * layer.shade)
    tone = _luminance(image)
    paper, rose = _rgb(image, 0.94, 0.88, 0.74), _rgb(image, 0.84, 0.60, 0.46)
    indigo, ink = _rgb(image, 0.22, 0.36, 0.54), _rgb(image, 0.10, 0.10, 0.15)
    print_ = mix(ink, indigo, smooth(tone, 0.17, 0.21)[:, None])
    print_ = mix(print_, rose, smooth(tone, 0.40, 0.44)[:, None])
    print_ = mix(print_, paper, smooth(tone, 0.60, 0.64)[:, None])
    bokashi = mix(_rgb(image, 0.20, 0.38, 0.62), paper, smooth(scene.y + 0.06 * scene.x, -1.0, -0.05)[:, None])
    print_ = mix(bokashi, print_, _figure(scene)[:, None])
    grain = (scene.y * 30 + 2.2 * _cloud(noise, 4) + 0.8 * scene.x).sin()
    print_ = print_ * (1 + 0.055 * grain + 0.025 * noise(SIZE, SIZE))[:, None]
    distance, _ = _lines(scene)
    return mix(print_, ink, _stroke(distance, 1.6)[:, None]).clamp(0, 1)


def mosaic(scene: Scene, noise: Noise) -> Tensor:
    image = _paint(scene, _shaded)
    distance, _ = _lines(scene)
    image = image * (1 - 0.35 * _stroke(distance, 0.8))[:, None]
    gray = _luminance(image)[:, None]
    image = (gray + (image - gray) * 1.25).clamp(0, 1)
    tile = 4
    tiles = F.avg_pool2d(image, tile)
    count = SIZE // tile
    tiles = tiles * (1 + 0.10 * noise(1, count, count)) + 0.025 * noise(3, count, count)
    tiles = F.interpolate(tiles, scale_factor=tile, mode="nearest")
    index = torch.arange(SIZE, device=image.device) % tile
    joint = (index == tile - 1).to(image)
    bevel = (index == 0).to(image)
    grout = torch.maximum(joint[:, None], joint[None, :])
    light = torch.maximum(bevel[:, None], bevel[None, :]) * 0.12
    return mix(tiles + light, _rgb(image, 0.86, 0.84, 0.78), grout * 0.92).clamp(0, 1)


def blueprint(scene: Scene, noise: Noise) -> Tensor:
    distance, _ = _lines(scene)
    line = _stroke(distance, 0.75)
    index = torch.arange(SIZE, device=line.device)
    grid = torch.maximum((index % 8 == 0).to(line)[:, None], (index % 8 == 0).to(line)[None, :])
    paper = _rgb(line, 0.07, 0.22, 0.58) * (1 + 0.05 * _cloud(noise, 6) + 0.03 * noise(SIZE, SIZE))[:, None]
    paper = paper + 0.10 * grid
    tone = 1 - _luminance(_paint(scene, _flat, skip_blank=True))
    hatch = 0.5 + 0.5 * ((scene.x - scene.y) / PIXEL * (math.pi / 2)).sin()
    shade = (smooth(tone, 0.55, 0.75) * hatch * 0.20 * _figure(scene))[:, None]
    return mix(paper + shade, _rgb(line, 0.92, 0.96, 1.0), line[:, None] * 0.92).clamp(0, 1)


_HEAT = (
    (0.02, 0.01, 0.12),
    (0.28, 0.03, 0.50),
    (0.75, 0.12, 0.42),
    (0.98, 0.48, 0.10),
    (1.0, 0.86, 0.25),
    (1.0, 1.0, 0.88),
)


def thermal_image(scene: Scene, noise: Noise) -> Tensor:
    heat = torch.full_like(scene.layers[0].distance, scene.layers[0].heat)
    for layer in scene.layers[1:]:
        if layer.blank:
            continue
        rim = 1 - 0.16 * smooth(layer.distance, -0.16, 0.0)  # surfaces that face away look cooler
        heat = heat + (layer.heat * rim - heat) * layer.coverage()
    heat = _blur(heat[:, None])[:, 0] + 0.012 * noise(SIZE, SIZE) - 0.03 * scene.y
    stops = torch.arange(len(_HEAT), dtype=heat.dtype, device=heat.device)
    weights = (1 - (heat.clamp(0, 1)[:, None] * (len(_HEAT) - 1) - stops[None, :, None, None]).abs()).clamp(min=0)
    table = torch.tensor(_HEAT, dtype=heat.dtype, device=heat.device)
    return torch.einsum("nkhw,kc->nchw", weights, table)


DEPICT: dict[str, Callable[[Scene, Noise], Tensor]] = {
    "photo": photo,
    "pencil sketch": pencil_sketch,
    "cartoon": cartoon,
    "pixel art": pixel_art,
    "neon sign": neon_sign,
    "watercolor": watercolor,
    "stained glass": stained_glass,
    "marble statue": marble_statue,
    "woodblock print": woodblock_print,
    "mosaic": mosaic,
    "blueprint": blueprint,
    "thermal image": thermal_image,
}
