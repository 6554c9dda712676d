"""Line charts as SVG paths, and the training frequency of each layer."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["BOTTOM", "HEIGHT", "LEFT", "TOP", "WIDTH", "Curve", "charts", "curve", "layer_shares"]

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 220, 52, 26, 12  # of a chart, in SVG user units

_NOT_CHARTED = ("step", "seconds")


@dataclass(frozen=True)
class Curve:
    """A line chart, ready to draw.

    Attributes:
        name: the quantity.
        path: SVG path of the values.
        smooth: SVG path of their moving average.
        x_ticks, y_ticks: (position, text).
        first, last: ends of the moving average.
    """

    name: str
    path: str
    smooth: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    first: float
    last: float


def curve(name: str, steps: Sequence[int], values: Sequence[float], smoothing: float = 0.9) -> Curve:
    """The chart of values over steps, with their bias-corrected exponential moving average."""
    smooth, average = [], 0.0
    for i, value in enumerate(values, start=1):
        average = smoothing * average + (1 - smoothing) * value
        smooth.append(average / (1 - smoothing**i))
    low, high, y_marks = _scale(min(values), max(values))
    x_low, x_high, x_marks = _scale(min(steps), max(steps))

    def x(step: float) -> float:
        return LEFT + (step - x_low) / (x_high - x_low) * (WIDTH - LEFT - 12)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    def path(ys: Sequence[float]) -> str:
        return "M" + " L".join(f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, ys, strict=True))

    return Curve(
        name=name,
        path=path(values),
        smooth=path(smooth),
        x_ticks=[(x(mark), f"{mark:g}") for mark in x_marks],
        y_ticks=[(y(mark), f"{mark:g}") for mark in y_marks],
        first=smooth[0],
        last=smooth[-1],
    )


def _scale(low: float, high: float) -> tuple[float, float, list[float]]:
    """Ends and ticks of an axis for values from low to high; ticks are 1, 2 or 5 times a power of ten apart."""
    if high <= low:
        low, high = low - 0.5, low + 0.5
    min_step = (high - low) / 4
    power = 10 ** math.floor(math.log10(min_step))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= min_step)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, last * step, [round(i * step, 12) for i in range(first, last + 1)]


def layer_shares(records: Sequence[dict[str, Any]]) -> list[tuple[str, float]]:
    """Fraction of the logged steps in which each layer was trained, from input to output of the generator."""
    logged = [record["layers"] for record in records if record.get("layers")]
    counts = Counter(layer for layers in logged for layer in layers)
    return [(layer, counts[layer] / len(logged)) for layer in sorted(counts, key=_depth)]


def _depth(layer: str) -> tuple[int, str]:
    """Sort key: the resolution in a name such as "synthesis.b8.conv0", then the name."""
    digits = "".join(character for character in layer.split(".")[1] if character.isdigit()) if "." in layer else ""
    return int(digits or 0), layer


def charts(records: Sequence[dict[str, Any]]) -> list[Curve]:
    """One chart per number that was logged at every step and is always finite, the loss first.

    A number that always equals an earlier one is left out, such as the only term of a loss.
    """
    if not records:
        return []
    names = [name for name, value in records[-1].items() if isinstance(value, int | float) and name not in _NOT_CHARTED]
    steps = [record["step"] for record in records]
    drawn: dict[str, list[float]] = {}
    for name in sorted(names, key=lambda name: (name != "loss", name)):
        logged = [record.get(name) for record in records]
        values = [float(value) if isinstance(value, int | float) else math.nan for value in logged]
        if all(map(math.isfinite, values)) and values not in drawn.values():
            drawn[name] = values
    return [curve(name, steps, values) for name, values in drawn.items()]
