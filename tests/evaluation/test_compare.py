"""Results of several runs in one table."""

import json
from dataclasses import replace
from typing import Any

import pytest

from zeroshift import RunFolder
from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.evaluation.compare import YARDSTICK, as_json, compare, headings, markdown, yardsticks
from zeroshift.evaluation.results import Result
from zeroshift.generators.diffusion.options import DDIMOptions

BASE = AdaptConfig(target="zombie", sampling=DDIMOptions())


def result(measure: str, value: float | None, **fields: Any) -> Result:
    return replace(Result(measure, value, None, "lower", "p", "n", 10, 0, "", 0, 1.0, "now"), **fields)


def run(name: str, **fields: Any) -> RunFolder:
    return RunFolder(name, replace(BASE, **fields))


def test_runs_are_grouped_by_settings() -> None:
    runs = [run(f"r{seed}", seed=seed) for seed in range(3)]
    columns, rows = compare(
        (run, [result("a", value), result("b", None)]) for run, value in zip(runs, (1.0, 2.0, 6.0), strict=True)
    )
    assert headings(columns) == ["a ↓ (n)", "b ↓ (n)"]
    (row,) = rows
    assert (row.label, row.runs, row.seeds) == ("r0", ["r0", "r1", "r2"], [0, 1, 2])
    assert row.cell(columns[0]) == "3.000 ± 2.646"
    assert row.cell(columns[1]) == "–"
    assert json.loads(as_json(columns, rows))[0]["measures"][1]["mean"] is None
    other = run("other", target="elf", encoders=("a", "b"))
    _, rows = compare([(runs[0], [result("a", 1.0)]), (other, [result("a", 0.25)])])
    assert [row.label for row in rows] == ["target=zombie, encoders=miniature", "target=elf, encoders=a+b"]
    assert markdown(columns[:1], rows).splitlines()[-1] == "| target=elf, encoders=a+b | 0.2500 |"


def test_the_source_and_the_truth_stand_below_the_runs() -> None:
    """One value if all rows agree, the range of their targets otherwise; nothing for results of older versions."""
    runs = [run("a"), run("b", seed=1), run("c", target="elf")]
    values = ((0.5, 0.1), (0.5, 0.1), (0.75, None))
    columns, rows = compare(
        (each, [result("m", 0.3, source_value=source, truth_value=truth), result("old", 1.0)])
        for each, (source, truth) in zip(runs, values, strict=True)
    )
    assert yardsticks(columns, rows) == [
        ("source (unadapted)", ["0.5000 to 0.7500", "–"]),
        ("truth (perfect)", ["0.1000", "–"]),
    ]
    assert YARDSTICK in markdown(columns, rows)
    measure = json.loads(as_json(columns, rows))[0]["measures"][0]
    assert (measure["source"], measure["truth"]) == (0.5, 0.1)


def test_runs_of_one_seed_count_once() -> None:
    """Two runs of seed 0 (1 and 3, mean 2) and one of seed 1 (5)."""
    runs = [run("a"), run("copy of a"), run("b", seed=1)]
    columns, (row,) = compare((each, [result("m", value)]) for each, value in zip(runs, (1.0, 3.0, 5.0), strict=True))
    assert row.cell(columns[0]) == "3.500 ± 2.121"
    assert "| a (2) |" in markdown(columns, [row])
    measure = json.loads(as_json(columns, [row]))[0]["measures"][0]
    assert (measure["values"], measure["seeds"]) == ([1, 3, 5], [0, 0, 1])
    columns, (row,) = compare((each, [result("m", 1.0)]) for each in runs[:2])
    assert row.cell(columns[0]) == "1.000", "no spread over one seed"
    assert "| a | 1.000 |" in markdown(columns, [row])


def test_a_cell_states_how_many_seeds_have_a_value() -> None:
    values = (1.0, None, 3.0)
    columns, (row,) = compare((run(f"r{seed}", seed=seed), [result("m", value)]) for seed, value in enumerate(values))
    assert row.cell(columns[0]) == "2.000 ± 1.414 (2 of 3)"


@pytest.mark.parametrize(
    "fields",
    [
        {"device": "cpu"},
        {"preview_every": 7, "preview_samples": 3, "checkpoint_every": 9},
        {"adapt": AdaptStage(grad_accumulation_steps=2), "sampling": DDIMOptions(gradient_checkpointing=True)},
    ],
)
def test_settings_that_do_not_change_images_do_not_separate_runs(fields: dict[str, Any]) -> None:
    columns, rows = compare([(run("a"), [result("m", 1.0)]), (run("b", seed=1, **fields), [result("m", 2.0)])])
    assert [row.cell(columns[0]) for row in rows] == ["1.500 ± 0.7071"]


def test_a_run_that_is_being_extended_is_listed_with_the_steps_of_its_generator() -> None:
    longer = run("longer", seed=1, adapt=AdaptStage(steps=900))
    _, rows = compare([(run("a"), [result("m", 1.0, steps=300)]), (longer, [result("m", 2.0, steps=300)])])
    assert [row.settings["adapt.steps"] for row in rows] == [300]
    _, rows = compare([(run("a"), [result("m", 1.0, steps=300)]), (longer, [result("m", 2.0, steps=900)])])
    assert [row.label for row in rows] == ["adapt.steps=300", "adapt.steps=900"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"samples": 256}, "samples"),
        ({"references": 5}, "references"),
        ({"reference": "real"}, "reference"),
        ({"truncation_psi": 0.7}, "truncation psi"),
        ({"protocol": "q"}, "protocol"),
        ({"seed": 1}, "sample seed"),
    ],
)
def test_results_of_different_protocols_are_in_different_columns(fields: dict[str, Any], name: str) -> None:
    columns, rows = compare([(run("a"), [result("m", 1.0)]), (run("b", seed=1), [result("m", 2.0, **fields)])])
    assert len(columns) == 2
    assert f"m ↓ (n, {name} {next(iter(fields.values()))})" in headings(columns)
    assert [rows[0].cell(column) for column in columns] == ["1.000 (1 of 2)", "2.000 (1 of 2)"]
    how = json.loads(as_json(columns, rows))[0]["measures"][1]
    expected = {
        "protocol": "p",
        "samples": 10,
        "references": 0,
        "reference": "",
        "sample_seed": 0,
        "truncation_psi": 1.0,
    }
    changed = {"sample_seed" if key == "seed" else key: value for key, value in fields.items()}
    assert expected | changed == {key: how[key] for key in expected}
