"""Line charts as SVG paths, and the training frequency of each layer."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["HEIGHT", "LEFT", "RIGHT", "WIDTH", "Curve", "charts", "curve", "layer_shares"]

WIDTH, HEIGHT, LEFT, RIGHT = 360, 190, 46, 14  # of a chart, in SVG user units
_BOTTOM, _TOP = 24, 10

_NOT_CHARTED = ("step", "seconds")
_APART = 0.09  # smallest distance of two labels on the x axis, as a fraction of it


@dataclass(frozen=True)
class Curve:
    """A line chart, ready to draw.

    Attributes:
        name: the quantity.
        meaning: one sentence about it; empty if unknown.
        path: SVG path of the values.
        smooth: SVG path of their moving average.
        x_ticks, y_ticks: (position, text).
        first, last: ends of the moving average.
    """

    name: str
    meaning: str
    path: str
    smooth: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    first: float
    last: float


def curve(name: str, steps: Sequence[int], values: Sequence[float], meaning: str = "", smoothing: float = 0.9) -> Curve:
    """The chart of values over steps, with their bias-corrected exponential moving average.

    Args:
        name, meaning: see `Curve`.
        steps: numbers of finished steps; the x axis goes from 0 to the last one.
        values: one per step.
        smoothing: decay of the moving average.
    """
    smooth, average = [], 0.0
    for i, value in enumerate(values, start=1):
        average = smoothing * average + (1 - smoothing) * value
        smooth.append(average / (1 - smoothing**i))
    low, high, y_marks = _scale(min(values), max(values))
    end = max(1, *steps) if steps else 1

    def x(step: float) -> float:
        return LEFT + step / end * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _BOTTOM - _TOP)

    def path(ys: Sequence[float]) -> str:
        return "M" + " L".join(f"{x(step):.1f},{y(value):.1f}" for step, value in zip(steps, ys, strict=True))

    return Curve(
        name=name,
        meaning=meaning,
        path=path(values),
        smooth=path(smooth),
        x_ticks=[(x(mark), f"{mark:,}") for mark in _step_marks(end)],
        y_ticks=[(y(mark), f"{mark:g}") for mark in y_marks],
        first=smooth[0],
        last=smooth[-1],
    )


def _step_marks(end: int) -> list[int]:
    """Ticks of an axis from 0 to a whole number, which is the last tick."""
    _, _, marks = _scale(0, end)
    whole = [round(mark) for mark in marks if mark == round(mark) and mark <= end * (1 - _APART)]
    return [*whole, end]


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


def charts(records: Sequence[dict[str, Any]], meanings: Mapping[str, str] | None = None) -> list[Curve]:
    """One chart per number that was logged at every step and is always finite, the loss first.

    A number that always equals an earlier one is left out, such as the only term of a loss.

    Args:
        records: of one stage; "step" counts from 0.
        meanings: a sentence for each name.
    """
    if not records:
        return []
    names = [name for name, value in records[-1].items() if isinstance(value, int | float) and name not in _NOT_CHARTED]
    steps = [record["step"] + 1 for record in records]
    drawn: dict[str, list[float]] = {}
    for name in sorted(names, key=lambda name: (name != "loss", name)):
        logged = [record.get(name) for record in records]
        values = [float(value) if isinstance(value, int | float) else math.nan for value in logged]
        if all(map(math.isfinite, values)) and values not in drawn.values():
            drawn[name] = values
    return [curve(name, steps, values, (meanings or {}).get(name, "")) for name, values in drawn.items()]
