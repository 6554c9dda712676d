"""Comparable values, and pairing of variants."""

from tests.helpers.benchmark_plans import make_record
from zeroshift.benchmark.measures import compare_variants, differences
from zeroshift.miniature.benchmark.measures import MEASURES, comparable
from zeroshift.miniature.benchmark.variants import TARGETS


def test_differences_are_paired() -> None:
    records = [
        make_record("a", "x", 0, 5),
        make_record("b", "x", 0, 3),
        make_record("a", "x", 1, 9),
        make_record("a", "y", 0, 1),
    ]
    assert differences(records, "a", "b", MEASURES[0]) == [[2]], "only one target and seed has both"


def test_times_of_another_machine_are_left_out() -> None:
    slow = [make_record("ipl", target, 1, 70.0) for target in TARGETS[:4]]
    fast = [make_record("nada", target, 0, 40.0) for target in TARGETS[:5]]
    counted = comparable([*slow, *fast])
    seconds = next(m for m in MEASURES if m.key == "processor_seconds")
    assert seconds.values(counted) == [40.0] * 5
    assert len(MEASURES[0].values(counted)) == 9, "other measures do not depend on the machine"
    assert seconds.key not in compare_variants(counted, "ipl", "nada", MEASURES), "time depends on other load"


def test_the_domain_is_left_out_where_the_truth_is_not_recognized() -> None:
    records = [make_record("truth", "zombie", 0, 0.9), make_record("truth", "elf", 0, 0.1)]
    records += [make_record("nada", target, 0, 0.5) for target in ("zombie", "elf")]
    domain, distance, *_ = MEASURES
    assert len(domain.values(comparable(records))) == 2
    assert len(distance.values(comparable(records))) == 4
    assert len(domain.values(records)) == 4, "the records themselves stay complete"
