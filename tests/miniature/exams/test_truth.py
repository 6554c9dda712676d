"""The truth exam with the shipped evaluator and probe."""

import pytest

from zeroshift.miniature.exams.truth import TruthExam, factor_agreement
from zeroshift.miniature.networks.encoders import load_evaluator, load_probe
from zeroshift.miniature.world.domains import SOURCE, parse_domain
from zeroshift.miniature.world.renderer import render, sample_latents


@pytest.fixture(scope="module")
def exam() -> TruthExam:
    return TruthExam.make(parse_domain("zombie"), sample_latents(77, range(48)), load_evaluator(), load_probe())


@pytest.mark.slow
def test_the_truth_passes_its_own_exam(exam: TruthExam) -> None:
    measured = exam.measure(exam.truth)
    assert measured["accuracy"] > 0.9
    assert measured["distance"] == pytest.approx(0, abs=1e-5)
    assert measured["diversity"] == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_unadapted_and_collapsed_images_fail_the_exam(exam: TruthExam) -> None:
    source = exam.measure(render(exam.latents, SOURCE))
    assert source["accuracy"] < 0.1
    adapted = exam.measure(0.5 * (exam.truth + render(exam.latents, SOURCE)))
    assert 0 < adapted["distance"] < source["distance"]
    collapsed = exam.measure(exam.truth[:1].repeat(48, 1, 1, 1))
    assert collapsed["diversity"] == pytest.approx(0, abs=1e-4)


def test_the_probe_agrees_with_the_right_people_only(exam: TruthExam) -> None:
    right = factor_agreement(exam.probe, exam.truth, exam.latents, exam.domain)
    wrong = factor_agreement(exam.probe, exam.truth.roll(1, 0), exam.latents, exam.domain)
    assert right["classes"] > wrong["classes"] + 0.2
    assert right["scalars"] > wrong["scalars"] + 0.3
