"""The loss of factor readings."""

import torch

from zeroshift.miniature.networks.encoders import (
    NUM_READINGS,
    readings,
)
from zeroshift.miniature.training.factor_loss import factor_loss, visibility
from zeroshift.miniature.world.domains import SOURCE, Domain
from zeroshift.miniature.world.factors import FACTORS, NUM_FACTORS, class_weights


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_factor_loss_equals_its_naive_twin():
    outputs = torch.randn(5, NUM_READINGS, generator=generator(), requires_grad=True)
    positions = torch.rand(5, NUM_FACTORS, generator=generator(1))
    domains = [SOURCE, Domain("mosaic", "elf"), Domain("photo", "alien"), SOURCE, Domain("blueprint", "person")]
    total, count = 0.0, 0
    for row, domain in enumerate(domains):
        read = {name: part[row] for name, part in readings(outputs).items()}
        for index, factor in enumerate(FACTORS):
            if factor.name not in domain.visible:
                continue
            u = positions[row, index]
            if factor.is_class:
                share = class_weights(factor, u[None])[0]
                one = -(share * read[factor.name].log_softmax(0)).sum() / torch.tensor(len(factor.classes)).log()
            else:
                one = (read[factor.name] - u) ** 2 / (1 / 12)
            total, count = total + one, count + 1
    fast = factor_loss(outputs, positions, visibility(domains))
    torch.testing.assert_close(fast, total / count)
    torch.testing.assert_close(*(torch.autograd.grad(loss, outputs)[0] for loss in (fast, total / count)))
