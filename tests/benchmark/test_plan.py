"""The plan of a benchmark on any generator."""

from dataclasses import replace
from pathlib import Path

import pytest

from zeroshift.benchmark import paper
from zeroshift.benchmark.plan import GeneratorPlan, parse_pair
from zeroshift.benchmark.provenance import slug
from zeroshift.benchmark.variants import Variant
from zeroshift.errors import ZeroshiftError

NADA = Variant("nada", {"method": "nada"})


def make_plan(out: Path, *targets: str) -> GeneratorPlan:
    return GeneratorPlan(out, tuple(parse_pair("miniature", target) for target in targets), (NADA,))


def test_a_target_may_name_its_source(tmp_path: Path) -> None:
    assert [parse_pair("miniature", text).name for text in ("elf", "human:elf")] == ["photo to elf", "human to elf"]
    with pytest.raises(ZeroshiftError, match="SOURCE:TARGET"):
        parse_pair("miniature", "human:")
    plan = make_plan(tmp_path, "human:elf")
    config = plan.config(plan.trials()[0])
    assert (config.source, config.target, config.generator) == ("human", "elf", "miniature")


def test_every_setting_and_the_weights_have_their_own_folder(tmp_path: Path, tiny_generator: Path) -> None:
    plan = make_plan(tmp_path, "elf")
    pair = replace(plan.pairs[0], generator=str(tiny_generator))
    plans = [plan, replace(plan, changes={"adapt.lr": 0.5}), replace(plan, pairs=(pair,)), replace(plan, seeds=(1,))]
    assert len({each.folder(each.trials()[0]) for each in plans}) == 4
    assert plan.folder(plan.trials()[0]) == replace(plan, num=50).folder(plan.trials()[0]), (
        "measured again, not adapted again"
    )


def test_references_are_a_folder_per_target_or_one_for_one(tmp_path: Path) -> None:
    (tmp_path / "real" / "tolkien-elf").mkdir(parents=True)
    plan = replace(make_plan(tmp_path, "tolkien elf", "zombie"), references=tmp_path / "real")
    assert [plan.reference_folder(pair) for pair in plan.pairs] == [tmp_path / "real" / "tolkien-elf", None]
    one = replace(make_plan(tmp_path, "zombie"), references=tmp_path / "real")
    assert one.reference_folder(one.pairs[0]) == tmp_path / "real"
    two = replace(make_plan(tmp_path, "zombie", "clown"), references=tmp_path / "real")
    with pytest.raises(ZeroshiftError, match="Make subfolders: zombie, clown"):
        two.validate()


def test_impossible_plans_are_refused(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "elf")
    for changes, message in (
        ({"pairs": ()}, "at least one"),
        ({"seeds": (0, 0)}, "duplicate"),
        ({"num": 3}, "ten samples"),
        ({"metrics": ("fidd",)}, "fid"),
        ({"changes": {"adapt.lrr": 1}}, "lr"),
    ):
        with pytest.raises(ZeroshiftError, match=message):
            replace(plan, **changes).validate()


def test_the_paper_has_ten_pairs_on_two_generators(tmp_path: Path) -> None:
    variants = tuple(Variant(name, {"method": name}) for name in paper.METHODS)
    plan = GeneratorPlan(tmp_path, paper.PAIRS, variants, metrics=paper.METRICS, preset=paper.PRESET).validate()
    assert len(plan.trials()) == 20
    configs = [plan.config(trial) for trial in plan.trials()]
    assert {config.generator for config in configs} == {"ffhq", "afhqdog"}
    assert {config.truncation_psi for config in configs} == {0.7}
    assert {config.adapt.steps for config in configs} == {300}


def test_long_names_are_shortened_and_stay_different() -> None:
    one, other = (slug(f"nada:target_images={'ü/a' * 100}{end}") for end in ("x", "y"))
    assert one != other
    assert len(one.encode()) <= 120
    assert slug("nada:adapt.steps=160") == "nada-adapt.steps=160"
