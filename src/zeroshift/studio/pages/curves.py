"""Progress and loss curves of a run as HTML: numbers and escaped names, no scripts, readable in dark mode."""

import html
from collections.abc import Mapping, Sequence

from zeroshift.report.charts import HEIGHT, LEFT, RIGHT, WIDTH, Curve
from zeroshift.studio.engine.progress import RunProgress

__all__ = ["curves_html", "progress_html"]

_MOST = 6  # curves of a stage


def progress_html(progress: RunProgress, state: str) -> str:
    """A progress bar over all stages; moving while the models are loaded."""
    if not progress.all_steps:
        return ""
    text = f"Step {progress.done} of {progress.all_steps}"
    known = progress.done or state not in ("running", "stopping")
    value = f' value="{progress.done}"' if known else ""
    return (
        f'<label class="run-bar"><span>{text}</span>'
        f'<progress max="{progress.all_steps}"{value} aria-label="{text}"></progress></label>'
    )


def curves_html(stages: Mapping[str, Sequence[Curve]]) -> str:
    """The curves of all stages, the last stage first."""
    parts = []
    for title, curves in reversed(list(stages.items())):
        if curves:
            figures = "".join(map(_svg, curves[:_MOST]))
            parts.append(f'<section><h3>{html.escape(title)}</h3><div class="curves">{figures}</div></section>')
    return "".join(parts)


def _svg(curve: Curve) -> str:
    name = html.escape(curve.name.replace("_", " "))
    label = f"{name}: from {curve.first:.4g} to {curve.last:.4g}, moving average"
    x_axis = "".join(
        f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(text)}</text>'
        for x, text in curve.x_ticks
    )
    y_axis = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{html.escape(text)}</text>'
        for y, text in curve.y_ticks
    )
    return (
        f"<figure><figcaption>{name}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f'{y_axis}{x_axis}<path class="raw" d="{curve.path}"/><path class="smooth" d="{curve.smooth}"/></svg></figure>'
    )
