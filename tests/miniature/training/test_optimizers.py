"""Seeded initialization."""

import torch

from zeroshift.miniature.training.optimizers import seeded


def test_seeded_weights_leave_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (seeded(lambda: torch.nn.Linear(3, 3), 7).weight for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.rand(1), expected)
