"""The benchmark: its cells, what a second call makes, its statistics, its page."""

import dataclasses
import itertools
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zeroshift.cli.main import main
from zeroshift.config.settings import AdaptConfig, changed
from zeroshift.errors import ZeroshiftError
from zeroshift.io.images import make_grid, save_png
from zeroshift.miniature.benchmark import page as benchmark_page
from zeroshift.miniature.benchmark import trials as benchmark
from zeroshift.miniature.benchmark.bounds import BOUNDS
from zeroshift.miniature.benchmark.measures import MEASURES, against, countable, differences
from zeroshift.miniature.benchmark.page import write_page
from zeroshift.miniature.benchmark.statistics import LEAST_TARGETS, compare
from zeroshift.miniature.benchmark.trials import (
    FITTED,
    ROWS,
    SOURCES,
    TARGETS,
    Cell,
    Plan,
    Row,
    cores,
    finished,
    missing,
    parse_changes,
    parse_row,
    read_known,
    read_people,
)
from zeroshift.miniature.exams.truth import map_distance, variance_kept
from zeroshift.miniature.networks.encoders import load_judge
from zeroshift.miniature.world.domains import KEPT_OUT, MEDIA, parse_domain
from zeroshift.miniature.world.renderer import render, sample_latents

TINY = {"adapt.steps": 1, "adapt.batch_size": 2, "adapt.augmentations": 0, "adapt.layer_batch_size": 1}


def plan(out: Path, *rows: str, **changes: Any) -> Plan:
    bounds = {row.name: row for row in (*SOURCES.values(), *FITTED.values(), Row("truth"))}
    named = tuple(bounds[name] if name in BOUNDS else parse_row(name) for name in rows)
    given = {
        "targets": ("zombie",),
        "seeds": (0,),
        "people": 16,
        "changes": TINY,
        "fit_steps": 1,
        "processes": cores(),
    } | changes
    return Plan(out=out, rows=named, **given)


# -- rows and plans ---------------------------------------------------------------------------------------------------


def test_rows_and_targets() -> None:
    assert {"nada", "ipl", "ipl-label", "ipl-published", "air", "svl", "domain-vector"} <= {row.name for row in ROWS}
    assert len(TARGETS) >= 12
    domains = [parse_domain(target) for target in TARGETS]
    assert sum(domain in KEPT_OUT for domain in domains) >= 2, "pairs that the encoders never saw"
    assert len({domain.medium for domain in domains}) >= len(MEDIA) // 2


def test_every_row_can_be_configured(tmp_path: Path) -> None:
    for row in ROWS:
        config = Cell(row, "zombie", 3).config({"adapt.steps": 7})
        assert (config.seed, config.adapt.steps, config.method) == (3, 7, row.changes["method"])
    every = plan(tmp_path, *(row.name for row in ROWS))
    made = [every.made_with(cell)["settings"] for cell in every.cells()]
    assert all(a != b for a, b in itertools.combinations(made, 2))
    assert made[[row.name for row in ROWS].index("air")]["options.samples"] == 200, "a method's own settings count, too"


def test_a_row_with_changes() -> None:
    row = parse_row("ipl:prompts.base-text=label,adapt.augmentations=0")
    config = Cell(row, "zombie", 0).config({})
    assert (config.prompts.base_text, config.adapt.augmentations) == ("label", 0)
    assert row.name == "ipl:prompts.base-text=label,adapt.augmentations=0"
    listed = parse_row('nada:adapt.betas=[0.0,0.99],adapt.layers=["b8.conv0","b16.conv0"],adapt.lr=0.5')
    assert {"adapt.betas": (0.0, 0.99), "adapt.layers": ("b8.conv0", "b16.conv0"), "adapt.lr": 0.5}.items() <= (
        listed.changes.items()
    ), "a list's own commas part no changes"
    assert parse_changes(['adapt.layers=["all"]', "adapt.lr=0.5"]) == {"adapt.layers": ("all",), "adapt.lr": 0.5}


def test_changed() -> None:
    config = changed(AdaptConfig(target="zombie"), {"adapt.lr": 0.5, "seed": 2})
    assert config == dataclasses.replace(
        AdaptConfig(target="zombie"), seed=2, adapt=dataclasses.replace(AdaptConfig(target="").adapt, lr=0.5)
    )
    for name in ("adapt.speed", "nothing", "adapt.lr.more", "seed.more"):
        with pytest.raises(ZeroshiftError, match=f"no setting '{name}'"):
            changed(config, {name: 1})


def test_what_makes_no_sense_is_told(tmp_path: Path) -> None:
    for call, sentence in (
        (lambda: parse_row("magic"), "no method 'magic'"),
        (lambda: parse_row("ipl:views"), "'views' changes no setting"),
        (lambda: plan(tmp_path, "nada", targets=("photo",)).validate(), "is the source domain"),
        (lambda: plan(tmp_path, "nada", targets=("unicorn",)).validate(), "no domain 'unicorn'"),
        (lambda: plan(tmp_path, "nada", "nada").validate(), "named twice"),
        (lambda: plan(tmp_path, "nada", seeds=()).validate(), "at least one"),
        (lambda: plan(tmp_path, "nada", people=3).validate(), "at least 16 people"),
        (lambda: plan(tmp_path, "nada", fit_steps=-5).validate(), "no negative number"),
        (lambda: plan(tmp_path, "nada:adapt.lr=0").validate(), "adapt.lr is 0"),
        (lambda: plan(tmp_path, "nada", changes={"adapt.speed": 1}).validate(), "no setting 'adapt.speed'"),
    ):
        with pytest.raises(ZeroshiftError, match=sentence):
            call()


def test_bounds_have_one_seed(tmp_path: Path) -> None:
    cells = plan(tmp_path, "source", "nada", seeds=(0, 1), targets=("zombie", "elf")).cells()
    assert [(cell.row.name, cell.seed) for cell in cells] == [
        ("source", 0), ("nada", 0), ("source", 0), ("nada", 0), ("nada", 1), ("nada", 1),
    ]  # fmt: skip


# -- cells ------------------------------------------------------------------------------------------------------------


def test_a_sheet_of_people_comes_back(tmp_path: Path) -> None:
    images = render(sample_latents(5, range(20)))
    save_png(tmp_path / "people.png", make_grid(images, 16, gap=0))
    torch.testing.assert_close(read_people(tmp_path / "people.png", 20), images, atol=1 / 127, rtol=0)


def test_only_what_is_missing_or_stale_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "_measure", lambda plan, cell: {"psnr": 20.0})
    first = plan(tmp_path, "nada")
    (cell,) = missing(first)
    assert benchmark._make(first, cell) is None
    assert missing(first) == []
    path = first.path(cell)
    record = json.loads(path.read_text())
    assert record["measures"] == {"psnr": 20.0}
    assert record["memory"] > 100
    assert record["made_with"]["settings"]["method"] == "nada"

    # another judge: measured anew, from the pictures that are there
    pictures = path.with_suffix(".png").stat().st_mtime_ns
    path.write_text(json.dumps({**record, "judged_by": {"judge": "another"}, "measures": {}}))
    assert missing(first) == [cell]
    benchmark._make(first, cell)
    assert json.loads(path.read_text()) == record
    assert path.with_suffix(".png").stat().st_mtime_ns == pictures

    # other settings, people or weights: made besides, and what is there stays
    for other in (plan(tmp_path, "nada", changes={**TINY, "adapt.lr": 0.5}), plan(tmp_path, "nada", people=17)):
        assert len(missing(other)) == 1
    benchmark._make(other, cell)
    assert missing(other) == missing(first) == []
    assert json.loads(path.read_text()) == record
    path.write_text("{")
    with pytest.raises(ZeroshiftError, match=r"seed0-\w+.json is damaged"):
        missing(first)


def test_what_bounds_depend_on_makes_them_stale(tmp_path: Path) -> None:
    sampled = plan(tmp_path, "source-diffusion", "fitted-diffusion")
    for other in (
        plan(tmp_path, "source-diffusion", "fitted-diffusion", changes={"diffusion.t0": 0.9}),
        plan(tmp_path, "source-diffusion", "fitted-diffusion", people=17),
    ):
        for one, two in zip(sampled.cells(), other.cells(), strict=True):
            assert sampled.path(one) != other.path(two)
    plain = plan(tmp_path, "source", "truth")
    other = plan(tmp_path, "source", "truth", changes={"diffusion.t0": 0.9})
    assert [*map(plain.path, plain.cells())] == [*map(other.path, other.cells())], "they do not sample"
    longer = plan(tmp_path, "source-diffusion", "fitted-diffusion", fit_steps=2)
    source, fitted = longer.cells()
    assert longer.path(source) == sampled.path(source), "nobody fits it"
    assert longer.path(fitted) != sampled.path(fitted)


def test_goes_on_from_the_json_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "_measure", lambda plan, cell: {"psnr": 20.0})
    first = plan(tmp_path / "first", "nada")
    (cell,) = missing(first)
    benchmark._make(first, cell)
    record = json.loads(first.path(cell).read_text())
    known = tmp_path / "page.json"
    known.write_text(json.dumps({"cells": [record, {**record, "target": "robot"}]}))

    elsewhere = plan(tmp_path / "second", "nada", known=read_known(known))
    assert missing(elsewhere) == []
    assert finished(elsewhere) == [record]
    picture = tmp_path / "zombie.png"
    picture.write_bytes(b"of the first")
    assert benchmark_page._picture(elsewhere, cell.target, tmp_path) == picture
    assert picture.read_bytes() == b"of the first", "there are no people here to draw"

    for change in ({"judged_by": {"judge": "another"}}, {"made_with": {}}):
        known.write_text(json.dumps({"cells": [{**record, **change}]}))
        assert len(missing(plan(tmp_path / "second", "nada", known=read_known(known)))) == 1
    known.write_text("[]")
    with pytest.raises(ZeroshiftError, match="JSON of a benchmark"):
        read_known(known)


def test_what_fails_is_told_and_keeps_no_other(tmp_path: Path) -> None:
    broken = plan(tmp_path, 'nada:target_images=["missing.png"]')
    cell = broken.cells()[0]
    problem = benchmark._make(broken, cell)
    assert problem is not None
    assert "There is no image missing.png" in problem
    assert not broken.path(cell).exists()


def make_or_die(plan: Plan, cell: Cell) -> str | None:
    """Stands in for a cell: the first is killed as by the system, the second fails, the others do not."""
    if cell.seed == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return "it is full" if cell.seed == 1 else None


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_cell_that_is_killed_stops_no_other(tmp_path: Path) -> None:
    made = plan(tmp_path, "nada", seeds=(0, 1, 2), processes=2)
    told = {cell.seed: problem for cell, problem in benchmark.run(made, made.cells(), make_or_die)}
    assert told == {0: "its process ended with -9, out of memory?", 1: "it is full", 2: None}


def test_what_nobody_foresaw_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "_adapt", lambda plan, cell: [][0])
    made = plan(tmp_path, "nada")
    assert benchmark._make(made, made.cells()[0]) == "IndexError: list index out of range"


def test_the_fitted_generator_comes_nearer_to_the_truth() -> None:
    from zeroshift.generators.checkpoints.files import load_generator

    source, domain = load_generator("miniature"), parse_domain("pencil sketch")
    latents = sample_latents(benchmark.EXAM_SEED, range(8))
    errors = []
    for steps in (0, 4):
        drawn = BOUNDS["fitted"](source, domain, 0, steps)(latents).detach()
        errors.append(float((drawn - render(latents, domain)).square().mean()))
    assert errors[1] < 0.85 * errors[0]


@pytest.mark.parametrize("row", ["fitted-diffusion", "fitted-autoencoder"])
def test_the_fitted_diffusion_model_comes_nearer_to_the_truth(row: str) -> None:
    from zeroshift.config.settings import Sampling
    from zeroshift.generators.checkpoints.files import load_generator
    from zeroshift.generators.diffusion.model import Diffusion

    source, domain = load_generator(f"miniature-{row.partition('-')[2]}"), parse_domain("pencil sketch")
    assert isinstance(source, Diffusion)
    source.set_sampling(Sampling(t0=0.6, noise_steps=1, steps=2, invert_steps=4, clip_sample=False))
    latents = sample_latents(benchmark.EXAM_SEED, range(4))
    codes, before = source.invert(render(latents)), [weight.clone() for weight in source.parameters()]
    errors = []
    for steps in (0, 20):
        fitted = BOUNDS[row](source, domain, 0, steps)
        assert isinstance(fitted, Diffusion)
        with torch.inference_mode():
            errors.append(float((fitted.synthesize(codes) - render(latents, domain)).square().mean()))
    assert errors[1] < 0.7 * errors[0]
    assert all(torch.equal(one, two) for one, two in zip(before, source.parameters(), strict=True))


# -- measures and statistics ------------------------------------------------------------------------------------------


def test_variance_kept() -> None:
    random = torch.Generator().manual_seed(0)
    truth = torch.cat([torch.randn(200, 3, generator=random), torch.full((200, 3), 5.0)], dim=1)
    assert variance_kept(truth, truth) == pytest.approx(1)
    assert variance_kept(truth[:1].expand(200, -1), truth) == pytest.approx(0, abs=1e-6)
    middle = truth.mean(dim=0)
    assert 0.15 < variance_kept(middle + 0.5 * (truth - middle), truth) < 0.35, "half the spread, a quarter of it"
    noise = truth.clone()
    noise[:, :3] = 0
    noise[:, 3:] += torch.randn(200, 3, generator=random)
    assert variance_kept(noise, truth) < 0.1, "people alike, pictures noisy"


def test_map_distance_equals_its_naive_twin() -> None:
    judge = load_judge()
    tower = judge.image_tower
    images, truth = render(sample_latents(1, range(3))), render(sample_latents(2, range(3)))
    expected = 0.0
    for a, b in zip(images, truth, strict=True):
        maps: list[list[torch.Tensor]] = [[], []]
        for x, seen in zip((a[None], b[None]), maps, strict=True):
            x = F.relu(tower.norm(tower.stem(x)))
            seen.append(x)
            for block in tower.blocks:
                x = block(x)
                seen.append(x)
        for u, v in zip(*maps, strict=True):
            u, v = u / u.norm(dim=1, keepdim=True), v / v.norm(dim=1, keepdim=True)
            expected += float((u - v).square().sum(dim=1).mean()) / 3
    assert map_distance(tower, images, truth) == pytest.approx(expected, rel=1e-4)
    assert map_distance(tower, images, images) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("targets", "seeds"), [(5, 1), (5, 3), (12, 3)])
def test_intervals_hold_what_they_promise(targets: int, seeds: int) -> None:
    """About 95 % of intervals hold the true mean; of five targets a little fewer."""
    random, held = np.random.default_rng(0), 0
    for seed in range(100):
        values = random.normal(0.3, 1.0, size=(targets, 1)) + random.normal(0, 0.5, size=(targets, seeds))
        difference = compare(values.tolist(), seed)
        held += difference.low <= 0.3 <= difference.high
    assert 0.88 <= held / 100 <= 0.99


def test_comparison() -> None:
    certain = compare([[1.0, 1.0]] * LEAST_TARGETS)
    assert (certain.mean, certain.low, certain.high) == (1, 1, 1)
    assert certain.decided
    assert not compare([[1.0, 1.0]] * (LEAST_TARGETS - 1)).decided, "too few targets, whatever they say"
    assert not compare([[1.0], [-1.0]] * 5).decided
    ragged = compare([[1.0, 3.0], [5.0]])
    assert ragged.mean == pytest.approx(3.5)
    assert (ragged.low, ragged.high) == (1, 5), "two targets say next to nothing"


def record(row: str, target: str, seed: int, value: float) -> dict[str, Any]:
    took = {"processor_seconds": value, "memory": value}
    measures = {measure.key: value for measure in MEASURES if measure.key not in took}
    return {"row": row, "target": target, "seed": seed, "machine": f"machine {seed}", **took, "measures": measures}


def test_differences_are_paired() -> None:
    records = [record("a", "x", 0, 5), record("b", "x", 0, 3), record("a", "x", 1, 9), record("a", "y", 0, 1)]
    assert differences(records, "a", "b", MEASURES[0]) == [[2]], "where only one of them is, there is no pair"


def test_time_on_another_machine_does_not_count() -> None:
    slow = [record("ipl", target, 1, 70.0) for target in TARGETS[:4]]
    fast = [record("nada", target, 0, 40.0) for target in TARGETS[:5]]
    told = countable([*slow, *fast])
    seconds = next(m for m in MEASURES if m.key == "processor_seconds")
    assert seconds.of(told) == [40.0] * 5
    assert len(MEASURES[0].of(told)) == 9, "what they show counts on any machine"
    assert seconds.key not in against(told, "ipl", "nada"), "how busy a machine was is no finding"


def test_a_judge_that_does_not_know_the_truth_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record("truth", "zombie", 0, 0.9), record("truth", "elf", 0, 0.1)]
    records += [record("nada", target, 0, 0.5) for target in ("zombie", "elf")]
    domain, distance, *_ = MEASURES
    assert len(domain.of(countable(records))) == 2
    assert len(distance.of(countable(records))) == 4
    assert len(domain.of(records)) == 4, "the records themselves stay whole"
    monkeypatch.setattr(benchmark_page, "finished", lambda plan: records)
    write_page(plan(tmp_path, "nada", "truth", targets=("zombie", "elf")), tmp_path / "page.md", "nada")
    text = (tmp_path / "page.md").read_text()
    assert "takes the truth itself for a elf in 10 % only, so *domain* is blank there" in text
    assert "One seed. Pictures show the first seed" in text
    assert json.loads((tmp_path / "page.json").read_text())["cells"] == records
    write_page(plan(tmp_path, "nada", "ipl", targets=("zombie", "elf")), tmp_path / "page.md", "nada")
    text = (tmp_path / "page.md").read_text()
    assert "- **nada**: 50.0% in the domain" in text, "a row of which nothing is done takes no target from the others"
    assert "- **ipl**: no target in common" in text


def test_the_page_says_what_the_intervals_carry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = tuple(TARGETS[:5])
    records = [record("nada", target, seed, 0.5) for target in targets for seed in (0, 1)]
    records += [record("ipl", target, seed, 0.75) for target in targets for seed in (0, 1)]
    records += [
        record("air", target, 0, 0.5 + sign * 0.1) for target, sign in zip(targets, (1, -1, 1, -1, 0), strict=True)
    ]
    monkeypatch.setattr(benchmark_page, "finished", lambda plan: records)
    made = plan(tmp_path, "nada", "ipl", "air", targets=targets, seeds=(0, 1))
    write_page(made, tmp_path / "docs" / "page.md", "nada")
    text = (tmp_path / "docs" / "page.md").read_text()
    short = dict(re.findall(r"^- \*\*([\w-]+)\*\*: (.+)$", text.partition("## What was measured")[0], re.MULTILINE))
    assert short["nada"].startswith("50.0% in the domain, 0.500 from the truth, PSNR 0.5, 0.50 of the variance")
    assert short["nada"].endswith("The baseline.")
    assert "75.0% in the domain" in short["ipl"]
    assert "Against nada — better: domain, PSNR, classes, scalars, kept; worse: distance, maps, FD" in short["ipl"]
    assert "Against nada — not decided: domain" in short["air"]
    assert "**+0.250** [+0.250, +0.250]" in text
    assert "| ipl | 0.750 ± 0.000 |" in text
    assert "Means over seeds ± standard deviation." in text
    blank = "(seconds and MiB are of the first alone, and blank for what ran elsewhere)"
    assert f"Made on machine 0 and on machine 1 {blank}, by" in text
    assert "- **nada**: method = nada, truncation = 1.0" in text
    assert "- **ipl**: as nada, but method = ipl, prompts.base_text = none." in text
    assert "**Not done yet: 5 of 30 adaptations.**" in text
    assert f"zeroshift benchmark --methods nada ipl air --targets {targets[0]}" in text
    for target in targets:
        assert (tmp_path / "docs" / "page" / f"{target.replace(' ', '-')}.png").exists()
        assert f"(page/{target.replace(' ', '-')}.png)" in text
    data = json.loads((tmp_path / "docs" / "page.json").read_text())
    assert data["compared"]["ipl"]["psnr"]["low"] == pytest.approx(0.25)
    assert data["cells"] == records


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["benchmark", "--out", str(tmp_path), "--methods", "nada", "--targets", "pencil sketch of a zombie"]
    arguments += ["--seeds", "1", "--people", "16", "--fit-steps", "0", "--processes", "1", "--steps", "1"]
    arguments += ["--set", "adapt.batch_size=2", "adapt.augmentations=0", "adapt.layer_batch_size=1"]
    assert main(arguments) == 0
    assert "benchmark.md" in capsys.readouterr().out
    page = (tmp_path / "benchmark.md").read_text()
    assert "a pair that the encoders never saw" in page
    folder = tmp_path / "cells" / "pencil-sketch-of-a-zombie"
    assert sorted(path.name for path in folder.iterdir()) == ["nada", "source", "truth"]
    (told,) = (json.loads(path.read_text())["measures"] for path in (folder / "truth").glob("seed1-*.json"))
    (source,) = (json.loads(path.read_text())["measures"] for path in (folder / "source").glob("seed1-*.json"))
    assert {measure.key for measure in MEASURES} <= {*told, "processor_seconds", "memory"}
    assert told["psnr"] > source["psnr"]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    for words, title in (("Sketches are easy.\n", "# Benchmark in the miniature world"), ("# Ease\n\nSo.\n", "# Ease")):
        (tmp_path / "words.md").write_text(words)
        assert main([*arguments, "--pages-only", "--conclusion", str(tmp_path / "words.md")]) == 0
        first, conclusion, *_ = (tmp_path / "benchmark.md").read_text().split("\n\n")
        assert (first, conclusion) == (title, words.strip().removeprefix("# Ease\n\n"))
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}

    capsys.readouterr()
    page, known = str(tmp_path / "benchmark.md"), str(tmp_path / "benchmark.json")
    others = [*arguments, "--pages-only", "--known", known]
    assert main([*others, "--page", page]) == 0
    assert "3 of this benchmark's 3 adaptations are known" in " ".join(capsys.readouterr().out.split())
    kept = (tmp_path / "benchmark.json").read_text()
    assert main([*others, "--page", page, "--people", "17"]) == 1
    assert "would lose 3 of its 3 adaptations" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "benchmark.json").read_text() == kept


def test_diffusion_models_get_the_photos(tmp_path: Path) -> None:
    arguments = ["benchmark", "--out", str(tmp_path), "--methods", "diffusionclip-autoencoder", "--targets", "zombie"]
    arguments += ["--seeds", "0", "--people", "16", "--processes", "1", "--steps", "1", "--fit-steps", "0"]
    arguments += ["--set", "latents=2"]
    arguments += ["adapt.augmentations=0", "diffusion.noise_steps=1", "diffusion.steps=3", "diffusion.invert_steps=6"]
    assert main(arguments) == 0
    folder = tmp_path / "cells" / "zombie"
    assert {path.name for path in folder.iterdir()} == {"diffusionclip-autoencoder", "source-autoencoder", "truth"}
    photos = render(sample_latents(benchmark.EXAM_SEED, range(16)))
    (returned,) = (read_people(path, 16) for path in (folder / "source-autoencoder").glob("seed0-*.png"))
    assert float((returned - photos).square().mean()) < 0.05, "the source gives the photos back"
    page = (tmp_path / "benchmark.md").read_text()
    assert "`source-autoencoder` is the diffusion autoencoder" in page
    assert "`source` is" not in page


def test_the_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--out", str(tmp_path), "--methods", "ipl", "--baseline", "nada"]) == 1
    assert "'nada' cannot be the baseline" in " ".join(capsys.readouterr().err.split())
    assert main(["benchmark", "--out", str(tmp_path), "--conclusion", str(tmp_path / "missing.md")]) == 1
    assert "missing.md cannot be read" in " ".join(capsys.readouterr().err.split())
