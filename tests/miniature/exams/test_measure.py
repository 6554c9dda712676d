"""Measurements of encoders and probe."""

import pytest
import torch
import torch.nn.functional as F

from zeroshift.miniature.exams import measure
from zeroshift.miniature.networks.encoders import (
    PROBE_CONFIG,
    Probe,
)
from zeroshift.miniature.training.optimizers import seeded
from zeroshift.miniature.world.domains import DOMAINS


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_retrieval_and_domain_accuracy_count():
    features = torch.eye(4)
    assert measure.retrieval(features, features) == 1
    assert measure.retrieval(features, features[[0, 1, 3, 2]]) == 0.5
    assert measure.domain_accuracy(features, features, torch.tensor([0, 1, 2, 0])).tolist() == [1, 1, 1, 0]


def test_pgd_stays_in_its_ball_and_moves_toward_the_target():
    project = torch.randn(3 * 8 * 8, 5, generator=generator())
    labels = torch.eye(5)
    images = torch.rand(4, 3, 8, 8, generator=generator(1)) * 2 - 1
    target = torch.tensor([1, 2, 3, 4])

    def encode(x):
        return x.flatten(1) @ project

    attacked = measure.pgd(encode, labels, images, target, size=8 / 255, steps=5)
    assert (attacked - images).abs().max() <= 16 / 255 + 1e-6  # of the range [-1, 1]
    assert attacked.abs().max() <= 1
    before, after = (F.normalize(encode(x), dim=-1)[torch.arange(4), target] for x in (images, attacked))
    assert (after > before).all()


@pytest.mark.slow
def test_domain_exam_and_probe_table_cover_what_is_visible():
    exam = measure.DomainExam.make(seed=9, per_domain=2)
    assert exam.images.shape == (2 * len(DOMAINS), 3, 64, 64)
    probe = seeded(lambda: Probe(**PROBE_CONFIG), 0).eval()
    table = measure.factor_table(probe, exam)
    assert set(table) == {(domain.full_label, name) for domain in DOMAINS for name in domain.visible}
    report = measure.probe_report(probe, exam)
    assert report["R2"] < 0.3  # random weights
    assert 0 < report["class accuracy"] < 0.7
