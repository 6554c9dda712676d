"""Adaptations in the miniature world, measured against the truth: methods x targets x seeds.

    python benchmarks/miniature_adaptation.py --out training/adaptation            # all of docs/miniature.md, section 4
    python benchmarks/miniature_adaptation.py --targets zombie --seeds 0 --set adapt.lr=0.005

Every finished adaptation is one line of OUT/results.jsonl; running again makes only those that are missing. At the
end (or with --summary-only) it prints the tables and writes OUT/tables.md and OUT/pictures/TARGET.png (rows: source,
one row a method, truth).
"""

import dataclasses
import json
import statistics
import time
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.progress import track

from zeroshift import load_generator
from zeroshift.config import AdaptConfig, preset
from zeroshift.images import make_grid, save_png
from zeroshift.miniature.domains import SOURCE, parse_domain
from zeroshift.miniature.encoders import load_judge, load_probe
from zeroshift.miniature.renderer import render, sample_latents
from zeroshift.miniature.truth import TruthExam
from zeroshift.trainer import adapt

TARGETS = (
    "zombie", "alien", "robot", "clown", "elf", "pencil sketch", "cartoon", "neon sign", "marble statue",
    "woodblock print", "thermal image", "mosaic of a robot",
)  # fmt: skip
MEASURES = ("accuracy", "diversity", "distance_ratio", "classes", "scalars", "seconds")
EXAM_SEED, PICTURE_PEOPLE = 1_000_003, 8


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to measure."""

    out: Path = Path("training/adaptation")
    targets: tuple[str, ...] = TARGETS
    methods: tuple[str, ...] = ("nada", "ipl")
    seeds: tuple[int, ...] = (0, 1, 2)
    people: int = 256
    """People of the exam, the same for every adaptation."""
    set: tuple[str, ...] = ()
    """Changes to the miniature preset, such as adapt.lr=0.005 prompts.base_text=none."""
    summary_only: bool = False


def configure(target: str, method: str, seed: int, changes: tuple[str, ...]) -> AdaptConfig:
    """The miniature preset with `changes` (path=value) applied."""
    config = preset("miniature", target, method=method, seed=seed)
    for change in changes:
        path, _, text = change.partition("=")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        value = tuple(value) if isinstance(value, list) else value
        stage, _, name = path.rpartition(".")
        if stage:
            config = dataclasses.replace(
                config, **{stage: dataclasses.replace(getattr(config, stage), **{name: value})}
            )
        else:
            config = dataclasses.replace(config, **{name: value})
    return config.validate()


def images_of(generator: torch.nn.Module, latents: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([generator(part) for part in latents.split(32)]).float().clamp(-1, 1)


def measure(arguments: Arguments) -> None:
    """Runs what is missing and appends its measures."""
    results = arguments.out / "results.jsonl"
    done = {(row["target"], row["method"], row["seed"], tuple(row["set"])) for row in read(results)}
    judge, probe, source = load_judge(), load_probe(), load_generator("miniature")
    latents = sample_latents(EXAM_SEED, range(arguments.people))
    todo = [(t, s, m) for s in arguments.seeds for t in arguments.targets for m in arguments.methods]
    for target, seed, method in track(todo, description="adaptations"):
        if (target, method, seed, arguments.set) in done:
            continue
        start = time.perf_counter()
        adapted = adapt(configure(target, method, seed, arguments.set), generator=source).generator.eval()
        seconds = time.perf_counter() - start
        images = images_of(adapted, latents)
        row = TruthExam.make(parse_domain(target), latents, judge, probe).measure(images)
        if seed == arguments.seeds[0]:
            folder = arguments.out / "images"
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(
                images[:PICTURE_PEOPLE], folder / f"{target} {method} {' '.join(arguments.set)}.pt".replace("/", "_")
            )
        with results.open("a") as file:
            head = {"target": target, "method": method, "seed": seed, "set": arguments.set, "seconds": seconds}
            file.write(json.dumps({**head, **row}) + "\n")


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def bounds(arguments: Arguments) -> list[dict]:
    """What nothing (the source generator) and everything (the truth) would reach, one row each a target."""
    judge, probe, source = load_judge(), load_probe(), load_generator("miniature")
    latents = sample_latents(EXAM_SEED, range(arguments.people))
    unadapted, rows = images_of(source, latents), []
    for target in arguments.targets:
        exam = TruthExam.make(parse_domain(target), latents, judge, probe)
        for method, images in (("(source)", unadapted), ("(truth)", exam.truth)):
            rows.append({"target": target, "method": method, "seed": 0, "seconds": 0.0, **exam.measure(images)})
    return rows


def table(rows: list[dict], arguments: Arguments) -> str:
    """Markdown: a line a target and method, mean ± standard deviation over seeds; then the mean over targets."""
    methods = ("(source)", *arguments.methods, "(truth)")
    lines = ["| target | method | " + " | ".join(MEASURES) + " |", "|" + " --- |" * (len(MEASURES) + 2)]

    def cell(values: list[float]) -> str:
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.3f}{spread}"

    for target in (*arguments.targets, "**mean**"):
        for method in methods:
            chosen = [r for r in rows if r["method"] == method and (target == "**mean**" or r["target"] == target)]
            if not chosen:
                continue
            if target == "**mean**":  # over targets of the mean over seeds
                by = [[r for r in chosen if r["target"] == t] for t in arguments.targets]
                cells = [
                    f"{statistics.mean(statistics.mean(r[m] for r in each) for each in by if each):.3f}"
                    for m in MEASURES
                ]
            else:
                cells = [cell([r[m] for r in chosen]) for m in MEASURES]
            lines.append(f"| {target} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def pictures(arguments: Arguments) -> None:
    """OUT/pictures/TARGET.png: source, a row a method, truth."""
    latents = sample_latents(EXAM_SEED, range(PICTURE_PEOPLE))
    source = images_of(load_generator("miniature"), latents)
    folder = arguments.out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for target in arguments.targets:
        rows = [source]
        for method in arguments.methods:
            path = arguments.out / "images" / f"{target} {method} {' '.join(arguments.set)}.pt".replace("/", "_")
            if path.exists():
                rows.append(torch.load(path, weights_only=True))
        rows.append(render(latents, parse_domain(target)))
        save_png(folder / f"{target.replace(' ', '-')}.png", make_grid(torch.cat(rows), columns=PICTURE_PEOPLE))


def main(arguments: Arguments) -> None:
    arguments.out.mkdir(parents=True, exist_ok=True)
    assert SOURCE.label not in arguments.targets, "the source domain is no target"
    if not arguments.summary_only:
        measure(arguments)
    rows = [row for row in read(arguments.out / "results.jsonl") if tuple(row["set"]) == arguments.set]
    text = table(rows + bounds(arguments), arguments)
    (arguments.out / "tables.md").write_text(text)
    pictures(arguments)
    Console().print(text)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
