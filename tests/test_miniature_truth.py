"""Measures against the truth, with the shipped judge and probe."""

import pytest
import torch
import torch.nn.functional as F

from zeroshift.miniature.domains import SOURCE, parse_domain
from zeroshift.miniature.encoders import load_judge, load_probe
from zeroshift.miniature.renderer import render, sample_latents
from zeroshift.miniature.truth import TruthExam, diversity, factor_agreement, paired_distance


@pytest.fixture(scope="module")
def exam() -> TruthExam:
    return TruthExam.make(parse_domain("zombie"), sample_latents(77, range(48)), load_judge(), load_probe())


def test_diversity_is_the_mean_over_pairs() -> None:
    features = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    pairs = [1 - F.cosine_similarity(features[i], features[j], dim=0) for i in range(7) for j in range(7) if i != j]
    assert diversity(features) == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-6)
    assert diversity(features[:1].repeat(4, 1)) == pytest.approx(0, abs=1e-6)


def test_paired_distance() -> None:
    one = torch.eye(3)
    assert paired_distance(one, one * 5) == pytest.approx(0, abs=1e-6)
    assert paired_distance(one, one.roll(1, 0)) == pytest.approx(1)


def test_the_truth_passes_its_own_exam(exam: TruthExam) -> None:
    measured = exam.measure(exam.truth)
    assert measured["accuracy"] > 0.9
    assert measured["distance"] == pytest.approx(0, abs=1e-5)
    assert measured["diversity"] == pytest.approx(1, abs=1e-5)


def test_unadapted_and_collapsed_images_do_not(exam: TruthExam) -> None:
    source = exam.measure(render(exam.latents, SOURCE))
    assert source["accuracy"] < 0.1
    assert source["distance_ratio"] == pytest.approx(1, abs=1e-5)
    collapsed = exam.measure(exam.truth[:1].repeat(48, 1, 1, 1))
    assert collapsed["diversity"] == pytest.approx(0, abs=1e-4)


def test_the_probe_agrees_with_the_right_people_only(exam: TruthExam) -> None:
    right = factor_agreement(exam.probe, exam.truth, exam.latents, exam.domain)
    wrong = factor_agreement(exam.probe, exam.truth.roll(1, 0), exam.latents, exam.domain)
    assert right["classes"] > wrong["classes"] + 0.2
    assert right["scalars"] > wrong["scalars"] + 0.3
