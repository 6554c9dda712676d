"""Records of trials: provenance, reuse, and formats of earlier versions."""

import itertools
import json
import shlex
from pathlib import Path

import pytest

from tests.helpers.benchmark_plans import TINY, make_plan
from zeroshift.errors import ZeroshiftError
from zeroshift.miniature.benchmark import run
from zeroshift.miniature.benchmark.plan import BenchmarkPlan
from zeroshift.miniature.benchmark.records import (
    evaluators,
    finished_records,
    missing_trials,
    previous_record,
    provenance,
    read_previous,
    record_path,
)
from zeroshift.miniature.benchmark.run import run_trials
from zeroshift.miniature.benchmark.sheets import save_comparison
from zeroshift.miniature.benchmark.variants import VARIANTS

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def fixed_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_measure", lambda plan, trial: {"psnr": 20.0})


def test_all_variants_have_different_provenance(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, *(variant.name for variant in VARIANTS))
    settings = {trial.variant.name: provenance(plan, trial)["settings"] for trial in plan.trials()}
    assert all(a != b for a, b in itertools.combinations(settings.values(), 2))
    assert settings["air"]["anchor_samples"] == 200, "settings of a method count"
    assert settings["ipl"]["prompts.base_text"] == "none"
    assert not any(name.startswith("prompts.") for name in settings["nada"]), "settings of other methods do not"


@pytest.mark.slow
def test_only_missing_or_stale_trials_run(tmp_path: Path, fixed_measures: None) -> None:
    plan = make_plan(tmp_path, "nada")
    (trial,) = missing_trials(plan)
    assert run_trials(plan, [trial]) == [None]
    assert missing_trials(plan) == []
    path = record_path(plan, trial)
    record = json.loads(path.read_text())
    assert record["measures"] == {"psnr": 20.0}
    assert record["memory"] > 100
    assert record["provenance"]["settings"]["method"] == "nada"

    # Another evaluator: measured again, from the existing images.
    pictures = path.with_suffix(".png").stat().st_mtime_ns
    path.write_text(json.dumps({**record, "evaluated_by": {"evaluator": "another"}, "measures": {}}))
    assert missing_trials(plan) == [trial]
    run_trials(plan, [trial])
    assert json.loads(path.read_text()) == record
    assert path.with_suffix(".png").stat().st_mtime_ns == pictures

    # Other settings or people: a new record next to the old one.
    changed, larger = (
        make_plan(tmp_path, "nada", changes={**TINY, "adapt.lr": 0.5}),
        make_plan(tmp_path, "nada", people=17),
    )
    assert len(missing_trials(changed)) == len(missing_trials(larger)) == 1
    run_trials(larger, [trial])
    assert missing_trials(larger) == missing_trials(plan) == []
    assert json.loads(path.read_text()) == record
    path.write_text("{")
    with pytest.raises(ZeroshiftError, match=r"seed0-\w+.json is not valid JSON.*Delete the file"):
        missing_trials(plan)


def test_bounds_depend_on_people_and_sampling(tmp_path: Path) -> None:
    bounds = ("source-diffusion", "fitted-diffusion")
    plan = make_plan(tmp_path, *bounds)
    for other in (make_plan(tmp_path, *bounds, changes={"sampling.t0": 0.9}), make_plan(tmp_path, *bounds, people=17)):
        for one, two in zip(plan.trials(), other.trials(), strict=True):
            assert record_path(plan, one) != record_path(other, two)
    plain = make_plan(tmp_path, "source", "truth")
    other = make_plan(tmp_path, "source", "truth", changes={"sampling.t0": 0.9})
    paths = [[record_path(each, trial) for trial in each.trials()] for each in (plain, other)]
    assert paths[0] == paths[1], "without sampling settings"


def test_only_fitted_bounds_depend_on_the_training_steps(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "source-diffusion", "fitted-diffusion")
    longer = make_plan(tmp_path, "source-diffusion", "fitted-diffusion", fit_steps=2)
    source, fitted = longer.trials()
    assert record_path(longer, source) == record_path(plan, source)
    assert record_path(longer, fitted) != record_path(plan, fitted)


def test_a_benchmark_continues_from_the_json_of_a_page(tmp_path: Path, fixed_measures: None) -> None:
    plan = make_plan(tmp_path / "first", "nada")
    (trial,) = missing_trials(plan)
    run_trials(plan, [trial])
    record = json.loads(record_path(plan, trial).read_text())
    page = tmp_path / "page.json"
    page.write_text(json.dumps({"trials": [record, {**record, "target": "robot"}]}))

    elsewhere = make_plan(tmp_path / "second", "nada", previous=read_previous(page))
    assert missing_trials(elsewhere) == []
    assert finished_records(elsewhere) == [record]
    picture = tmp_path / "zombie.png"
    picture.write_bytes(b"of the first")
    assert save_comparison(elsewhere, trial.target, tmp_path) == picture
    assert picture.read_bytes() == b"of the first", "there are no images here to draw"

    for change in ({"evaluated_by": {"evaluator": "another"}}, {"provenance": {}}):
        page.write_text(json.dumps({"trials": [{**record, **change}]}))
        assert len(missing_trials(make_plan(tmp_path / "second", "nada", previous=read_previous(page)))) == 1


RECORD = {
    "variant": "nada", "target": "zombie", "seed": 0, "provenance": {"people": 16}, "machine": "a computer",
    "seconds": 3.0, "processor_seconds": 2.5, "memory": 300, "evaluated_by": {"evaluator": "a"},
    "measures": {"psnr": 20.0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is not the JSON of a benchmark's page"),
        ('{"cells": 3}', "is not the JSON of a benchmark's page"),
        ("{", "is not valid JSON"),
        ("[" * 100_000, "nested more than"),
        ('{"trials": [[]]}', r"page.json: the record trials\[0\] does not match"),
    ],
)
def test_damaged_pages_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "page.json").write_text(content)
    with pytest.raises(ZeroshiftError, match=message):
        read_previous(tmp_path / "page.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measures": {"psnr": float("nan")}}, "measures.psnr is nan"),
        ({"measures": {"psnr": float("inf")}}, "measures.psnr is inf"),
        ({"measures": {"psnr": "20"}}, "measures.psnr is '20'"),
        ({"measures": {"psnr": [20]}}, "measures.psnr is "),
        ({"measures": [20]}, "measures is "),
        ({"memory": None}, "memory is None"),
        ({"machine": {"name": 3}}, "machine is "),
        ({"seed": "0"}, "seed is '0'"),
        ({"variant": ["nada"]}, "variant is "),
        ({"target": "x" * 2000}, "target is 'xxx"),
        ({"provenance": 3}, "provenance is 3"),
        ({"evaluated_by": ["judge"]}, "evaluated_by is "),
    ],
)
def test_a_wrong_record_of_a_page_is_named(tmp_path: Path, change: dict, message: str) -> None:
    (tmp_path / "page.json").write_text(json.dumps({"trials": [RECORD, {**RECORD, **change}]}))
    with pytest.raises(ZeroshiftError, match=rf"trials\[1\] does not match: {message}"):
        read_previous(tmp_path / "page.json")


def test_large_pages_are_refused(tmp_path: Path) -> None:
    (tmp_path / "page.json").write_bytes(b" " * (2**24 + 1))
    with pytest.raises(ZeroshiftError, match="larger than 16 MiB"):
        read_previous(tmp_path / "page.json")


def test_a_wrong_record_of_a_trial_is_named(tmp_path: Path, fixed_measures: None) -> None:
    plan = make_plan(tmp_path, "nada")
    (trial,) = plan.trials()
    path = record_path(plan, trial)
    path.parent.mkdir(parents=True)
    path.with_suffix(".png").touch()
    for content, message in (
        (json.dumps({**RECORD, "measures": {"psnr": float("nan")}}), "measures.psnr is nan"),
        ("[]", "does not match"),
        (json.dumps(RECORD)[:-40], "is not valid JSON"),
    ):
        path.write_text(content)
        with pytest.raises(ZeroshiftError, match=rf"seed0-\w+.json .*{message}.*Delete the file"):
            missing_trials(plan)


def test_keys_of_the_first_version_are_accepted(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "nada")
    (trial,) = plan.trials()
    facts = json.loads(json.dumps(provenance(plan, trial)))
    old = {
        **{key: value for key, value in RECORD.items() if key not in ("variant", "provenance", "evaluated_by")},
        "row": "nada",
        "made_with": {{"guidance_encoder": "guide"}.get(key, key): value for key, value in facts.items()},
        "judged_by": {{"evaluator": "judge"}.get(key, key): value for key, value in evaluators().items()},
    }
    (tmp_path / "page.json").write_text(json.dumps({"cells": [old]}))
    assert missing_trials(make_plan(tmp_path, "nada", previous=read_previous(tmp_path / "page.json"))) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["benchmark", "benchmark-choices", "benchmark-diffusion"])
def test_the_shipped_results_fit_the_current_settings_and_weights(name: str, tmp_path: Path) -> None:
    """A change of defaults, weights or names must not silently make results in docs/ stale."""
    path = DOCS / f"{name}.json"
    plan = _plan_of_command(json.loads(path.read_text())["command"], path, tmp_path)
    assert len(plan.trials()) == len(plan.previous)
    assert [str(trial) for trial in plan.trials() if previous_record(plan, trial) is None] == []


def _plan_of_command(command: str, previous: Path, out: Path) -> BenchmarkPlan:
    from zeroshift.cli.benchmark import _plan, parse

    options = parse([*shlex.split(command)[2:], "--previous", str(previous), "--out", str(out)])
    return _plan(options)[0]
