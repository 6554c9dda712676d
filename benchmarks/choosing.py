"""The tables of docs/choosing.md: the records of the benchmarks, averaged over each kind of target.

python benchmarks/choosing.py
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from zeroshift.miniature.benchmark.measures import comparable

DOCS = Path(__file__).absolute().parents[1] / "docs"
KINDS = {
    "beings": ("zombie", "alien", "robot", "clown", "elf"),
    "media": ("pencil sketch", "cartoon", "marble statue", "neon sign"),
    "both": ("mosaic of a robot", "pencil sketch of a zombie", "watercolor of a zombie", "cartoon of a robot"),
}
MEASURES = {"accuracy": ("domain", "{:.0%}"), "distance": ("distance", "{:.3f}"), "psnr": ("PSNR", "{:.1f}")}
MEASURES["kept"] = ("kept", "{:.2f}")
FREE = "adapt.clamp_images=false,adapt.range_weight=0"
ROWS = (  # label, file, variant in the file
    ("source", "benchmark", "source"),
    ("nada", "benchmark", "nada"),
    ("nada, images not in range", "benchmark-in-range", f"nada:{FREE}"),
    ("ipl", "benchmark", "ipl"),
    ("ipl, images not in range", "benchmark-in-range", f"ipl:{FREE}"),
    ("scaffold", "benchmark", "scaffold"),
    ("compass", "benchmark", "compass"),
    ("domain-vector", "benchmark", "domain-vector"),
    ("air", "benchmark", "air"),
    ("svl", "benchmark", "svl"),
    ("DDPM, nada", "benchmark-diffusion", "diffusionclip"),
    ("DDPM, ipl", "benchmark-diffusion", "diff-ipl"),
    ("autoencoder, nada", "benchmark-diffusion", "diffusionclip-autoencoder"),
    ("autoencoder, ipl", "benchmark-diffusion", "diff-ipl-autoencoder"),
    ("autoencoder, scaffold", "benchmark-diffusion", "scaffold-autoencoder"),
    ("autoencoder, compass", "benchmark-diffusion", "compass-autoencoder"),
)


@cache
def records(file: str) -> list[dict[str, Any]]:
    """The records of a benchmark, without values that are not comparable."""
    return comparable(json.loads((DOCS / f"{file}.json").read_text(encoding="utf-8"))["trials"])


def kind_table(targets: Sequence[str]) -> str:
    """Means over targets of the means over seeds, in Markdown."""
    lines = [
        f"| method | {' | '.join(title for title, _ in MEASURES.values())} |",
        f"| --- |{' ---: |' * len(MEASURES)}",
    ]
    for label, file, variant in ROWS:
        cells = [_cell(records(file), variant, targets, key, form) for key, (_, form) in MEASURES.items()]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(trials: Sequence[dict[str, Any]], variant: str, targets: Sequence[str], key: str, form: str) -> str:
    by_target = []
    for target in targets:
        chosen = [one["measures"] for one in trials if (one["variant"], one["target"]) == (variant, target)]
        if values := [measures[key] for measures in chosen if key in measures]:
            by_target.append(mean(values))
    return form.format(mean(by_target)).replace("%", " %")


if __name__ == "__main__":
    for kind, targets in KINDS.items():
        print(f"{kind}\n\n{kind_table(targets)}\n")
