"""Signed distance functions on a pixel grid: negative inside, in the units of the input coordinates."""

import torch
from torch import Tensor

__all__ = ["box", "capsule", "ellipse", "mix", "smooth", "smooth_union"]


def ellipse(x: Tensor, y: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """Distance to an ellipse with half axes a, b (first-order approximation, exact on the boundary)."""
    u, v = x / a, y / b
    k1 = (u * u + v * v).sqrt()
    u, v = u / a, v / b
    return k1 * (k1 - 1) * (u * u + v * v + 1e-6).rsqrt()


def box(x: Tensor, y: Tensor, a: Tensor | float, b: Tensor | float, radius: Tensor | float = 0.0) -> Tensor:
    """Distance to a box with half sides a, b and corners rounded by `radius`."""
    u, v = x.abs() - a + radius, y.abs() - b + radius
    return (u.clamp(min=0).square() + v.clamp(min=0).square() + 1e-9).sqrt() + torch.maximum(u, v).clamp(max=0) - radius


def capsule(
    x: Tensor,
    y: Tensor,
    x0: Tensor | float,
    y0: Tensor | float,
    x1: Tensor | float,
    y1: Tensor | float,
    r: Tensor | float,
) -> Tensor:
    """Distance to a capsule: the segment (x0, y0)-(x1, y1) with radius r."""
    dx, dy = x1 - x0, y1 - y0
    t = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy + 1e-9)).clamp(0, 1)
    return ((x - x0 - t * dx).square() + (y - y0 - t * dy).square() + 1e-9).sqrt() - r


def smooth_union(d0: Tensor, d1: Tensor, k: float) -> Tensor:
    """Union of two shapes with a seam smoothed over a length k."""
    h = ((k - (d0 - d1).abs()) / k).clamp(min=0)
    return torch.minimum(d0, d1) - h * h * (k * 0.25)


def smooth(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Smoothstep from 0 at `low` to 1 at `high`."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Tensor | float, b: Tensor | float, t: Tensor | float) -> Tensor:
    """Linear interpolation from a (t = 0) to b (t = 1)."""
    return torch.as_tensor(a + (b - a) * t)
