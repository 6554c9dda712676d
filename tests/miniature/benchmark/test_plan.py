"""Plans: their trials, settings and checks."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.benchmark_plans import make_plan
from zeroshift.errors import ZeroshiftError
from zeroshift.methods.configure import flat
from zeroshift.miniature.benchmark.plan import Trial
from zeroshift.miniature.benchmark.variants import VARIANTS, parse_variant


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_variant_can_be_configured(variant: Any) -> None:
    config = Trial(variant, "zombie", 3).config({"adapt.steps": 7})
    assert (config.seed, config.adapt.steps, config.method) == (3, 7, variant.changes["method"])
    assert (config.target, config.generator, config.device) == ("zombie", variant.generator, "cpu")


def test_settings_of_the_plan_apply_where_they_exist(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "nada", "ipl", changes={"prompts.steps": 5}).validate()
    nada, ipl = (flat(trial.config(plan.changes)) for trial in plan.trials())
    assert ipl["prompts.steps"] == 5
    assert "prompts.steps" not in nada


def test_settings_of_a_variant_take_precedence() -> None:
    config = Trial(parse_variant("nada:adapt.steps=9"), "zombie", 0).config({"adapt.steps": 7})
    assert config.adapt.steps == 9


@pytest.mark.parametrize(
    ("variants", "changes", "message"),
    [
        (["nada"], {"targets": ("photo",)}, "is the source domain"),
        (["nada"], {"targets": ("unicorn",)}, "no domain 'unicorn'"),
        (["nada", "nada"], {}, "a duplicate in nada, nada"),
        (["nada"], {"seeds": ()}, "at least one"),
        (["nada"], {"people": 3}, "at least 16 people"),
        (["nada"], {"fit_steps": -5}, "no negative number"),
        (["nada:adapt.lr=0"], {}, r"adapt\.lr is 0"),
        (["nada:prompts.steps=5"], {}, r"no setting 'prompts\.steps'"),
        (["nada"], {"changes": {"adapt.speed": 1}}, r"no setting 'adapt\.speed'"),
        (["nada"], {"changes": {"prompts.steps": 5}}, r"no setting 'prompts\.steps'"),
    ],
)
def test_impossible_plans_are_refused(
    tmp_path: Path, variants: list[str], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ZeroshiftError, match=message):
        make_plan(tmp_path, *variants, **changes).validate()


def test_bounds_have_one_seed(tmp_path: Path) -> None:
    trials = make_plan(tmp_path, "source", "nada", seeds=(0, 1), targets=("zombie", "elf")).trials()
    assert [(trial.variant.name, trial.seed) for trial in trials] == [
        ("source", 0), ("nada", 0), ("source", 0), ("nada", 0), ("nada", 1), ("nada", 1),
    ]  # fmt: skip
